"""Migrations apply, apply again, go back and apply again on a database with rows, while another connection writes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import create_engine, text

from toolcall_pipeline.errors import StoreError
from toolcall_pipeline.store import migrate
from toolcall_pipeline.store.server import libpq_url

REVISIONS = ["011", "012", "013", "014", "015", "016"]


def populate(url: str, rows: int = 500) -> None:
    with psycopg.connect(libpq_url(url)) as connection:
        connection.execute("INSERT INTO mem_projects (name, full_path) VALUES ('demo', '/home/user/demo')")
        connection.execute("INSERT INTO mem_sessions (session_id, project_id) SELECT 's', id FROM mem_projects")
        connection.execute(
            "INSERT INTO mem_user_prompts (session_id, project_id, prompt_number, prompt_text) "
            "SELECT 's', 1, n, 'prompt ' || n FROM generate_series(1, %s) n",
            (rows,),
        )
        connection.execute(
            "INSERT INTO mem_tool_calls (session_id, project_id, tool_name, tool_input) "
            "SELECT 's', 1, 'Read', '{}' FROM generate_series(1, %s) n",
            (rows,),
        )


def count(url: str, table: str) -> int:
    with psycopg.connect(libpq_url(url)) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])


class Writer:
    """Another connection that inserts a call per transaction, as a live hook does, until it is told to stop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._wrote_one = threading.Event()
        self.written = 0
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Writer:
        self._future = self._pool.submit(self._write)
        assert self._wrote_one.wait(30)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._future.result(60)
        self._pool.shutdown()

    def _write(self) -> None:
        with psycopg.connect(libpq_url(self._url), autocommit=True) as connection:
            while not self._stop.is_set():
                connection.execute("INSERT INTO mem_tool_calls (session_id, tool_name) VALUES ('s', 'Live')")
                self.written += 1
                self._wrote_one.set()


def test_every_migration_applies_on_a_populated_database_while_another_connection_writes(postgres_url: str) -> None:
    migrate.upgrade(postgres_url, "011")
    populate(postgres_url)
    with Writer(postgres_url) as writer:
        for revision in REVISIONS[1:]:
            migrate.upgrade(postgres_url, revision)
    assert migrate.current(postgres_url) == migrate.head() == REVISIONS[-1]
    assert count(postgres_url, "mem_tool_calls") == 500 + writer.written


def test_up_again_down_and_up_keep_the_rows_while_another_connection_writes(postgres_url: str) -> None:
    migrate.upgrade(postgres_url)
    populate(postgres_url)
    with Writer(postgres_url) as writer:
        migrate.upgrade(postgres_url)
        migrate.downgrade(postgres_url, "011")
        assert migrate.current(postgres_url) == "011"
        migrate.upgrade(postgres_url)
    assert migrate.current(postgres_url) == REVISIONS[-1]
    assert count(postgres_url, "mem_tool_calls") == 500 + writer.written
    assert count(postgres_url, "mem_user_prompts") == 500


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_migration_that_ran_but_was_not_recorded_can_run_again(postgres_url: str, revision: str) -> None:
    migrate.upgrade(postgres_url, revision)
    before = REVISIONS[REVISIONS.index(revision) - 1] if revision != "011" else None
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        if before is None:
            connection.execute("DELETE FROM alembic_version")
        else:
            connection.execute("UPDATE alembic_version SET version_num = %s", (before,))
    migrate.upgrade(postgres_url, revision)
    assert migrate.current(postgres_url) == revision


def test_a_downgrade_to_base_leaves_no_table_and_a_later_upgrade_makes_them_again(postgres_url: str) -> None:
    migrate.upgrade(postgres_url)
    migrate.downgrade(postgres_url, "base")
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        left = connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")
        )
        assert left.scalars().all() == []
    engine.dispose()
    migrate.upgrade(postgres_url)
    assert migrate.current(postgres_url) == REVISIONS[-1]


def test_an_index_that_an_interrupted_build_left_invalid_is_built_again(postgres_url: str) -> None:
    migrate.upgrade(postgres_url, "012")
    with psycopg.connect(libpq_url(postgres_url), autocommit=True) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mem_tool_calls_session_turn_idx'::regclass"
        )
        connection.execute("UPDATE alembic_version SET version_num = '011'")
        migrate.upgrade(postgres_url, "012")
        row = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'mem_tool_calls_session_turn_idx'::regclass"
        ).fetchone()
    assert row == (True,)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("mem_tool_calls", "mem_tool_calls_prev_user_prompt_fk"),
        ("mem_projects", "mem_projects_parent_project_fk"),
    ],
)
def test_foreign_keys_are_validated_and_set_null_on_delete(postgres_url: str, table: str, name: str) -> None:
    migrate.upgrade(postgres_url)
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        row = connection.execute(
            "SELECT convalidated, confdeltype::text FROM pg_constraint WHERE conname = %s AND conrelid = %s::regclass",
            (name, table),
        ).fetchone()
    assert row == (True, "n")


def test_eight_processes_that_migrate_at_once_all_come_through(postgres_url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(migrate.upgrade, postgres_url) for _ in range(8)]:
            future.result(120)
    assert migrate.current(postgres_url) == REVISIONS[-1]


def test_a_failed_migration_says_so_and_changes_nothing(postgres_url: str) -> None:
    migrate.upgrade(postgres_url, "011")
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        connection.execute("ALTER TABLE mem_tool_calls ADD COLUMN prev_user_prompt_id text")
    with pytest.raises(StoreError, match="upgrade to head failed"):
        migrate.upgrade(postgres_url)
    assert migrate.current(postgres_url) == "011"

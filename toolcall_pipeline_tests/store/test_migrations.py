"""Migrations apply, apply again, go back and apply again on a database with rows, while another connection writes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import create_engine, text

from toolcall_pipeline.errors import StoreError
from toolcall_pipeline.store import migrate, migration_steps
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


def wait_until(url: str, condition: str) -> None:
    """Return once a backend of this database is as `condition` on pg_stat_activity says."""
    statement = f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        for _ in range(100_000):
            row = connection.execute(statement).fetchone()
            if row is not None and row[0]:
                return
    raise AssertionError(f"never seen: {condition}")


@pytest.mark.parametrize("revision", ["012", "013"])
def test_others_go_on_writing_while_a_migration_waits_for_one_that_holds_its_lock(
    postgres_url: str, revision: str
) -> None:
    migrate.upgrade(postgres_url, REVISIONS[REVISIONS.index(revision) - 1])
    populate(postgres_url, 10)
    insert = "INSERT INTO mem_tool_calls (session_id, tool_name) VALUES ('s', 'Live')"
    with ThreadPoolExecutor(1) as pool, psycopg.connect(libpq_url(postgres_url)) as slow:
        slow.execute(insert)
        migrating = pool.submit(migrate.upgrade, postgres_url, revision)
        wait_until(postgres_url, "wait_event_type = 'Lock'")
        with psycopg.connect(libpq_url(postgres_url), autocommit=True) as other:
            other.execute("SET lock_timeout = '20s'")
            other.execute(insert)  # queued behind the migration until that one lets go
        assert not migrating.done()
        slow.commit()
        migrating.result(60)
    assert migrate.current(postgres_url) == revision
    assert count(postgres_url, "mem_tool_calls") == 12


def test_a_lock_that_is_never_let_go_ends_the_migration_with_nothing_changed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(postgres_url, "011")
    monkeypatch.setattr(migration_steps, "_TRIES", 2)
    monkeypatch.setattr(migration_steps, "_TRY_MILLISECONDS", 100)
    with psycopg.connect(libpq_url(postgres_url)) as slow:
        slow.execute("INSERT INTO mem_tool_calls (session_id, tool_name) VALUES ('s', 'Live')")
        with pytest.raises(StoreError, match=r"lock timeout.*end what holds the tables"):
            migrate.upgrade(postgres_url)
    assert migrate.current(postgres_url) == "011"
    migrate.upgrade(postgres_url)
    assert migrate.current(postgres_url) == REVISIONS[-1]


def test_links_to_rows_that_are_gone_are_counted_and_named_and_the_next_run_goes_on(postgres_url: str) -> None:
    migrate.upgrade(postgres_url, "011")
    populate(postgres_url, 10)
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        connection.execute("ALTER TABLE mem_tool_calls ADD COLUMN prev_user_prompt_id bigint")
        connection.execute("UPDATE mem_tool_calls SET prev_user_prompt_id = id + 7")
    with pytest.raises(StoreError, match=r"7 rows of mem_tool_calls name a row of mem_user_prompts") as caught:
        migrate.upgrade(postgres_url)
    repair = str(caught.value).partition("away with ")[2].partition("; then")[0]
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        with pytest.raises(psycopg.errors.ForeignKeyViolation), connection.transaction():
            connection.execute(
                "INSERT INTO mem_tool_calls (session_id, tool_name, prev_user_prompt_id) VALUES ('s', 'x', 99)"
            )
        connection.execute(repair)
    migrate.upgrade(postgres_url)
    assert migrate.current(postgres_url) == REVISIONS[-1]
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        assert connection.execute("SELECT count(prev_user_prompt_id) FROM mem_tool_calls").fetchone() == (3,)


def test_a_migration_killed_while_it_builds_an_index_is_run_again(postgres_url: str) -> None:
    migrate.upgrade(postgres_url, "012")
    populate(postgres_url, 10)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(libpq_url(postgres_url)) as slow:
        # The last step of a concurrent build waits for every snapshot that is older.
        slow.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        slow.execute("SELECT 1")
        migrating = pool.submit(migrate.upgrade, postgres_url, "013")
        building = "query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
        wait_until(postgres_url, building)
        with psycopg.connect(libpq_url(postgres_url), autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = current_database() AND {building}"
            )
        with pytest.raises(StoreError, match="upgrade to 013 failed"):
            migrating.result(60)
    invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        assert connection.execute(invalid).fetchone() == (1,)
    migrate.upgrade(postgres_url, "013")
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        assert connection.execute(invalid).fetchone() == (0,)
    assert migrate.current(postgres_url) == "013"

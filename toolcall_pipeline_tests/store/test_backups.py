"""Backups: whole or not at all, rotated by name, restored into an empty database."""

from __future__ import annotations

import gzip
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine, make_url

from toolcall_pipeline.errors import MissingInputError, StoreError, UsageError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import backups

NIGHT = datetime(2026, 11, 23, 3, 14, 0, tzinfo=UTC)


def _fill(engine: Engine, count: int = 200) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO mem_projects (name, full_path) "
                "SELECT 'p' || n, '/srv/' || md5(n::text) FROM generate_series(1, :count) n"
            ),
            {"count": count},
        )


def _url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_a_dump_restores_every_row_into_an_empty_database(
    engine: Engine, postgres_url: str, settings: Settings
) -> None:
    _fill(engine)
    report = backups.backup(settings, _url(engine), now=lambda: NIGHT)
    assert report.path.name == "daily_20261123_031400.sql.gz"
    assert report.size_bytes == report.path.stat().st_size >= backups.MINIMUM_BYTES

    restored = backups.restore(report.path, postgres_url)

    assert restored.tables > 5
    with engine.connect() as connection:
        expected = connection.execute(
            text("SELECT md5(string_agg(full_path, ',' ORDER BY id)) FROM mem_projects")
        ).scalar()
    from toolcall_pipeline.store.engine import make_engine

    other = make_engine(postgres_url)
    try:
        with other.connect() as connection:
            found = connection.execute(
                text("SELECT md5(string_agg(full_path, ',' ORDER BY id)) FROM mem_projects")
            ).scalar()
    finally:
        other.dispose()
    assert found == expected


def test_a_restore_never_mixes_with_rows_that_are_there(engine: Engine, settings: Settings) -> None:
    _fill(engine)
    report = backups.backup(settings, _url(engine))
    with pytest.raises(StoreError, match="empty database"):
        backups.restore(report.path, _url(engine))


def test_the_newest_three_dailies_stay_and_other_names_are_never_rotated(engine: Engine, settings: Settings) -> None:
    _fill(engine)
    folder = settings.home_dir / "backups"
    folder.mkdir(parents=True)
    others = ["pre_v2_backfill_20200101_000000.sql.gz", "daily_notes.txt", "daily_20200101_000000.sql.gz.old"]
    for name in others:
        (folder / name).write_bytes(b"kept")
    for day in range(5):
        backups.backup(settings, _url(engine), now=lambda day=day: NIGHT + timedelta(days=day))  # type: ignore[misc]
    names = sorted(entry.name for entry in folder.iterdir())
    assert names == sorted([*others, *(f"daily_202611{day}_031400.sql.gz" for day in (25, 26, 27))])


def test_a_dump_under_one_kilobyte_is_refused_and_removes_nothing(postgres_url: str, settings: Settings) -> None:
    folder = settings.home_dir / "backups"
    folder.mkdir(parents=True)
    older = [folder / f"daily_2026110{day}_031400.sql.gz" for day in range(1, 6)]
    for path in older:
        path.write_bytes(b"x")
    with pytest.raises(StoreError, match="expected 1024 or more"):
        backups.backup(settings, postgres_url)
    assert sorted(folder.iterdir()) == older


def test_a_failed_dump_leaves_no_file_and_says_why_without_the_password(engine: Engine, settings: Settings) -> None:
    url = engine.url.set(password="hunter2-very-secret", database="no_such_database")
    with pytest.raises(StoreError) as caught:
        backups.backup(settings, url.render_as_string(hide_password=False))
    assert "hunter2" not in str(caught.value)
    assert "no_such_database" in str(caught.value)
    assert not (settings.home_dir / "backups").exists() or not list((settings.home_dir / "backups").iterdir())


def test_the_password_is_never_on_a_command_line(
    engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(engine)
    seen = tmp_path / "argv"
    real = backups._tool("pg_dump", "18")
    wrapper = tmp_path / "pg_dump"
    wrapper.write_text(f'#!/bin/sh\necho "$@" > {seen}\necho "${{PGPASSWORD:-none}}" >> {seen}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(backups, "_tool", lambda name, version: str(wrapper))
    url = engine.url.set(password="hunter2-very-secret")
    backups.backup(settings, url.render_as_string(hide_password=False))
    arguments, password = seen.read_text().splitlines()
    assert "hunter2" not in arguments
    assert password == "hunter2-very-secret"
    assert "hunter2" not in repr(os.environ)


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip at all" * 100,
        gzip.compress(b"SELECT 1;\n" * 1000),  # whole, but no dump
        gzip.compress(b"x" * 100_000)[:-9],  # cut
    ],
    ids=["no-gzip", "no-dump", "cut"],  # gzip's header holds the time: as ids the contents would differ between workers
)
def test_a_damaged_dump_is_refused_before_anything_is_changed(
    content: bytes, postgres_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "daily_20261123_031400.sql.gz"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged|cut, or no dump"):
        backups.restore(path, postgres_url)


def test_a_restore_that_fails_half_way_changes_nothing(postgres_url: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.sql.gz"
    path.write_bytes(
        gzip.compress(b"CREATE TABLE a (x int);\nSELECT nonsense(;\n-- PostgreSQL database dump complete\n")
    )
    with pytest.raises(StoreError, match="failed"):
        backups.restore(path, postgres_url)
    assert backups._count_tables(make_url(postgres_url)) == 0


def test_a_missing_dump_is_a_missing_input(tmp_path: Path, postgres_url: str) -> None:
    with pytest.raises(MissingInputError):
        backups.restore(tmp_path / "gone.sql.gz", postgres_url)


@pytest.mark.parametrize("kind", ["", "../daily", "Daily", "a b", "daily_20261123\n"])
def test_a_backup_name_that_is_no_name_is_refused(kind: str, settings: Settings) -> None:
    with pytest.raises(UsageError):
        backups.backup(settings, "postgresql:///x", kind)


def test_a_dump_is_readable_by_its_owner_only(engine: Engine, settings: Settings) -> None:
    _fill(engine)
    assert backups.backup(settings, _url(engine)).path.stat().st_mode & 0o777 == 0o600

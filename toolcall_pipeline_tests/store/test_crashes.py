"""Killed anywhere, the next run completes, and what is stored is what an undisturbed run stores."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import Engine

from toolcall_pipeline.errors import ArtifactError, StoreError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import loading
from toolcall_pipeline.store.row_hash import hash_run_rows
from toolcall_pipeline.store.server import libpq_url
from toolcall_pipeline.store.stage import LinkOptions, link_tool_calls
from toolcall_pipeline.store.writer_lock import writer_lock
from toolcall_pipeline_tests.store.killed_link import count_calls, link
from toolcall_pipeline_tests.store.transcripts import NIGHTS, Transcript, context_for, freeze, night, values

RUN = NIGHTS[0]
_POINTS = [random.Random(2026).random() for _ in range(20)]
_LOG = logging.getLogger("test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sessions"
    for number in range(8):
        session = Transcript(folder / f"{number}.jsonl", session_id=f"session-{number}")
        for turn in range(3):
            session.turn(f"Prompt {turn} of {number}", f"/x/{number}/{turn}", "Done.")
    return folder


def database_url(engine: Engine) -> str:
    return libpq_url(engine.url.render_as_string(hide_password=False))


def run_child(settings: Settings, engine: Engine, point: int) -> subprocess.CompletedProcess[str]:
    url = database_url(engine)
    command = [
        sys.executable,
        "-m",
        "toolcall_pipeline_tests.store.killed_link",
        str(settings.home_dir),
        url,
        RUN,
        str(point),
    ]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=300)


def check_killed_at(settings: Settings, engine: Engine, folder: Path, shares: list[float]) -> None:
    freeze(context_for(settings, engine, RUN), folder)
    total = count_calls(lambda: link(str(settings.home_dir), database_url(engine), RUN))
    undisturbed = hash_run_rows(engine, RUN)
    artifact = link_tool_calls(context_for(settings, engine, RUN))
    for share in shares:
        wipe(engine, settings)
        killed = run_child(settings, engine, max(1, int(total * share)))
        assert killed.returncode == -9, killed.stderr
        again = link_tool_calls(context_for(settings, engine, RUN))
        assert hash_run_rows(engine, RUN) == undisturbed
        assert again.sha256 == artifact.sha256


def wipe(engine: Engine, settings: Settings) -> None:
    """Forget that the run was ever linked, the artifact included."""
    from toolcall_pipeline.store.rollback import rollback

    rollback(engine, RUN)


def test_killed_at_three_random_points_the_next_run_completes(settings: Settings, engine: Engine, folder: Path) -> None:
    check_killed_at(settings, engine, folder, _POINTS[:3])


@pytest.mark.slow
def test_killed_at_twenty_random_points_the_next_run_completes(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    check_killed_at(settings, engine, folder, _POINTS)


def test_no_session_is_half_stored_when_a_batch_fails(
    settings: Settings, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze(context_for(settings, engine, RUN), folder)
    record = loading.record_states
    calls = iter(range(100))

    def fail_at_third(*arguments: object) -> None:
        if next(calls) == 2:
            raise RuntimeError("power cut")
        record(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "record_states", fail_at_third)
    with pytest.raises(RuntimeError, match="power cut"):
        link_tool_calls(context_for(settings, engine, RUN), options=LinkOptions(sessions_per_batch=2))
    per_session = values(engine, "SELECT count(*) FROM mem_tool_calls GROUP BY session_id")
    assert per_session == [3, 3, 3, 3]
    monkeypatch.undo()
    link_tool_calls(context_for(settings, engine, RUN))
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [24]


def test_the_server_gone_in_the_middle_is_an_error_that_says_so_and_the_next_run_completes(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    url = libpq_url(engine.url.render_as_string(hide_password=False))

    def end_connections(_: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name NOT LIKE 'toolcall%'"
            )

    freeze(context_for(settings, engine, RUN), folder)
    options = LinkOptions(sessions_per_batch=2, on_batch=end_connections)
    with pytest.raises(StoreError, match="of 8 session families are stored"):
        link_tool_calls(context_for(settings, engine, RUN), options=options)
    link_tool_calls(context_for(settings, engine, RUN))
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [24]


def test_a_second_backfill_says_who_holds_the_lock(settings: Settings, engine: Engine, folder: Path) -> None:
    freeze(context_for(settings, engine, RUN), folder)
    with writer_lock(engine, "backfill first-one", wait_seconds=0, log=_LOG):
        with pytest.raises(StoreError, match=r"backfill first-one.*server process"):
            link_tool_calls(context_for(settings, engine, RUN), options=LinkOptions(lock_wait_seconds=0))
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [0]


def test_two_backfills_of_the_same_files_at_once_store_every_event_once(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    for run in NIGHTS[:2]:
        freeze(context_for(settings, engine, run), folder)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(link_tool_calls, context_for(settings, engine, run)) for run in NIGHTS[:2]]
        counts = [future.result(120).manifest.metadata["tool_calls_count"] for future in done]
    assert sorted(counts) == [0, 24]
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [24]


def test_a_file_changed_after_the_freeze_stops_the_run(settings: Settings, engine: Engine, folder: Path) -> None:
    freeze(context_for(settings, engine, RUN), folder)
    path = folder / "3.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Prompt 0", b"Prompt X"))
    with pytest.raises(ArtifactError, match="changed between byte"):
        link_tool_calls(context_for(settings, engine, RUN))
    path.write_bytes(data)
    link_tool_calls(context_for(settings, engine, RUN))
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [24]


def test_errors_of_the_server_show_no_rows(settings: Settings, engine: Engine, folder: Path) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE mem_user_prompts ADD CHECK (prompt_text NOT LIKE '%%canary%%')")
    Transcript(folder / "secret.jsonl").turn("the canary sings", "/x/y", "Done.")
    with pytest.raises(StoreError) as caught:
        night(settings, engine, folder, RUN)
    shown, error = "", caught.value
    while error is not None:
        shown += str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)  # type: ignore[assignment]
    assert "canary" not in shown

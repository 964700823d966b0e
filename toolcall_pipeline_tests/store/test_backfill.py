"""`backfill`: a dry run stores nothing and counts what the commit would, and a second run inserts nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store.backfill import backfill
from toolcall_pipeline_tests.store.transcripts import Transcript, values

_KEYS = {
    *("files", "files_unchanged", "files_quarantined", "lines", "lines_malformed", "sessions", "prompts", "tool_calls"),
    *("tool_calls_nested", "orphans", "truncated", "duplicates_skipped", "redactions", "bytes", "seconds"),
    "mb_per_second",
}
_WHEN = {"run_id", "committed", "seconds", "mb_per_second"}
_TABLES = ("mem_user_prompts", "mem_tool_calls", "mem_assistant_texts", "mem_graph_nodes", "mem_session_files")


def run(settings: Settings, folder: Path, *, day: int, **options: Any) -> dict[str, Any]:
    return backfill(settings, sessions_dir=folder, now=datetime(2026, 11, day, 2, tzinfo=UTC), **options)


def counts(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in _WHEN}


def stored(engine: Engine) -> list[int]:
    return [values(engine, f"SELECT count(*) FROM {table}")[0] for table in _TABLES]


def odd_sessions(folder: Path) -> None:
    """Write sessions that share calls without sharing a line, an orphan, a long call, a secret and a broken line."""
    shared = "toolu_01R62tkBs9tw5X76JmpWXYbc"
    for name in ("a", "b"):
        session = Transcript(folder / f"{name}.jsonl", session_id=name)
        session.prompt(f"Look at {name}")
        session.result(session.call("Read", {"file_path": "/x"}, tool_id=shared), "content")
        session.answer("Seen.")
    other = Transcript(folder / "c.jsonl", session_id="c")
    other.call("Write", {"content": "x" * 20_000})
    other.prompt("The key is ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8")
    with (folder / "c.jsonl").open("ab") as stream:
        stream.write(b"{broken\n")


def test_a_dry_run_counts_what_the_commit_stores_and_stores_nothing(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    odd_sessions(tmp_path / "sessions")
    dry = run(settings, tmp_path / "sessions", day=1)
    assert stored(engine) == [0] * len(_TABLES)
    committed = run(settings, tmp_path / "sessions", day=2, commit=True)
    assert counts(dry) == counts(committed)
    assert set(committed) - {"run_id", "committed"} == _KEYS
    expected = {"tool_calls": 2, "prompts": 3, "orphans": 1, "truncated": 1, "lines_malformed": 1, "sessions": 3}
    assert {name: committed[name] for name in expected} == expected
    assert sum(committed["redactions"].values()) >= 1


def test_a_second_run_inserts_nothing(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    odd_sessions(tmp_path / "sessions")
    run(settings, tmp_path / "sessions", day=1, commit=True)
    before = stored(engine)
    again = run(settings, tmp_path / "sessions", day=2, commit=True)
    assert stored(engine) == before
    assert (again["files_unchanged"], again["prompts"], again["tool_calls"], again["bytes"]) == (3, 0, 0, 0)


def test_a_limit_takes_whole_sessions_and_the_next_run_takes_the_rest(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    odd_sessions(tmp_path / "sessions")
    # Two of the three share a call, so they are one family.
    assert run(settings, tmp_path / "sessions", day=1, commit=True, limit=1)["sessions"] == 2
    run(settings, tmp_path / "sessions", day=2, commit=True)
    assert values(engine, "SELECT count(DISTINCT session_id) FROM mem_user_prompts") == [3]


def test_every_finished_stage_is_handed_to_the_judge(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    judged: list[str] = []

    def judge(_: object, artifact: Artifact) -> None:
        judged.append(artifact.manifest.asset)

    assert run(settings, tmp_path / "none", day=1, commit=True, after_stage=judge)["files"] == 0
    assert judged == ["jsonl_sessions", "linked_tool_calls"]

"""Reading episodes back takes a few prompts at a time, so that memory does not grow with the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import reading
from toolcall_pipeline_tests.store.transcripts import NIGHTS, Transcript, night


def test_rows_are_fetched_for_a_few_prompts_at_a_time_and_not_before_they_are_asked_for(
    settings: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Transcript(tmp_path / "sessions" / "a.jsonl")
    for number in range(5):
        session.turn(f"Read file {number}", f"/x/{number}", f"Read {number}.")
    night(settings, engine, tmp_path / "sessions", NIGHTS[0])
    whole = list(reading.iter_episodes(engine))
    monkeypatch.setattr(reading, "_PROMPTS_AT_A_TIME", 2)
    fetched: list[int] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "prompts" in parameters and "mem_tool_calls" in statement:
            fetched.append(len(parameters["prompts"]))

    event.listen(engine, "before_cursor_execute", note)
    try:
        episodes = reading.iter_episodes(engine)
        assert next(episodes) == whole[0]
        assert fetched == [2]
        assert list(episodes) == whole[1:]
        assert fetched == [2, 2, 1]
    finally:
        event.remove(engine, "before_cursor_execute", note)

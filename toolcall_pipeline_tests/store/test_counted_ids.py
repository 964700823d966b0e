"""Sessions whose program counts its lines (`l1`, `l2`): nothing of one is taken for a line of another, and copies still are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store.reading import iter_episodes
from toolcall_pipeline_tests.store.test_copied_history import assert_cuts_change_nothing, lines_of
from toolcall_pipeline_tests.store.transcripts import NIGHTS, Transcript, night, values


def count_lines(session: Transcript, *, is_timed: bool = True) -> None:
    """Give the lines of a session counted ids, and, on request, no times."""
    lines = [json.loads(line) for line in session.path.read_text(encoding="utf-8").splitlines()]
    ids = {value["uuid"]: f"l{number}" for number, value in enumerate(lines, start=1)}
    for value in lines:
        value |= {"uuid": ids[value["uuid"]], "parentUuid": ids.get(value["parentUuid"])}
        if not is_timed:
            del value["timestamp"]
    session.path.write_text("".join(json.dumps(value) + "\n" for value in lines), encoding="utf-8")
    session.last = ids[session.last or ""]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "sessions"


def told(engine: Engine) -> list[tuple[str, list[tuple[str, list[object]]], str]]:
    return sorted(
        (
            episode.prompt_text,
            [(step.text, [call.tool_input["file_path"] for call in step.calls]) for step in episode.steps],
            episode.family_id,
        )
        for episode in iter_episodes(engine)
    )


@pytest.mark.parametrize("is_timed", [True, False])
def test_lines_of_two_sessions_with_one_id_are_two(
    settings: Settings, engine: Engine, folder: Path, is_timed: bool
) -> None:
    for name in ("pond", "shed"):
        session = Transcript(folder / f"{name}.jsonl", session_id=f"session-{name}")
        session.turn(f"Plan the {name}", f"/x/{name}", f"The {name} is planned.")
        session.turn("ok", f"/x/{name}/more", "Done.")
        count_lines(session, is_timed=is_timed)
    lines = lines_of(folder / "pond.jsonl", folder / "shed.jsonl")
    assert_cuts_change_nothing(settings, engine, folder, lines, (2, 8, 11))
    night(settings, engine, folder, NIGHTS[0])
    assert told(engine) == [
        ("Plan the pond", [("", ["/x/pond"]), ("The pond is planned.", [])], "session-pond"),
        ("Plan the shed", [("", ["/x/shed"]), ("The shed is planned.", [])], "session-shed"),
        ("ok", [("", ["/x/pond/more"]), ("Done.", [])], "session-pond"),
        ("ok", [("", ["/x/shed/more"]), ("Done.", [])], "session-shed"),
    ]


def test_a_resumed_session_of_counted_lines_shares_its_history(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    other = Transcript(folder / "a.jsonl", session_id="session-a")
    other.turn("Something else", "/x/else", "Done.")
    count_lines(other)
    first = Transcript(folder / "b.jsonl", session_id="session-b")
    first.turn("Plan the pond", "/x/pond", "Planned.")
    count_lines(first)
    resumed = Transcript(folder / "c.jsonl", session_id="session-c")
    resumed.copy_of(first)
    resumed.turn("Dig it", "/x/dig", "Dug.")
    lines = lines_of(*(folder / f"{name}.jsonl" for name in "abc"))
    assert_cuts_change_nothing(settings, engine, folder, lines, (2, 6, 8, 10, 13))
    night(settings, engine, folder, NIGHTS[0])
    assert [(words, family) for words, _, family in told(engine)] == [
        ("Dig it", "session-b"),
        ("Plan the pond", "session-b"),
        ("Something else", "session-a"),
    ]
    assert values(engine, "SELECT count(*) FROM mem_assistant_texts") == [3]

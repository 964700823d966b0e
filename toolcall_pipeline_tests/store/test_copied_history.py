"""History that a session copied under new ids is stored once, wherever the nights fall: as if all had been one night."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from toolcall_pipeline.gates import linked_tool_calls
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store.reading import iter_episodes
from toolcall_pipeline.store.rollback import rollback
from toolcall_pipeline_tests.store.test_nights import contents
from toolcall_pipeline_tests.store.transcripts import NIGHTS, Transcript, night, values

_ACTIVE = """
    LEFT JOIN (
        SELECT DISTINCT ON (event_id) event_id, is_superseded FROM mem_supersessions JOIN backfill_runs
        USING (backfill_run_id) ORDER BY event_id, freeze_number DESC
    ) told USING (event_id) WHERE told.is_superseded IS NOT TRUE
"""
_LINKS = (
    "session_id, prompt_event_id, turn_index, turn_subindex, is_direct, "
    "(SELECT prompt.event_id FROM mem_user_prompts prompt WHERE prompt.id = prev_user_prompt_id)"
)
_ROWS = (
    f"SELECT event_id, session_id, prompt_number, turn_index, prompt_text, is_sub_agent FROM mem_user_prompts {_ACTIVE}",
    f"SELECT event_id, {_LINKS}, tool_name, tool_input::text, coalesce(response, (SELECT late.response FROM "
    f"mem_late_results late WHERE late.call_event_id = mem_tool_calls.event_id)) FROM mem_tool_calls {_ACTIVE}",
    f"SELECT event_id, {_LINKS}, text FROM mem_assistant_texts {_ACTIVE}",
)


def linked(engine: Engine) -> tuple[list[Any], ...]:
    """Return what the store says of the active branches: rows with links and positions, and episodes in order."""
    episodes = [
        (e.prompt_event_id, e.turn_index, e.family_id, [s.event_ids for s in e.steps]) for e in iter_episodes(engine)
    ]
    return (*(sorted(values(engine, statement), key=str) for statement in _ROWS), episodes)


def assert_cuts_change_nothing(
    settings: Settings, engine: Engine, folder: Path, lines: list[tuple[Path, str]], cuts: Iterable[int]
) -> None:
    """Store lines in one night, then, for every cut, in two nights that meet there: the same, and the first comes back."""
    write(lines)
    night(settings, engine, folder, "20261001T000000Z-nightly")
    at_once = linked(engine)
    rollback(engine, "20261001T000000Z-nightly")
    for cut in cuts:
        one, two, three = (f"202611{day:02}T00{cut:02}00Z-nightly" for day in (1, 2, 3))
        write(lines[:cut], instead_of=lines)
        night(settings, engine, folder, one)
        stored = contents(engine)
        write(lines)
        night(settings, engine, folder, two)
        assert linked(engine) == at_once, f"cut before line {cut}: {lines[cut]}"
        assert [*wrong_links(engine, one), *wrong_links(engine, two)] == []
        grown = contents(engine)
        assert night(settings, engine, folder, three).manifest.metadata["read_bytes"] == 0
        assert contents(engine) == grown
        rollback(engine, three)
        rollback(engine, two)
        assert contents(engine) == stored
        rollback(engine, one)


def wrong_links(engine: Engine, run: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return linked_tool_calls._compare_links(connection, run)[0]


def write(lines: list[tuple[Path, str]], instead_of: list[tuple[Path, str]] | None = None) -> None:
    for path in {path for path, _ in instead_of or lines}:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for other, line in lines if other == path), encoding="utf-8")


def lines_of(*paths: Path) -> list[tuple[Path, str]]:
    return [(path, line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def two_turns(session: Transcript) -> None:
    session.turn("Start", "/x/start", "Started.")
    session.prompt("And then?")
    session.answer("I look.")
    session.result(session.call("Read", {"file_path": "/x/then"}), "then")
    session.answer("Then this.")


def go_on(session: Transcript) -> None:
    session.result(session.call("Read", {"file_path": "/x/more"}), "more")
    session.answer("And more.")
    session.turn("ok", "/x/last", "Done.")


def whole_copy(session: Transcript) -> None:
    two_turns(session)
    session.copy_under_new_ids()


def copy_and_continuation(session: Transcript) -> None:
    two_turns(session)
    session.copy_under_new_ids()
    go_on(session)


def copy_of_a_copy(session: Transcript) -> None:
    session.turn("Start", "/x/start", "Started.")
    session.copy_under_new_ids()
    session.turn("Next", "/x/next", "That was next.")
    session.copy_under_new_ids()
    go_on(session)


def answers_without_calls(session: Transcript) -> None:
    session.prompt("How are you?")
    session.answer("Well.")
    session.prompt("ok")
    session.answer("Fine.")
    session.copy_under_new_ids()
    go_on(session)


def copy_with_compaction(session: Transcript) -> None:
    two_turns(session)
    session.compaction("What was said.")
    session.turn("Behind it", "/x/behind", "Behind.")
    session.copy_under_new_ids()
    go_on(session)


def copy_of_a_rewound_session(session: Transcript) -> None:
    session.turn("Start", "/x/start", "Started.")
    fork = session.last
    session.turn("Way one", "/x/one", "One.")
    session.last = fork
    session.turn("Way two", "/x/two", "Two.")
    session.copy_under_new_ids()
    go_on(session)


def secrets_in_what_is_copied(session: Transcript) -> None:
    session.prompt("Use ghp_" + "a1B2c3D4" * 4 + "e5F6 please")
    session.answer("With ghp_" + "a1B2c3D4" * 4 + "e5F6 then, from /home/alice/x.")
    session.copy_under_new_ids()
    go_on(session)


def sub_agent_that_copies(session: Transcript) -> None:
    """The agent's own file (the session's main one stays empty of turns) says its first turns again."""
    session.fields = {"isSidechain": True, "agentId": "a1b2c3d"}
    two_turns(session)
    session.copy_under_new_ids()
    go_on(session)


def copy_in_another_file(session: Transcript) -> None:
    two_turns(session)
    session.copy_under_new_ids(into=session.path.with_name("b.jsonl"))
    go_on(session)


def fork_of_a_session(session: Transcript) -> None:
    two_turns(session)
    session.prompt("Which token?")
    session.answer("With ghp_" + "a1B2c3D4" * 4 + "e5F6 then.")
    session.copy_under_new_ids(into=session.path.with_name("b.jsonl"), session_id="fork")
    go_on(session)


_SHAPES = [
    whole_copy,
    copy_and_continuation,
    copy_of_a_copy,
    answers_without_calls,
    copy_with_compaction,
    copy_of_a_rewound_session,
    secrets_in_what_is_copied,
    sub_agent_that_copies,
    copy_in_another_file,
    fork_of_a_session,
]


def lines_of_shape(shape: Callable[[Transcript], None], folder: Path) -> list[tuple[Path, str]]:
    session = Transcript(folder / "-home-alice-garden" / "a.jsonl")
    shape(session)
    return lines_of(*sorted(folder.rglob("*.jsonl")))


@pytest.mark.parametrize("shape", _SHAPES)
def test_two_nights_store_of_a_copied_history_what_one_night_does(
    settings: Settings, engine: Engine, tmp_path: Path, shape: Callable[[Transcript], None]
) -> None:
    lines = lines_of_shape(shape, tmp_path / "sessions")
    shown = first_answer_again(lines)
    # Between original and copy, between the copied prompt and what shows it to be one, and behind all of it.
    cuts = {shown - 1, shown, len(lines) - 3} - never_compared(shape, shown)
    assert_cuts_change_nothing(settings, engine, tmp_path / "sessions", lines, sorted(cuts))


@pytest.mark.slow
@pytest.mark.parametrize("shape", _SHAPES)
def test_two_nights_that_meet_anywhere_store_of_a_copied_history_what_one_night_does(
    settings: Settings, engine: Engine, tmp_path: Path, shape: Callable[[Transcript], None]
) -> None:
    lines = lines_of_shape(shape, tmp_path / "sessions")
    cuts = set(range(1, len(lines))) - never_compared(shape, first_answer_again(lines))
    assert_cuts_change_nothing(settings, engine, tmp_path / "sessions", lines, sorted(cuts))


def first_answer_again(lines: list[tuple[Path, str]]) -> int:
    """Return the first line whose message an earlier line had: what shows that the lines before it are a copy."""
    ids = [json.loads(line)["message"].get("id") for _, line in lines]
    return next(number for number, found in enumerate(ids) if found and found in ids[:number])


def never_compared(shape: Callable[[Transcript], None], shown: int) -> set[int]:
    """Return the cut that leaves the copied prompt alone in a file of its own: it then stands, as another prompt of that
    time, before the second, whose number stays what it was when it was stored."""
    return {shown} if shape in (copy_in_another_file, fork_of_a_session) else set()


def test_a_file_rewritten_under_new_ids_brings_in_only_what_is_new(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    session = Transcript(tmp_path / "sessions" / "-home-alice-garden" / "a.jsonl")
    two_turns(session)
    night(settings, engine, tmp_path / "sessions", NIGHTS[0])
    stored = contents(engine)
    session.copy_under_new_ids(into=session.path.with_suffix(".new"))
    go_on(session)
    session.path.rename(tmp_path / "sessions" / "-home-alice-garden" / "a.jsonl")
    second = night(settings, engine, tmp_path / "sessions", NIGHTS[1])
    assert values(engine, "SELECT prompt_text, prompt_number, turn_index FROM mem_user_prompts ORDER BY 2") == [
        ("Start", 1, 0),
        ("And then?", 2, 1),
        ("ok", 3, 2),
    ]
    assert values(engine, "SELECT turn_index, turn_subindex FROM mem_tool_calls ORDER BY 1, 2") == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 0),
    ]
    assert second.manifest.metadata["superseded_count"] == 0
    rollback(engine, NIGHTS[1])
    assert contents(engine) == stored


def test_a_fork_under_new_ids_is_of_its_sessions_family_and_says_only_what_is_new(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    lines_of_shape(fork_of_a_session, tmp_path / "sessions")
    night(settings, engine, tmp_path / "sessions", NIGHTS[0])
    assert len(values(engine, "SELECT prompt_text FROM mem_user_prompts")) == 4
    assert len(values(engine, "SELECT text FROM mem_assistant_texts")) == 6
    assert len({episode.family_id for episode in iter_episodes(engine)}) == 1


def test_a_result_that_only_the_copy_has_is_not_lost(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    session = Transcript(tmp_path / "sessions" / "a.jsonl")
    session.prompt("Run it")
    call = session.call("Bash", {"command": "make"})
    night(settings, engine, tmp_path / "sessions", NIGHTS[0])
    session.copy_under_new_ids()
    session.result(call, "made")
    session.answer("Made.")
    night(settings, engine, tmp_path / "sessions", NIGHTS[1])
    (episode,) = iter_episodes(engine)
    assert [(step.text, [called.response for called in step.calls]) for step in episode.steps] == [
        ("", ["made"]),
        ("Made.", []),
    ]


def test_a_forked_rollout_that_replays_its_history_on_a_later_night_stores_it_once(
    settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "sessions"
    history = [
        rollout_line(2, "response_item", message("user", "Count the files")),
        rollout_line(
            3, "response_item", {"type": "function_call", "call_id": CALL, "name": "shell", "arguments": "{}"}
        ),
        rollout_line(4, "response_item", {"type": "function_call_output", "call_id": CALL, "output": "3"}),
        rollout_line(5, "response_item", message("assistant", "Three.")),
    ]
    own = [
        rollout_line(62, "response_item", message("user", "And the folders?")),
        rollout_line(63, "response_item", message("assistant", "One.")),
    ]
    first = rollout_line(1, "session_meta", {"id": "0199aaaa-0000-7000-8000-000000000006", "cwd": "/home/alice/x"})
    forked = {"id": "0199aaaa-0000-7000-8000-000000000007", "cwd": "/home/alice/x"}
    fork = rollout_line(61, "session_meta", {**forked, "forked_from_id": "0199aaaa-0000-7000-8000-000000000006"})
    lines = [(folder / "rollout-1.jsonl", line) for line in (first, *history)]
    lines += [(folder / "rollout-2.jsonl", line) for line in (fork, first, *history, *own)]
    assert_cuts_change_nothing(settings, engine, folder, lines, range(5, len(lines)))
    night(settings, engine, folder, NIGHTS[0])
    assert values(engine, "SELECT prompt_text FROM mem_user_prompts ORDER BY occurred_at") == [
        "Count the files",
        "And the folders?",
    ]
    assert values(engine, "SELECT text FROM mem_assistant_texts ORDER BY occurred_at") == ["Three.", "One."]


CALL = "call_0123456789abcdefABCDEF"


def rollout_line(second: int, kind: str, payload: dict[str, Any]) -> str:
    time = f"2026-08-01T10:{second // 60:02}:{second % 60:02}.000Z"
    payload = {**payload, "timestamp": time} if kind == "session_meta" else payload
    return json.dumps({"timestamp": time, "type": kind, "payload": payload})


def message(role: str, words: str) -> dict[str, Any]:
    kind = "input_text" if role == "user" else "output_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": words}]}

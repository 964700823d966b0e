"""`sessions show`: the conversation as the pipeline understands it."""

from pathlib import Path

import pytest

from toolcall_pipeline.errors import MissingInputError, UsageError
from toolcall_pipeline.sessions.show import render_text, show_session
from toolcall_pipeline_tests.sessions.lines import call, result, text, user, write

TOOL = "toolu_01R62tkBs9tw5X76JmpWXYbc"


def test_turns_branches_and_what_is_dropped_are_shown_with_their_lines(tmp_path: Path) -> None:
    lines = [
        user("u1", None, "Run ls"),
        call("a1", "u1", TOOL, "m1"),
        result("r1", "a1", TOOL, "a.py"),
        text("a2", "r1", "One file.", "m2"),
        user("u2", "a2", "Delete it"),
        user("u3", "a2", "Keep it"),
        text("a3", "u3", "Kept.", "m3"),
        user("x1", "a3", "<local-command-stdout>Bye</local-command-stdout>"),
    ]
    view = show_session(write(tmp_path / "a.jsonl", lines))
    assert [(turn.turn_index, turn.line, turn.prompt) for turn in view.turns] == [(0, 1, "Run ls"), (1, 6, "Keep it")]
    assert view.turns[0].steps[0].calls[0].outcome == "ok"
    assert [(item.line, item.what) for item in view.dropped] == [(5, "prompt"), (8, "other")]
    shown = render_text(view)
    assert "Bash(command='ls')" in shown
    assert "on a branch that was left: rewind\n            line 5: Delete it" in shown


def test_orphans_and_sub_agents_are_shown_where_they_stand(tmp_path: Path) -> None:
    task = {"prompt": "Find it"}
    lines = [
        user("u1", None, "Ask an agent"),
        call("a1", "u1", TOOL, "m1", "Task", tool_input=task),
        user("s1", None, "Find it", isSidechain=True),
        text("s2", "s1", "Found.", "m2", isSidechain=True),
        text("a9", "gone", "Of another file.", "m9"),
    ]
    view = show_session(write(tmp_path / "a.jsonl", lines))
    assert [(turn.line, turn.agent_id is not None, turn.spawned_in_line) for turn in view.turns] == [
        (1, False, None),
        (None, False, None),
        (3, True, 2),
    ]
    assert "started by line 2] turn 0 (line 3, sub_agent_task): Find it" in render_text(view)


def test_a_result_without_call_and_a_malformed_line_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [user("u1", None, "Hi"), result("r1", "u1", TOOL)])
    with path.open("a") as stream:
        stream.write("{broken\n")
    reasons = [item.reason for item in show_session(path).dropped]
    assert reasons[0] == "its call is not in this file"
    assert reasons[1].startswith("not JSON")


def test_what_cannot_be_shown_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="Give a session file"):
        show_session(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="Known formats: claude_code, codex"):
        show_session(write(tmp_path / "other.jsonl", [{"level": "info"}]))
    with pytest.raises(UsageError, match="is empty"):
        show_session(write(tmp_path / "empty.jsonl", []))

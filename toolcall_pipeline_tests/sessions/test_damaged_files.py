"""Real lines, damaged in any way: every reader goes on, every line is accounted for, and the graph still resolves."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolcall_pipeline.sessions.events import GraphNode
from toolcall_pipeline.sessions.freezing import freeze_file
from toolcall_pipeline.sessions.graph import resolve
from toolcall_pipeline.sessions.lock import LockedFile
from toolcall_pipeline.sessions.reading import SessionFileReader
from toolcall_pipeline.sessions.show import render_text, show_session
from toolcall_pipeline_tests.sessions import test_codex as codex
from toolcall_pipeline_tests.sessions.lines import call, line, queue, result, text, user

_TOOL, _TOOL_2 = "toolu_01R62tkBs9tw5X76JmpWXYbc", "toolu_01Rzxms5G9Vzz1MHf8mbMFC4"
_PROGRESS = {"type": "agent_progress", "agentId": "a1b2", "message": user("n1", None, "Find it")}
_CLAUDE = [
    user("u1", None, "Run the tests"),
    call("a1", "u1", _TOOL, "m1", name="Task", tool_input={"prompt": "Look", "n": [1, {"k": None}]}),
    user("s1", None, "Look", isSidechain=True),
    line("progress", "p1", "a1", data=_PROGRESS, parentToolUseID=_TOOL),
    queue("enqueue", "and lint"),
    result("r1", "a1", _TOOL, [{"type": "text", "text": "ok"}], toolUseResult={"agentId": "a1b2"}),
    queue("remove"),
    call("a2", "r1", _TOOL_2, "m2"),
    result("r2", "a2", _TOOL_2, block={"is_error": True}, beside=[{"type": "text", "text": "wait"}]),
    line("system", "c1", None, subtype="compact_boundary", logicalParentUuid="r2"),
    user("s2", "c1", "Summary", isCompactSummary=True),
    line("attachment", "q1", "s2", attachment={"type": "queued_command", "prompt": "more", "commandMode": "prompt"}),
    text("a3", "q1", "Done", "m3"),
]
_CODEX = [
    codex.meta(),
    codex.user(1, "first"),
    codex.event(1, "user_message", message="first"),
    codex.call(2, arguments='{"command": ["ls"]}'),
    codex.output(3, '{"output": "x", "metadata": {"exit_code": 1}}'),
    codex.answer(4, "done"),
    codex.item(5, {"message": "Summary"}, "compacted"),
    codex.event(6, "thread_rolled_back", num_turns=1),
    codex.user(7, "second"),
]
_FILES = {"claude_code": _CLAUDE, "codex": _CODEX}
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(10**400)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
_BYTES = st.sampled_from(
    [
        b"",
        b"\x00",
        b"\n",
        b"\r\n",
        b'"',
        b"{",
        b"}",
        b"[",
        b",",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"\xff",
        b"\xef\xbb\xbf",
    ]
) | st.binary(max_size=4)
_SETTINGS = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inner for found in [(*path, key), *places(item, (*path, key))]]


def replaced(lines: list[dict[str, Any]], number: int, place: int, value: Any) -> bytes:
    """Return the lines with one value somewhere in them replaced, or taken out where the value is `...`."""
    changed = copy.deepcopy(lines)
    target: Any = changed[number % len(lines)]
    *above, last = (found := places(target))[place % len(found)]
    for key in above:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return "".join(json.dumps(item) + "\n" for item in changed).encode()


def assert_nothing_stopped_or_lost(path: Path, content: bytes, format_name: str) -> None:
    path.write_bytes(content)
    reader = SessionFileReader(path, relative_path=path.name, format=format_name)
    nodes = [record for record in reader if isinstance(record, GraphNode)]
    assert reader.account.lines == reader.account.accounted_lines
    assert reader.account.lines == content.count(b"\n") + (bool(content) and not content.endswith(b"\n"))
    assert json.loads(json.dumps(reader.reader_state)) == reader.reader_state
    found = resolve(nodes)
    assert found.active | set(found.superseded) == {node.node_id for node in nodes}
    frozen = freeze_file(path.parent, path.name, None)
    assert msgspec.json.decode(msgspec.json.encode(frozen.locked), type=LockedFile) == frozen.locked
    if frozen.locked.format == format_name and frozen.locked.account.event_lines:
        assert render_text(show_session(path))


@pytest.mark.parametrize("format_name", sorted(_FILES))
@given(edits=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 40), _BYTES), min_size=1, max_size=5))
@_SETTINGS
def test_bytes_lost_added_and_changed_stop_nothing(
    format_name: str, tmp_path: Path, edits: list[tuple[int, int, bytes]]
) -> None:
    content = b"".join(json.dumps(item).encode() + b"\n" for item in _FILES[format_name])
    for position, length, put in edits:
        start = position % (len(content) + 1)
        content = content[:start] + put + content[start + length :]
    assert_nothing_stopped_or_lost(tmp_path / "damaged.jsonl", content, format_name)


@pytest.mark.parametrize("damage", [b"\x80", b"\\ud800", b"\\u0000", b"\x00", b'", "x": ' + b"[" * 150])
def test_a_damaged_message_inside_another_line_stops_nothing(tmp_path: Path, damage: bytes) -> None:
    content = b"".join(json.dumps(item).encode() + b"\n" for item in _CLAUDE).replace(b"Find it", b"Find" + damage)
    assert_nothing_stopped_or_lost(tmp_path / "damaged.jsonl", content, "claude_code")


@pytest.mark.parametrize("format_name", sorted(_FILES))
@given(number=st.integers(0, 50), place=st.integers(0, 50), value=_VALUES | st.just(...))
@_SETTINGS
def test_a_value_of_another_type_or_none_at_all_stops_nothing(
    format_name: str, tmp_path: Path, number: int, place: int, value: Any
) -> None:
    assert_nothing_stopped_or_lost(
        tmp_path / "damaged.jsonl", replaced(_FILES[format_name], number, place, value), format_name
    )


@pytest.mark.parametrize("format_name", sorted(_FILES))
@given(order=st.permutations(range(9)), repeats=st.lists(st.integers(0, 8), max_size=4))
@_SETTINGS
def test_lines_in_any_order_and_twice_stop_nothing(
    format_name: str, tmp_path: Path, order: list[int], repeats: list[int]
) -> None:
    lines = [_FILES[format_name][index] for index in [*order, *repeats]]
    assert_nothing_stopped_or_lost(
        tmp_path / "damaged.jsonl", "".join(json.dumps(item) + "\n" for item in lines).encode(), format_name
    )

"""Bytes to lines to records: nothing raises, nothing is lost, and a file read in pieces gives what it gives in one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolcall_pipeline.sessions import lines as lines_module
from toolcall_pipeline.sessions.decoding import needs_care
from toolcall_pipeline.sessions.events import GraphNode
from toolcall_pipeline.sessions.formats import FORMATS
from toolcall_pipeline.sessions.lines import LineSource, RawLine
from toolcall_pipeline.sessions.reading import SessionFileReader, read_events
from toolcall_pipeline.sessions.sample import sample_files
from toolcall_pipeline_tests.sessions.lines import call, queue, result, text, user

_FIELDS = st.sampled_from(
    [
        "type",
        "uuid",
        "parentUuid",
        "sessionId",
        "message",
        "timestamp",
        "isSidechain",
        "agentId",
        "data",
        "attachment",
        "toolUseResult",
        "operation",
        "content",
        "subtype",
        "isMeta",
        "logicalParentUuid",
        "payload",
        "role",
        "id",
        "call_id",
        "name",
        "arguments",
        "output",
        "input",
        "num_turns",
        "source",
        "cwd",
        "git",
    ]
)
_WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "progress",
        "system",
        "attachment",
        "queue-operation",
        "agent_progress",
        "text",
        "tool_use",
        "tool_result",
        "enqueue",
        "remove",
        "session_meta",
        "response_item",
        "event_msg",
        "function_call",
        "function_call_output",
        "message",
        "user_message",
        "thread_rolled_back",
        "compact_boundary",
        "queued_command",
        "u1",
        "u2",
        "toolu_1",
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8) | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_FIELDS | st.text(max_size=4), inner, max_size=6),
    max_leaves=25,
)
_LINES = st.binary(max_size=60) | st.dictionaries(_FIELDS, _VALUES, max_size=9).map(
    lambda value: json.dumps(value).encode()
)


@pytest.mark.parametrize("format_name", sorted(FORMATS))
@given(content=st.lists(_LINES, max_size=8).map(b"\n".join))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_whatever_raises_and_every_line_is_accounted_for(
    format_name: str, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "any.jsonl"
    path.write_bytes(content)
    reader = SessionFileReader(path, relative_path="any.jsonl", format=format_name)
    records = list(reader)
    assert reader.account.lines == reader.account.accounted_lines
    assert reader.account.lines == len(content.split(b"\n")) - (content.endswith(b"\n") or not content)
    assert json.loads(json.dumps(reader.reader_state)) == reader.reader_state
    for record in records:
        json.dumps(str(record)).encode("utf-8")  # neither NUL nor lone surrogates leave the reader
        assert "\x00" not in str(getattr(record, "text", ""))


def lines_in_blocks(path: Path, block_bytes: int) -> list[RawLine]:
    """Return the lines of a file read in blocks of some size; a Hypothesis test cannot ask for `monkeypatch`."""
    before = lines_module.BLOCK_BYTES
    lines_module.BLOCK_BYTES = block_bytes
    try:
        return list(LineSource(path, start_byte=0, start_line=1, end_byte=None))
    finally:
        lines_module.BLOCK_BYTES = before


@given(content=st.binary(max_size=400), block=st.integers(1, 50))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_the_same_whatever_the_block_size(tmp_path: Path, content: bytes, block: int) -> None:
    path = tmp_path / "any.bin"
    path.write_bytes(content)
    found = lines_in_blocks(path, block)
    parts = content.split(b"\n")
    expected = parts if parts[-1] else parts[:-1]
    assert [line.content for line in found] == [
        part.removesuffix(b"\r") if number < len(parts) - 1 else part for number, part in enumerate(expected)
    ]
    for line in found:
        assert content[line.byte_offset : line.byte_offset + line.length_bytes].removesuffix(
            b"\r"
        ) == line.content.removesuffix(b"\r")


@given(before=st.integers(0, 40), behind=st.integers(0, 40), block=st.integers(1, 24))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_escaped_nul_is_seen_wherever_blocks_end(tmp_path: Path, before: int, behind: int, block: int) -> None:
    path = tmp_path / "any.bin"
    path.write_bytes(b"x" * before + b"\n" + b"y" * behind + b"\\u0000\nz")
    found = lines_in_blocks(path, block)
    assert [needs_care(line) for line in found] == [False, True, False]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_locations_call_a_file_what_they_are_told_to(tmp_path: Path, name: str) -> None:
    lines = {
        "claude_code": [user("u1", None, "Hi"), "no JSON"],
        "codex": [
            {
                "timestamp": "2026-01-01T00:00:00Z",
                "type": "event_msg",
                "payload": {"type": "user_message", "message": "Hi"},
            }
        ],
    }[name]
    path = tmp_path / "secret-name.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reader = SessionFileReader(path, relative_path="secret-name.jsonl", format=name, shown_path="shown.jsonl")
    records = list(reader)
    assert records
    files = {record.file if isinstance(record, GraphNode) else record.location.file for record in records}
    assert files == {"shown.jsonl"}


def test_a_line_too_long_to_hold_is_quarantined_and_the_next_one_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", 64)
    monkeypatch.setattr("toolcall_pipeline.sessions.reading.MAX_LINE_BYTES", 1000)
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"x" * 5000 + b"\n" + json.dumps(user("u1", None, "next")).encode() + b"\n")
    reader = SessionFileReader(path, relative_path="long.jsonl", format="claude_code")
    records = list(reader)
    assert [type(record).__name__ for record in records] == ["MalformedLine", "GraphNode", "Event"]
    assert reader.account.malformed_lines == 1
    assert records[1].line == 2


_TOOL, _TOOL_2 = "toolu_01R62tkBs9tw5X76JmpWXYbc", "toolu_01Rzxms5G9Vzz1MHf8mbMFC4"
_CLAUDE = "".join(
    json.dumps(item) + "\n"
    for item in [
        user("u1", None, "Run the tests"),
        call("a1", "u1", _TOOL, "m1", name="Task", tool_input={"prompt": "Look"}),
        user("s1", None, "Look", isSidechain=True),
        text("s2", "s1", "seen", isSidechain=True),
        queue("enqueue", "and lint"),
        result("r1", "a1", _TOOL),
        queue("remove"),
        call("a2", "r1", _TOOL_2, "m2"),
        result("r2", "a2", _TOOL_2),
        text("a3", "r2", "Done", "m3"),
    ]
)


def _codex_lines() -> str:
    def item(second: int, kind: str, **payload: Any) -> str:
        return json.dumps({"timestamp": f"2026-08-01T10:00:{second:02d}.000Z", "type": kind, "payload": payload}) + "\n"

    def message(second: int, role: str, words: str) -> str:
        block = {"type": "input_text" if role == "user" else "output_text", "text": words}
        return item(second, "response_item", type="message", role=role, content=[block])

    return "".join(
        [
            item(0, "session_meta", id="s-1", cwd="/x", timestamp="2026-08-01T10:00:00.000Z", git={"branch": "b"}),
            item(1, "turn_context", cwd="/y", model="m"),
            message(2, "user", "first"),
            item(2, "event_msg", type="user_message", message="first"),
            item(3, "response_item", type="function_call", call_id="c1", name="shell", arguments='{"command": ["ls"]}'),
            item(4, "response_item", type="function_call_output", call_id="c1", output="ok"),
            item(5, "event_msg", type="agent_message", message="done"),
            message(5, "assistant", "done"),
            item(6, "event_msg", type="thread_rolled_back", num_turns=1),
            message(7, "user", "second"),
            message(8, "assistant", "again"),
        ]
    )


def _in_pieces(path: Path, content: bytes, cuts: list[int], format_name: str) -> list[Any]:
    """Read a growing file after each cut, with nothing but the JSON of the state carried over."""
    records: list[Any] = []
    start, line, state = 0, 1, "{}"
    for cut in [*cuts, len(content)]:
        path.write_bytes(content[:cut])
        reader = SessionFileReader(
            path,
            relative_path=path.name,
            format=format_name,
            start_byte=start,
            start_line=line,
            reader_state=json.loads(state),
        )
        records += list(reader)
        assert reader.account.lines == reader.account.accounted_lines
        start, line, state = reader.next_byte, reader.next_line, json.dumps(reader.reader_state)
    return records


@pytest.mark.parametrize(("format_name", "content"), [("claude_code", _CLAUDE), ("codex", _codex_lines())])
@given(data=st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_read_night_by_night_gives_the_records_of_one_reading(
    format_name: str, content: str, tmp_path: Path, data: st.DataObject
) -> None:
    raw = content.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    path = tmp_path / "grows.jsonl"
    path.write_bytes(raw)
    whole = list(read_events(path, relative_path=path.name, format=format_name))
    assert _in_pieces(path, raw, cuts, format_name) == whole


def test_a_sample_file_cut_at_every_line_end_gives_the_same_records(tmp_path: Path) -> None:
    content = max(sample_files(3).values(), key=len).encode()
    path = tmp_path / "grows.jsonl"
    path.write_bytes(content)
    whole = list(read_events(path, relative_path=path.name, format="claude_code"))
    ends = [index + 1 for index, byte in enumerate(content) if byte == 10]
    assert _in_pieces(path, content, ends[:-1], "claude_code") == whole


@pytest.mark.parametrize(
    ("tail", "pending", "events"),
    [
        (b'{"type":"user","uuid":"u2","message":{"content":"b"}}', 0, 2),  # complete, only the LF is missing
        (b'{"type":"user","uuid":"u2","message":{"con', 1, 1),
        (b'{"type":"user","uuid":"u2","message":{"content":"b"}}{"ty', 1, 1),  # the second object is half written
        (b'{"type":"user","uu{"type":"user","uuid":"u2","message":{"content":"b"}}', 0, 2),  # only the first is
        (b"\xc3", 1, 1),
        (b"  ", 0, 1),
    ],
)
def test_only_a_half_written_last_line_waits_for_the_next_night(
    tmp_path: Path, tail: bytes, pending: int, events: int
) -> None:
    path = tmp_path / "tail.jsonl"
    head = json.dumps(user("u1", None, "a")).encode() + b"\n"
    path.write_bytes(head + tail)
    reader = SessionFileReader(path, relative_path="tail.jsonl", format="claude_code")
    list(reader)
    assert (reader.account.pending_lines, reader.account.event_lines) == (pending, events)
    assert reader.next_byte == (len(head) if pending else len(head) + len(tail))

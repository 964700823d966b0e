"""Read one session file, or the bytes of it that a night added, into graph nodes and events.

Nothing here raises on content. A file is read in blocks and never held; what was read is a pure function of the bytes of
the range and of the state the night before left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from toolcall_pipeline.sessions.decoding import decode_tolerantly
from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, MalformedLine, SourceLocation
from toolcall_pipeline.sessions.formats import FORMATS
from toolcall_pipeline.sessions.lines import MAX_LINE_BYTES, LineSource, RawLine

Record = GraphNode | Event | MalformedLine


class FileAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What became of the lines of a byte range.

    Attributes:
        lines: Lines by counting LF bytes in the blocks (and a last one without LF): the witness.
        event_lines: Lines that gave at least one event; `other_lines`: read, without an event (progress, bookkeeping).
        malformed_lines: Lines of which nothing could be read; `malformed_parts`: entries in quarantine.
        blank_lines, pending_lines: Empty; half-written at the end of the file, left for the next night.
        unread_lines: Lines of a file in a format that is not known.
        nodes, prompts, sub_agent_tasks, assistant_texts, tool_calls, tool_calls_nested, tool_results, compactions,
            interruptions, others: What the lines held, copies included; nested calls are also in `tool_calls`.
    """

    lines: int = 0
    event_lines: int = 0
    other_lines: int = 0
    malformed_lines: int = 0
    blank_lines: int = 0
    pending_lines: int = 0
    unread_lines: int = 0
    malformed_parts: int = 0
    nodes: int = 0
    prompts: int = 0
    sub_agent_tasks: int = 0
    assistant_texts: int = 0
    tool_calls: int = 0
    tool_calls_nested: int = 0
    tool_results: int = 0
    compactions: int = 0
    interruptions: int = 0
    others: int = 0

    @property
    def accounted_lines(self) -> int:
        """Return the sum of every class a line can be in; equal to `lines` when nothing was lost."""
        return (
            self.event_lines
            + self.other_lines
            + self.malformed_lines
            + self.blank_lines
            + self.pending_lines
            + self.unread_lines
        )


_COUNTERS = {
    EventKind.PROMPT: "prompts",
    EventKind.ASSISTANT_TEXT: "assistant_texts",
    EventKind.TOOL_CALL: "tool_calls",
    EventKind.TOOL_RESULT: "tool_results",
    EventKind.COMPACTION: "compactions",
    EventKind.INTERRUPTION: "interruptions",
    EventKind.OTHER: "others",
}


class SessionFileReader:
    """The records of a byte range of a session file; iterate once, then read the attributes.

    Attributes:
        account: Lines and events by class.
        pending_bytes: Length of a half-written last line that was left.
        session_ids: Sessions seen in the range.
        current_line: The line the last record came from, while iterating.
    """

    def __init__(
        self,
        path: Path,
        *,
        relative_path: str,
        format: str,
        shown_path: str | None = None,
        start_byte: int = 0,
        start_line: int = 1,
        end_byte: int | None = None,
        reader_state: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            path: The file.
            relative_path: Its path below the sessions root, whose name may be that of its session or sub-agent.
            format: A key of `FORMATS`.
            shown_path: What locations call it, the relative path by default.
            start_byte: Where to start.
            start_line: Number of the line that starts there, from 1.
            end_byte: Where to stop, None at the end of the file.
            reader_state: What the reader of the range before left.
        """
        state = reader_state or {}
        self._path = path
        self._shown_path = shown_path or relative_path
        self._continues_line = bool(state.get("last_line_open", False))
        first_line = start_line - 1 if self._continues_line else start_line
        self._source = LineSource(path, start_byte=start_byte, start_line=first_line, end_byte=end_byte)
        self._parser = FORMATS[format].parser(relative_path, self._shown_path, state.get("parser", {}), self._line_at)
        self.account = FileAccount()
        self._start = (start_byte, start_line, self._continues_line)
        self._last_passed: RawLine | None = None
        self.pending_bytes = 0
        self.session_ids: set[str] = set()
        self.current_line = RawLine(b"", 0, -1, 0, True, False)

    @property
    def next_byte(self) -> int:
        """Return where the next night goes on."""
        last = self._last_passed
        return self._start[0] if last is None else last.byte_offset + last.length_bytes + last.is_terminated

    @property
    def next_line(self) -> int:
        """Return the number of the line that the next night begins with."""
        return self._start[1] if self._last_passed is None else self._last_passed.line + 1

    @property
    def last_line_open(self) -> bool:
        """Return whether the last line read had no LF yet; what comes next may still belong to it."""
        return self._start[2] if self._last_passed is None else not self._last_passed.is_terminated

    @property
    def read_bytes(self) -> int:
        """Return the number of bytes read."""
        return self._source.read_bytes

    @property
    def digest(self) -> str:
        """Return the XXH3 (128 bits) of the bytes read, in hexadecimal."""
        return self._source.digest

    @property
    def reader_state(self) -> dict[str, Any]:
        """Return what the next night's reader has to be given, as JSON without any text."""
        return {"parser": self._parser.state(), "last_line_open": self.last_line_open}

    def __iter__(self) -> Iterator[Record]:
        counts: defaultdict[str, int] = defaultdict(int)
        for line in self._source:
            if self._continues_line:
                # The night before ended inside this line, after a complete object; its LF is no line of its own.
                self._continues_line = False
                if line.is_terminated and not line.content.strip():
                    counts["continued"] += 1
                    self._last_passed = line
                    continue
            if not line.is_terminated:
                counts["unterminated"] += 1
                if _is_half_written(line.content):
                    counts["pending_lines"] += 1
                    self.pending_bytes = line.length_bytes
                    break
            if not line.content or line.content.isspace():
                yield from self._empty(line, counts)
            else:
                self.current_line = line
                yield from self._counted(self._parser.parse(line), counts)
            self._last_passed = line
        self._close(counts)

    def _empty(self, line: RawLine, counts: defaultdict[str, int]) -> list[Record]:
        """Return what a line without content gives: nothing, or that it was too long to be held."""
        if line.length_bytes <= MAX_LINE_BYTES:
            counts["blank_lines"] += 1
            return []
        counts["malformed_lines"] += 1
        counts["malformed_parts"] += 1
        place = SourceLocation(self._shown_path, line.line, line.byte_offset)
        return [MalformedLine(place, f"longer than {MAX_LINE_BYTES} bytes", line.length_bytes)]

    def _counted(self, records: list[Record], counts: defaultdict[str, int]) -> Iterator[Record]:
        """Yield the records of a line and count them, and the line by what they are."""
        kind_of_line = "other_lines"
        for record in records:
            if type(record) is GraphNode:
                counts["nodes"] += 1
                self.session_ids.add(record.session_id)
            elif type(record) is Event:
                kind_of_line = "event_lines"
                counts[_COUNTERS[record.kind]] += 1
                if record.agent_id is not None:
                    _count_nested(record, counts)
            else:
                counts["malformed_parts"] += 1
                if kind_of_line == "other_lines":
                    kind_of_line = "malformed_lines"
            yield record
        counts[kind_of_line] += 1

    def _close(self, counts: defaultdict[str, int]) -> None:
        continued, unterminated = counts.pop("continued", 0), counts.pop("unterminated", 0)
        self.account = FileAccount(lines=self._source.newline_count + unterminated - continued, **counts)

    def _line_at(self, byte_offset: int) -> bytes:
        with self._path.open("rb") as stream:
            stream.seek(byte_offset)
            return stream.readline(MAX_LINE_BYTES).removesuffix(b"\n")


def read_events(
    path: Path,
    *,
    relative_path: str,
    format: str,
    start_byte: int = 0,
    start_line: int = 1,
    end_byte: int | None = None,
    reader_state: Mapping[str, Any] | None = None,
) -> Iterator[Record]:
    """Yield the records of a byte range in file order, a node before its events; what cannot be read as such.

    Args:
        path: The file.
        relative_path: How the file is called in locations.
        format: A key of `FORMATS`.
        start_byte: Where to start.
        start_line: Number of the line that starts there, from 1.
        end_byte: Where to stop, None at the end of the file.
        reader_state: What the reader of the range before left.
    """
    return iter(
        SessionFileReader(
            path,
            relative_path=relative_path,
            format=format,
            start_byte=start_byte,
            start_line=start_line,
            end_byte=end_byte,
            reader_state=reader_state,
        )
    )


def _count_nested(event: Event, counts: defaultdict[str, int]) -> None:
    """Correct the counts by an event of a sub-agent's."""
    if event.kind is EventKind.PROMPT:
        counts["prompts"] -= 1
        counts["sub_agent_tasks"] += 1
    elif event.kind is EventKind.TOOL_CALL and event.spawned_by_tool_use_id:
        counts["tool_calls_nested"] += 1


def _is_half_written(content: bytes) -> bool:
    return decode_tolerantly(content).is_cut

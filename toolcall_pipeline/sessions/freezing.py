"""Freeze one file: decide from its state what is new, read that range once, and say what became of every line.

Runs in worker processes, one file at a time; what comes back is small and holds no text.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from toolcall_pipeline.sessions.discovery import sniff_format
from toolcall_pipeline.sessions.events import Event, GraphNode, MalformedLine
from toolcall_pipeline.sessions.formats import FORMATS, OTHER_FORMAT, UNREADABLE
from toolcall_pipeline.sessions.lines import NO_BYTES_DIGEST, LineSource
from toolcall_pipeline.sessions.lock import (
    CHECKED_BYTES,
    FileState,
    FileStatus,
    LockedFile,
    edge_hashes,
    file_key,
    hash_range,
)
from toolcall_pipeline.sessions.reading import FileAccount, SessionFileReader

HALF_WRITTEN = "half-written last line that did not grow since the night before"


@dataclass
class FrozenFile:
    """A frozen file and the rows its events and nodes give to the index.

    Attributes:
        locked: The file's entry in the lock.
        events: Column name to values, one per event, in file order; no text.
        nodes: The same of graph nodes.
        quarantine: What could not be read: place, reason, length.
    """

    locked: LockedFile
    events: dict[str, list[Any]] = field(default_factory=dict)
    nodes: dict[str, list[Any]] = field(default_factory=dict)
    quarantine: list[dict[str, Any]] = field(default_factory=list)


EVENT_COLUMNS = (
    "event_id",
    "kind",
    "subkind",
    "node_id",
    "session_id",
    "agent_id",
    "file",
    "line",
    "byte_offset",
    "length_bytes",
    "line_sha256",
)
NODE_COLUMNS = ("node_id", "parent_node_id", "session_id", "role", "agent_id", "file", "line")


def freeze_file(root: Path, relative_path: str, previous: FileState | None) -> FrozenFile:
    """Freeze one file; a file that cannot be read is an entry with its problem, never an error.

    Args:
        root: The sessions folder.
        relative_path: Of the file, POSIX.
        previous: How far it was read before, None for a file never seen.
    """
    shown = relative_path.encode("utf-8", "backslashreplace").decode("utf-8")
    if shown != relative_path:
        return _unreadable(shown, file_key(root, shown), "OSError", "its name is not UTF-8; rename the file")
    key = file_key(root, relative_path)
    try:
        # Without pathlib: most files of a night are left with this.
        found = os.stat(os.path.join(root, relative_path))
        if stat.S_ISDIR(found.st_mode):
            return _unreadable(relative_path, key, "OSError", "the folder cannot be listed; sessions in it are missing")
        if previous is not None and is_as_it_was(found, previous):
            return _unchanged(relative_path, key, previous)
        path = root / relative_path
        status, start = _where_to_start(path, found.st_size, previous)
        if status == "unchanged" and previous is not None:
            state = replace(previous, mtime_ns=found.st_mtime_ns, size_bytes=found.st_size)
            return FrozenFile(_nothing_new(relative_path, key, state, next_state=state))
        return _read(path, relative_path, key, status, start, found)
    except OSError as error:
        return _unreadable(relative_path, key, type(error).__name__, os.strerror(error.errno or 0))


def is_as_it_was(found: os.stat_result, previous: FileState) -> bool:
    """Tell whether a file has the size and time it had when it was last looked at: then it is not read."""
    return (found.st_size, found.st_mtime_ns) == (previous.size_bytes, previous.mtime_ns)


def _where_to_start(path: Path, size_bytes: int, previous: FileState | None) -> tuple[FileStatus, FileState | None]:
    if previous is None or previous.format not in FORMATS:
        return "new", None
    if size_bytes >= previous.next_byte and edge_hashes(path, previous.next_byte) == (
        previous.head_sha256,
        previous.tail_sha256,
    ):
        return ("unchanged" if size_bytes == previous.next_byte else "grown"), previous
    return "rewritten", None


def _unchanged(relative_path: str, key: str, previous: FileState) -> FrozenFile:
    """Return an unchanged file's entry; a half-written last line that stayed as it was goes into quarantine, once."""
    if not previous.pending_bytes or previous.tail_quarantined:
        # The ledger knows the state already, and in a night in which little is new most files are like this.
        return FrozenFile(_nothing_new(relative_path, key, previous, next_state=None))
    state = replace(previous, tail_quarantined=True)
    account = FileAccount(lines=1, malformed_lines=1, malformed_parts=1)
    locked = replace(_nothing_new(relative_path, key, state, next_state=state), account=account)
    entry = _quarantined(relative_path, previous.next_line, previous.next_byte, HALF_WRITTEN, previous.pending_bytes)
    return FrozenFile(locked, quarantine=[entry])


def _nothing_new(relative_path: str, key: str, state: FileState, *, next_state: FileState | None) -> LockedFile:
    return LockedFile(
        path=relative_path,
        file_key=key,
        format=state.format,
        status="unchanged",
        size_bytes=state.size_bytes,
        start_byte=state.next_byte,
        start_line=state.next_line,
        end_byte=state.next_byte,
        range_digest=NO_BYTES_DIGEST,
        next_state=next_state,
    )


def _unreadable(relative_path: str, key: str, kind: str, problem: str) -> FrozenFile:
    locked = LockedFile(
        path=relative_path,
        file_key=key,
        format=UNREADABLE,
        status="unreadable",
        size_bytes=0,
        start_byte=0,
        start_line=1,
        end_byte=0,
        range_digest=NO_BYTES_DIGEST,
        problem=f"{kind}: {problem}",
    )
    return FrozenFile(locked, quarantine=[_quarantined(relative_path, 0, 0, f"cannot be read: {problem}", 0)])


def _quarantined(file: str, line: int, byte_offset: int, reason: str, length_bytes: int) -> dict[str, Any]:
    return {"file": file, "line": line, "byte_offset": byte_offset, "reason": reason, "length_bytes": length_bytes}


def _read(
    path: Path, relative_path: str, key: str, status: FileStatus, start: FileState | None, found: os.stat_result
) -> FrozenFile:
    format_name = start.format if start is not None else sniff_format(path, end_byte=found.st_size)
    if format_name == OTHER_FORMAT:
        return _other_format(path, relative_path, key, status, found)
    reader = SessionFileReader(
        path,
        relative_path=relative_path,
        format=format_name,
        start_byte=start.next_byte if start is not None else 0,
        start_line=start.next_line if start is not None else 1,
        end_byte=found.st_size,
        reader_state=start.reader_state if start is not None else None,
    )
    events: dict[str, list[Any]] = {name: [] for name in EVENT_COLUMNS}
    nodes: dict[str, list[Any]] = {name: [] for name in NODE_COLUMNS}
    quarantine = _index(reader, events, nodes)
    outside = {parent for parent in nodes["parent_node_id"] if parent is not None} - set(nodes["node_id"])
    locked = LockedFile(
        path=relative_path,
        file_key=key,
        format=format_name,
        status=status,
        size_bytes=found.st_size,
        start_byte=start.next_byte if start is not None else 0,
        start_line=start.next_line if start is not None else 1,
        end_byte=(start.next_byte if start is not None else 0) + reader.read_bytes,
        range_digest=reader.digest,
        reader_state=start.reader_state if start is not None else {},
        next_state=_state(path, key, reader, format_name, found),
        session_ids=sorted(reader.session_ids),
        external_parent_ids=sorted(outside),
        account=reader.account,
    )
    return FrozenFile(locked, events, nodes, quarantine)


def _state(path: Path, key: str, reader: SessionFileReader, format_name: str, found: os.stat_result) -> FileState:
    head, tail = edge_hashes(path, reader.next_byte)
    return FileState(
        file_key=key,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        next_byte=reader.next_byte,
        next_line=reader.next_line,
        head_sha256=head,
        tail_sha256=tail,
        pending_bytes=reader.pending_bytes,
        format=format_name,
        reader_state=reader.reader_state,
    )


def _index(
    reader: SessionFileReader, events: dict[str, list[Any]], nodes: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    """Fill the columns from the reader and return the quarantine entries."""
    quarantine: list[dict[str, Any]] = []
    hashed_offset, line_sha256 = -1, ""
    for record in reader:
        if isinstance(record, GraphNode):
            for name in NODE_COLUMNS:
                nodes[name].append(getattr(record, name))
        elif isinstance(record, Event):
            line = reader.current_line
            if line.byte_offset != hashed_offset:
                hashed_offset, line_sha256 = line.byte_offset, hashlib.sha256(line.content).hexdigest()
            for name in ("event_id", "kind", "subkind", "node_id", "session_id", "agent_id"):
                events[name].append(getattr(record, name))
            events["file"].append(record.location.file)
            events["line"].append(record.location.line)
            events["byte_offset"].append(record.location.byte_offset)
            events["length_bytes"].append(line.length_bytes)
            events["line_sha256"].append(line_sha256)
        elif isinstance(record, MalformedLine):
            place = record.location
            quarantine.append(
                _quarantined(place.file, place.line, place.byte_offset, record.reason, record.length_bytes)
            )
    return quarantine


def _other_format(path: Path, relative_path: str, key: str, status: FileStatus, found: os.stat_result) -> FrozenFile:
    """Return the entry of a file no reader knows: counted, not read, looked at again only when it changes."""
    source = LineSource(path, start_byte=0, start_line=1, end_byte=found.st_size)
    lines = sum(1 for _ in source)
    head = hash_range(path, 0, min(CHECKED_BYTES, source.read_bytes))
    state = FileState(
        file_key=key,
        size_bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        next_byte=0,
        next_line=1,
        head_sha256=head,
        tail_sha256=head,
        format=OTHER_FORMAT,
    )
    locked = _nothing_new(relative_path, key, state, next_state=state)
    return FrozenFile(replace(locked, status=status, account=FileAccount(lines=lines, unread_lines=lines)))

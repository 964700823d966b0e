"""The lock of a run: which bytes of which files it reads, and where the night after goes on.

On disk `lock.jsonl`: a header object, then one object per file, sorted by path. It names places and hashes, never text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.errors import ArtifactError
from toolcall_pipeline.sessions.formats import FORMATS
from toolcall_pipeline.sessions.reading import FileAccount, Record, SessionFileReader

LOCK_NAME = "lock.jsonl"
# A file that was written anew is told from one that grew by its first and its last bytes before the place where reading
# stopped: hashing all of them would cost a night with 1 % new bytes more than reading it.
CHECKED_BYTES = 64 << 10

FileStatus = Literal["new", "grown", "unchanged", "rewritten", "unreadable"]


class FileState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a file was read: what the store's ledger keeps between nights.

    Attributes:
        file_key: Identity of the file: hash of the sessions folder, colon, path below it.
        size_bytes, mtime_ns: As they were; equal ones mean that nothing has to be read.
        next_byte, next_line: Where reading goes on.
        head_sha256, tail_sha256: Of the first and the last `CHECKED_BYTES` before `next_byte`.
        pending_bytes: Length of a half-written last line, left for the next night.
        tail_quarantined: That line did not grow any more and was put in quarantine.
        format: As sniffed.
        reader_state: What the reader needs to go on; no text.
    """

    file_key: str
    size_bytes: int
    mtime_ns: int
    next_byte: int
    next_line: int
    head_sha256: str
    tail_sha256: str
    pending_bytes: int = 0
    tail_quarantined: bool = False
    format: str
    reader_state: dict[str, Any] = {}


class LockedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of a run.

    Attributes:
        path: Below the sessions folder, POSIX.
        format: `claude_code`, `codex`, `other` (another program's), `unreadable`.
        start_byte, start_line, end_byte: The range this run reads; empty where nothing is new.
        range_digest: XXH3 (128 bits) of exactly these bytes.
        reader_state: What the reader starts with.
        next_state: How far the file is read behind this run; None for a file that cannot be read, and for one that is as the
            ledger has it.
        session_ids: Sessions that occur in the range.
        external_parent_ids: Nodes named as a parent in the range and not in it.
        account: What became of the lines of the range.
        problem: Why a file could not be read.
    """

    path: str
    file_key: str
    format: str
    status: FileStatus
    size_bytes: int
    start_byte: int
    start_line: int
    end_byte: int
    range_digest: str
    reader_state: dict[str, Any] = {}
    next_state: FileState | None = None
    session_ids: list[str] = []
    external_parent_ids: list[str] = []
    account: FileAccount = msgspec.field(default_factory=FileAccount)
    problem: str | None = None


class LockHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The first line of a lock."""

    version: Literal[2] = 2
    root: str
    sample: bool


class SessionsLock(msgspec.Struct, frozen=True, kw_only=True):
    """A whole lock."""

    root: Path
    is_sample: bool
    files: tuple[LockedFile, ...]


def file_key(root: Path, relative_path: str) -> str:
    """Return the identity a file has in the ledger, whatever folders beside it are read."""
    return f"{_root_key(str(root.absolute()))}:{relative_path}"


@lru_cache(maxsize=64)
def _root_key(root: str) -> str:
    return hashlib.sha256(root.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def load_lock(artifact: Artifact) -> SessionsLock:
    """Read the lock of a `jsonl_sessions` artifact.

    Raises:
        ArtifactError: A line of it is no lock line.
    """
    path = artifact.path(LOCK_NAME)
    found = path.stat()
    return _parse_lock(path, found.st_size, found.st_mtime_ns)


# One run reads the same lock several times; it is never written again.
@lru_cache(maxsize=1)
def _parse_lock(path: Path, size_bytes: int, mtime_ns: int) -> SessionsLock:
    header_line, *lines = path.read_bytes().split(b"\n")
    decoder = msgspec.json.Decoder(LockedFile)
    try:
        header = msgspec.json.decode(header_line, type=LockHeader)
        files = tuple([decoder.decode(line) for line in lines if line])
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{path} is no readable lock ({error}). Materialise jsonl_sessions again.") from error
    return SessionsLock(root=Path(header.root), is_sample=header.sample, files=files)


def read_locked_file(lock: SessionsLock, locked: LockedFile, shown_path: str | None = None) -> Iterator[Record]:
    """Yield the records of a file's locked range, a node before its events.

    Args:
        lock: The lock.
        locked: One of its files.
        shown_path: What locations call the file, its path in the lock by default.

    Raises:
        ArtifactError: The file is gone, or its bytes are not the ones that were frozen.
    """
    if locked.format not in FORMATS or locked.end_byte == locked.start_byte:
        return
    path = lock.root / locked.path
    try:
        reader = SessionFileReader(
            path,
            relative_path=locked.path,
            format=locked.format,
            shown_path=shown_path,
            start_byte=locked.start_byte,
            start_line=locked.start_line,
            end_byte=locked.end_byte,
            reader_state=locked.reader_state,
        )
        yield from reader
    except OSError as error:
        raise ArtifactError(
            f"{path} was frozen and cannot be read any more ({error}). Put it back, then run again."
        ) from error
    if reader.digest != locked.range_digest:
        raise ArtifactError(
            f"{path} changed between byte {locked.start_byte} and {locked.end_byte} since it was frozen: expected XXH3 "
            f"{locked.range_digest}, found {reader.digest}. Freeze the sessions in a new partition."
        )


def hash_range(path: Path, start_byte: int, end_byte: int) -> str:
    """Return the SHA-256 of a byte range of a file, in hexadecimal; shorter files give the hash of what is there."""
    with path.open("rb") as stream:
        stream.seek(start_byte)
        return hashlib.sha256(stream.read(max(0, end_byte - start_byte))).hexdigest()


def edge_hashes(path: Path, next_byte: int) -> tuple[str, str]:
    """Return the hashes of the first and the last `CHECKED_BYTES` before a place."""
    head = hash_range(path, 0, min(CHECKED_BYTES, next_byte))
    return head, hash_range(path, max(0, next_byte - CHECKED_BYTES), next_byte)

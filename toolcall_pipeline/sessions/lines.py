"""Bytes to lines: blocks of a file, cut at LF only, each line with its number and offset.

Nothing here knows a format. U+2028, CR and friends do not end a line; a CR before the LF is dropped with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK_BYTES = 4 << 20
# A line longer than this cannot be one event of any agent; it is quarantined without ever being held in memory.
MAX_LINE_BYTES = 256 << 20


class RawLine(NamedTuple):
    """One line without its line end.

    Attributes:
        content: The bytes; empty where the line was longer than `MAX_LINE_BYTES`.
        line: Number from 1.
        byte_offset: Where it starts.
        length_bytes: Length without the LF.
        is_terminated: False for what stands behind the last LF.
    """

    content: bytes
    line: int
    byte_offset: int
    length_bytes: int
    is_terminated: bool


class LineSource:
    """The lines of one byte range of a file, iterable once.

    Attributes:
        newline_count: LF bytes seen, counted on the blocks and not on the lines, so that the accounting has a witness.
        read_bytes: Bytes read so far.
        sha256: Digest of the bytes read so far.
    """

    def __init__(self, path: Path, *, start_byte: int, start_line: int, end_byte: int | None) -> None:
        self._path = path
        self._start_byte = start_byte
        self._start_line = start_line
        self._end_byte = end_byte
        self._digest = hashlib.sha256()
        self.newline_count = 0
        self.read_bytes = 0

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the bytes read so far, in hexadecimal."""
        return self._digest.hexdigest()

    def _blocks(self) -> Iterator[bytes]:
        with self._path.open("rb") as stream:
            stream.seek(self._start_byte)
            left = None if self._end_byte is None else self._end_byte - self._start_byte
            while left is None or left > 0:
                block = stream.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left))
                if not block:
                    return
                if left is not None:
                    left -= len(block)
                self._digest.update(block)
                self.newline_count += block.count(b"\n")
                self.read_bytes += len(block)
                yield block

    def __iter__(self) -> Iterator[RawLine]:
        line, offset = self._start_line, self._start_byte
        pieces: list[bytes] = []
        held_bytes = 0
        for block in self._blocks():
            parts = block.split(b"\n")
            for part in parts[:-1]:
                content, length = (part, len(part)) if not pieces else _join(pieces, part, held_bytes)
                pieces, held_bytes = [], 0
                yield RawLine(content.removesuffix(b"\r"), line, offset, length, True)
                line += 1
                offset += length + 1
            held_bytes += len(parts[-1])
            if held_bytes > MAX_LINE_BYTES:
                pieces = [b""]
            elif parts[-1]:
                pieces.append(parts[-1])
        if held_bytes:
            content, length = _join(pieces, b"", held_bytes)
            yield RawLine(content, line, offset, length, False)


def _join(pieces: list[bytes], last: bytes, held_bytes: int) -> tuple[bytes, int]:
    length = held_bytes + len(last)
    return (b"" if length > MAX_LINE_BYTES else b"".join([*pieces, last])), length

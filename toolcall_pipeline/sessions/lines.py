"""Bytes to lines: blocks of a file, cut at LF only, each line with its number and offset.

Nothing here knows a format. U+2028, CR and friends do not end a line; a CR before the LF is dropped with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import xxhash
from stringzilla import find

# Small enough to stay in a core's cache while it is hashed, cut and decoded: 4 MiB cost a fifth of the reading time.
BLOCK_BYTES = 128 << 10
# A line longer than this cannot be one event of any agent; it is quarantined without ever being held in memory.
MAX_LINE_BYTES = 256 << 20
# In JSON; PostgreSQL cannot store what it means.
ESCAPED_NUL = b"\\u0000"
NO_BYTES_DIGEST = xxhash.xxh3_128().hexdigest()


class RawLine(msgspec.Struct, frozen=True, gc=False):
    """One line without its line end.

    Attributes:
        content: The bytes; empty where the line was longer than `MAX_LINE_BYTES`.
        line: Number from 1.
        byte_offset: Where it starts.
        length_bytes: Length without the LF.
        is_terminated: False for what stands behind the last LF.
        may_hold_nul: An escaped NUL stands in it or near it. Looked for in whole blocks: line by line, and even in the
            decoded texts of long lines only, it took a tenth of the whole reading.
    """

    content: bytes
    line: int
    byte_offset: int
    length_bytes: int
    is_terminated: bool
    may_hold_nul: bool


class LineSource:
    """The lines of one byte range of a file, iterable once.

    Attributes:
        newline_count: LF bytes seen, counted on the blocks and not on the lines, so that the accounting has a witness.
        read_bytes: Bytes read so far.
        digest: Digest of the bytes read so far.
    """

    def __init__(self, path: Path, *, start_byte: int, start_line: int, end_byte: int | None) -> None:
        self._path = path
        self._start_byte = start_byte
        self._start_line = start_line
        self._end_byte = end_byte
        self._digest = xxhash.xxh3_128()
        self.newline_count = 0
        self.read_bytes = 0

    @property
    def digest(self) -> str:
        """Return the XXH3 (128 bits) of the bytes read so far, in hexadecimal.

        It tells changed bytes, not forged ones; SHA-256 took a seventh of the whole reading, more than half of it on
        processors without instructions for it.
        """
        return self._digest.hexdigest()

    def _blocks(self) -> Iterator[bytes]:
        with self._path.open("rb", buffering=0) as stream:
            stream.seek(self._start_byte)
            left = None if self._end_byte is None else self._end_byte - self._start_byte
            while left is None or left > 0:
                block = stream.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left))
                if not block:
                    return
                if left is not None:
                    left -= len(block)
                self._digest.update(block)
                self.read_bytes += len(block)
                yield block

    def __iter__(self) -> Iterator[RawLine]:
        line, offset = self._start_line, self._start_byte
        pieces: list[bytes] = []
        held_bytes = 0
        for block in self._blocks():
            start = 0
            may_hold_nul = find(block, ESCAPED_NUL) >= 0
            # `find` looks at many bytes at once; `split` looks at each and took a tenth of the whole reading.
            while (end := block.find(b"\n", start)) >= 0:
                content, length, holds_nul = block[start:end], end - start, may_hold_nul
                start = end + 1
                if held_bytes:
                    content, length, holds_nul = _join(pieces, content, held_bytes)
                    pieces, held_bytes = [], 0
                self.newline_count += 1
                yield RawLine(content.removesuffix(b"\r"), line, offset, length, True, holds_nul)
                line += 1
                offset += length + 1
            rest = block[start:]
            held_bytes += len(rest)
            if held_bytes > MAX_LINE_BYTES:
                pieces = [b""]
            elif rest:
                pieces.append(rest)
        if held_bytes:
            content, length, holds_nul = _join(pieces, b"", held_bytes)
            yield RawLine(content, line, offset, length, False, holds_nul)


def _join(pieces: list[bytes], last: bytes, held_bytes: int) -> tuple[bytes, int, bool]:
    """Return a line that went over blocks: its bytes, its length, and whether an escaped NUL stands in it."""
    length = held_bytes + len(last)
    content = b"" if length > MAX_LINE_BYTES else b"".join([*pieces, last])
    return content, length, find(content, ESCAPED_NUL) >= 0

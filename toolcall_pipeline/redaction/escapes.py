"""What a text says where it is escaped, as JSON in JSON or a string in source code is, and where each byte of it came from."""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import accumulate

# However often it is escaped: `\n`, `\\n`, `\"`, `\/`, `\u0026`.
_ESCAPES = rb"""\\\\*(?:[nrtbf"'`/]|u00[0-7][0-9a-fA-F])"""
_ESCAPE = re.compile(rb"(" + _ESCAPES + rb")")
# A terminal's colours beside them: they separate, and no rule knows them.
_COLOUR_OR_ESCAPE = re.compile(rb"((?:\x1b|\\\\*u001[bB])\[[0-9;]*[A-Za-z]|" + _ESCAPES + rb")")
_CONTROLS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}


class _Meanings(dict[bytes, bytes]):
    """The one byte each escape means, worked out when it is first met."""

    def __missing__(self, escape: bytes) -> bytes:
        letters = b" " if b"[" in escape else escape.lstrip(b"\\")
        meaning = _CONTROLS.get(letters) or (letters if len(letters) == 1 else bytes((int(letters[1:], 16),)))
        if len(escape) <= 16:  # an escape can be as long as its text
            self[escape] = meaning
        return meaning


_MEANINGS = _Meanings()


class Unescaped:
    """A text with every escape replaced by the one byte it means.

    Attributes:
        text: The text.
    """

    def __init__(self, data: bytes) -> None:
        self._pieces = _ESCAPE.split(data) if b"\\" in data else [data]
        self.text = self._join()
        if b"\x1b" in self.text:
            self._pieces = _COLOUR_OR_ESCAPE.split(data)
            self.text = self._join()
        self._places: list[int] | None = None

    def _join(self) -> bytes:
        pieces = list(self._pieces)
        pieces[1::2] = map(_MEANINGS.__getitem__, pieces[1::2])
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]

    def origin(self, place: int) -> int:
        """Return where in the data the byte at a place of the text came from; of an escape, its first byte."""
        if len(self._pieces) == 1:
            return place
        if self._places is None:
            self._places = list(accumulate(len(piece) + 1 for piece in self._pieces[0::2]))
            self._removed = [0, *accumulate(len(piece) - 1 for piece in self._pieces[1::2])]
        # The escape after piece `n` stands at `_places[n] - 1` of the text.
        return place + self._removed[min(bisect_left(self._places, place + 1), len(self._removed) - 1)]

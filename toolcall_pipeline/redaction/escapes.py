"""What a text says where it is escaped, as JSON in JSON, a page or an address is, and where each byte of it came from."""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from functools import lru_cache
from itertools import accumulate

# However often it is escaped: `\n`, `\\n`, `\"`, `\/`, `\u0026`.
_BACKSLASHES = rb"""\\\\*(?:[nrtbf"'`/]|u00[0-7][0-9a-fA-F])"""
# A terminal's colours separate, and no rule knows them. Two forms that begin with a literal are found twice as fast as one
# that begins with either.
_COLOURS = rb"\x1b\[[0-9;]*[A-Za-z]|\\\\*u001[bB]\[[0-9;]*[A-Za-z]"
_ENTITIES = rb"&(?:quot|apos|lt|gt|amp|#34|#39|#x22|#x27);"
# What JSON and PEM need in an address. Other signs, and a colon that follows no quote, stand inside passwords.
_PERCENTS = (
    rb"%(?:22|0[ADad]|7[bB](?=%22)|(?<=%22%)(?:3[aA]|2[cC]|7[dD])"
    rb"|20(?=(?:RSA|EC|DSA|OPENSSH|PGP|ENCRYPTED|PRIVATE|KEY)(?:%20|-----)))"
)
# Each with what stands in every text it changes: most texts have none of it and are not split.
_FORMS = (
    (re.compile(rb"\\"), _BACKSLASHES),
    (re.compile(_ENTITIES), _ENTITIES),
    (re.compile(_PERCENTS), _PERCENTS),
)
_CONTROLS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}


class _Meanings(dict[bytes, bytes]):
    """The one byte each escape means, worked out when it is first met."""

    def __missing__(self, escape: bytes) -> bytes:
        meaning = _meaning(escape)
        if len(escape) <= 16:  # an escape can be as long as its text
            self[escape] = meaning
        return meaning


def _meaning(escape: bytes) -> bytes:
    if escape.startswith(b"&"):
        return html.unescape(escape.decode()).encode()
    if escape.startswith(b"%"):
        return bytes.fromhex(escape[1:].decode())
    if b"[" in escape:
        return b" "
    letters = escape.lstrip(b"\\")
    return _CONTROLS.get(letters) or (letters if len(letters) == 1 else bytes((int(letters[1:], 16),)))


_MEANINGS = _Meanings()


@lru_cache
def _any_of(*forms: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(" + b"|".join(forms) + rb")")


class Unescaped:
    """A text with every escape replaced by the one byte it means.

    Attributes:
        text: The text.
    """

    def __init__(self, data: bytes) -> None:
        forms = [form for hint, form in _FORMS if hint.search(data)]
        self._split(data, forms)
        if b"\x1b" in self.text:
            self._split(data, [_COLOURS, *forms])
        self._places: list[int] | None = None

    def _split(self, data: bytes, forms: list[bytes]) -> None:
        self._pieces = _any_of(*forms).split(data) if forms else [data]
        pieces = list(self._pieces)
        pieces[1::2] = map(_MEANINGS.__getitem__, pieces[1::2])
        self.text = b"".join(pieces) if len(pieces) > 1 else data

    def origin(self, place: int) -> int:
        """Return where in the data the byte at a place of the text came from; of an escape, its first byte."""
        if len(self._pieces) == 1:
            return place
        if self._places is None:
            self._places = list(accumulate(len(piece) + 1 for piece in self._pieces[0::2]))
            self._removed = [0, *accumulate(len(piece) - 1 for piece in self._pieces[1::2])]
        # The escape after piece `n` stands at `_places[n] - 1` of the text.
        return place + self._removed[min(bisect_left(self._places, place + 1), len(self._removed) - 1)]

"""The strings inside a JSON value, in a fixed order, and the value built again from their replacements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# A value is judged together with a key that says what it is: {"password": "..."} holds no keyword in its string.
_TELLING_KEY = re.compile(
    r"(?i)pass(?:w(?:or)?d|phrase|code)?|pwd|secret|token|key|auth|cred|cookie|session|bearer|signature|dsn|"
    r"connection|webhook|license"
)
_MAX_KEY_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Leaf:
    """One string, and the name it stands under where that name tells something (else empty)."""

    text: str
    context: str


def iter_leaves(value: Any, context: str = "") -> Iterator[Leaf]:
    """Give every string leaf of a JSON value, depth first, in the order of its keys and items."""
    if isinstance(value, str):
        yield Leaf(value, context)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from iter_leaves(item, _context_of(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from iter_leaves(item, context)


def rebuild(value: Any, replacements: Iterator[str]) -> Any:
    """Return a copy of a JSON value whose strings are the next of `replacements`; everything else is as it was."""
    if isinstance(value, str):
        return next(replacements)
    if isinstance(value, dict):
        return {key: rebuild(item, replacements) for key, item in value.items()}
    if isinstance(value, list):
        return [rebuild(item, replacements) for item in value]
    if isinstance(value, tuple):
        return tuple(rebuild(item, replacements) for item in value)
    return value


def _context_of(key: Any) -> str:
    if not isinstance(key, str) or len(key) > _MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        return ""
    return key if _TELLING_KEY.search(key) else ""

"""The strings inside a JSON value, in a fixed order, and the value built again from their replacements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

# A value is judged together with a key that says what it is: {"password": "..."} holds no keyword in its string.
_TELLING_KEY = re.compile(
    r"(?i)pass(?:w(?:or)?d|phrase|code)?|pwd|secret|token|key|auth|cred|cookie|session|bearer|signature|dsn|"
    r"connection|webhook|license"
)
_MAX_KEY_CHARACTERS = 80
# {"name": "API_TOKEN", "value": "..."}: the name stands beside the value, not above it.
_NAME_KEYS = ("name", "key", "Name", "Key")
_VALUE_KEYS = frozenset({"value", "Value", "default", "val"})


def collect_leaves(value: Any, texts: list[str], contexts: list[str], context: str = "") -> None:
    """Append every string leaf of a JSON value, depth first, in the order of its keys and items.

    Args:
        value: Text or JSON value.
        texts: Gets the strings.
        contexts: Gets the name each string stands under, where that name tells something, else an empty string.
        context: The name the value itself stands under.
    """
    if isinstance(value, str):
        texts.append(value)
        contexts.append(context)
    elif isinstance(value, dict):
        named = "" if _VALUE_KEYS.isdisjoint(value) else _name_beside_value(value)
        for key, item in value.items():
            name = named if named and key in _VALUE_KEYS else _context_of(key)
            if isinstance(item, str):
                texts.append(item)
                contexts.append(name)
            elif isinstance(item, (dict, list, tuple)):
                collect_leaves(item, texts, contexts, name)
    elif isinstance(value, (list, tuple)):
        option = ""
        for item in value:
            collect_leaves(item, texts, contexts, option or context)
            option = _context_of(item) if isinstance(item, str) and item.startswith("-") else ""


def rebuild(value: Any, replacements: Iterator[str]) -> Any:
    """Return a copy of a JSON value whose strings are the next of `replacements`; everything else is as it was."""
    if isinstance(value, str):
        return next(replacements)
    if isinstance(value, dict):
        return {
            key: rebuild(item, replacements) if isinstance(item, (str, dict, list, tuple)) else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [rebuild(item, replacements) for item in value]
    if isinstance(value, tuple):
        return tuple(rebuild(item, replacements) for item in value)
    return value


def _name_beside_value(value: dict[Any, Any]) -> str:
    """Return the name an object gives the value beside it, as lists of settings do, where that name tells something."""
    names = (value.get(key) for key in _NAME_KEYS)
    return next((_context_of(name) for name in names if isinstance(name, str)), "")


@lru_cache(maxsize=4096)
def _context_of(key: Any) -> str:
    if not isinstance(key, str) or len(key) > _MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        return ""
    return key if _TELLING_KEY.search(key) else ""

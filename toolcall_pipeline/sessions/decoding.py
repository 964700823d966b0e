"""Bytes of a line to JSON objects, whatever the bytes are.

The readers try their fast, typed decoder first and come here when it refuses: several objects on one line, NUL and lone
surrogates, invalid UTF-8, control characters, NaN, wrong types. Nothing in here raises on content.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec
import orjson

# Deeper input would break every recursive consumer behind the reader (the interpreter's own limit is 1,000).
MAX_DEPTH = 120
REPLACEMENT = "\ufffd"

_BAD_CHARACTERS = re.compile("[\x00\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda name: None)


class Decoded(NamedTuple):
    """What a line holds: its JSON objects in order, and what could not be read (reason, length in bytes)."""

    objects: list[dict[str, Any]]
    problems: list[tuple[str, int]]


def needs_care(raw: bytes) -> bool:
    """Tell whether a line has to go through `decode_tolerantly` although a strict decoder accepts it.

    That is one with an escaped NUL, which PostgreSQL cannot store; lone surrogates are refused by the strict decoders
    themselves. One search for fixed bytes: a regular expression took a tenth of the whole reading.
    """
    return b"\\u0000" in raw


def decode_tolerantly(raw: bytes) -> Decoded:
    """Return every JSON object on a line, cleaned, and a reason for each part that is none."""
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    objects: list[dict[str, Any]] = []
    problems: list[tuple[str, int]] = []
    position = _skip_space(text, 0)
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        return Decoded([], [(f"nested deeper than {MAX_DEPTH} levels", len(raw))])
    while position < len(text):
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            problems.append((f"not JSON: {reason}", len(text[position:].encode("utf-8", "surrogatepass"))))
            break
        if isinstance(value, dict):
            objects.append(clean(value))
        else:
            length = len(text[position:end].encode("utf-8", "surrogatepass"))
            problems.append((f"a JSON {_json_type(value)}, expected an object", length))
        position = _skip_space(text, end)
    return Decoded(objects, problems)


def clean(value: Any) -> Any:
    """Return a JSON value with NUL and lone surrogates replaced by U+FFFD in every string and key."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): clean(item) for key, item in value.items()}
    return value


def clean_text(text: str) -> str:
    """Return text with NUL and lone surrogates replaced by U+FFFD."""
    return text if _BAD_CHARACTERS.search(text) is None else _BAD_CHARACTERS.sub(REPLACEMENT, text)


def payload(value: Any) -> Any:
    """Return what a typed header left raw, decoded; a value that is decoded already passes.

    Raises:
        ValueError: The raw bytes are no strict JSON; the caller sends its line through `decode_tolerantly`.
    """
    return orjson.loads(memoryview(value)) if isinstance(value, msgspec.Raw) else value


def as_text(value: Any) -> str | None:
    """Return a scalar as text, None for anything without a plain text form; for identities of any type."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(value)


def as_dict(value: Any) -> dict[str, Any]:
    """Return a value that is an object, or an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a value that is an array, or an empty one."""
    return value if isinstance(value, list) else []


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _json_type(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def _depth(raw: bytes) -> int:
    depth = deepest = 0
    for match in _BRACKETS.finditer(raw):
        character = match.group()
        if character in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif character in (b"]", b"}"):
            depth -= 1
    return deepest

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
from stringzilla import find

from toolcall_pipeline.sessions.lines import ESCAPED_NUL, RawLine

# Deeper input would break every recursive consumer behind the reader (the interpreter's own limit is 1,000).
MAX_DEPTH = 120
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
REPLACEMENT = "\ufffd"

_BAD_CHARACTERS = re.compile("[\x00\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\r\n]*")
# An object that stands in none: its writer went on behind a line that another one had left half-written.
_NEW_OBJECT = re.compile(r'(?<=[^\s:,\[])\{"')
# Of starting again inside one line: an error counts the lines before it, which adds up in a line of many MB.
_MAX_TRIES = 8
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda name: None)


class Decoded(NamedTuple):
    """What a line holds.

    Attributes:
        objects: Its JSON objects, in order.
        problems: What could not be read: reason, length in bytes.
        is_cut: Its end is no JSON: more of it may still be written.
    """

    objects: list[dict[str, Any]]
    problems: list[tuple[str, int]]
    is_cut: bool


def needs_care(line: RawLine) -> bool:
    """Tell whether a line has to go through `decode_tolerantly` although a strict decoder accepts it.

    That is one with an escaped NUL; lone surrogates are refused by the strict decoders themselves.
    """
    return line.may_hold_nul and find(line.content, ESCAPED_NUL) >= 0


def decode_tolerantly(raw: bytes) -> Decoded:
    """Return every JSON object on a line, cleaned, and a reason for each part that is none."""
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    objects: list[dict[str, Any]] = []
    problems: list[tuple[str, int]] = []
    position = _skip_space(text, 0)
    is_broken, tries = False, 0
    while position < len(text):
        try:
            value, end = _DECODER.raw_decode(text, position)
        except RecursionError:
            problems.append((_TOO_DEEP, _length_bytes(text[position:])))
            break
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            tries += 1
            follows = _NEW_OBJECT.search(text, position + 1) if tries <= _MAX_TRIES else None
            end = follows.start() if follows else len(text)
            length = _length_bytes(text[position:end])
            if is_broken:
                problems[-1] = (problems[-1][0], problems[-1][1] + length)
            else:
                problems.append((f"not JSON: {reason}", length))
            is_broken, position = True, end
            continue
        is_broken = False
        if is_too_deep(value):
            problems.append((_TOO_DEEP, _length_bytes(text[position:end])))
        elif isinstance(value, dict):
            objects.append(clean(value))
        else:
            problems.append((f"a JSON {_json_type(value)}, expected an object", _length_bytes(text[position:end])))
        position = _skip_space(text, end)
    return Decoded(objects, problems, is_broken)


def is_too_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Tell whether a JSON value is nested deeper than some levels."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    if levels <= 0:
        return True
    # A plain loop and a tuple: this looks at every argument of every call, and `any` and a union cost three times as much.
    for item in value:  # noqa: SIM110
        if isinstance(item, (dict, list)) and is_too_deep(item, levels - 1):
            return True
    return False


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


def _length_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))

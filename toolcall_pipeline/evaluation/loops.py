"""When a model goes round in circles: three equal calls, a cycle run twice, or nothing but what was seen before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.evaluation.cases import ParsedCall

EQUAL_CALLS = 3
_CYCLE_LENGTHS = (2, 3, 4)
_CYCLE_RUNS = 2
_STALE_CALLS = 3
FILE_CONTENT_KEYS = frozenset(
    {"content", "old_string", "new_string", "old_str", "new_str", "file_text", "new_source", "edits", "patch"}
)
"""Arguments that hold what a file says or is to say."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop found: its kind, and the index of the call that completed it."""

    kind: Literal["equal_calls", "cycle", "nothing_new"]
    call_index: int


def call_key(call: ParsedCall) -> str:
    """Return the identity of a call: name and canonical arguments.

    The order of keys does not matter, nor does spacing around a text or inside one of a single line, except where a
    call says what a file holds: there another indentation is another try. The words that describe a command are not what
    it does.
    """
    told = call.arguments
    if isinstance(told, dict) and "command" in told:
        told = {key: value for key, value in told.items() if key != "description"}
    arguments = json.dumps(_canonical(told), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256_text(f"{call.name}\0{arguments}")


def _canonical(value: Any) -> Any:
    if isinstance(value, str):
        text = value.strip()
        return text if "\n" in text else " ".join(text.split())
    if isinstance(value, dict):
        return {key: item if key in FILE_CONTENT_KEYS else _canonical(item) for key, item in value.items()}
    return [_canonical(item) for item in value] if isinstance(value, list) else value


def find_loop(calls: Sequence[ParsedCall], results: Sequence[str | None] | None = None) -> Loop | None:
    """Return the first loop in a case's calls, or None.

    Args:
        calls: All calls of the case in order.
        results: The result of each call, where tools ran; without them the third rule is not asked.

    Returns:
        The loop that is complete first: three equal calls in a row; a cycle of two to four different calls run twice;
        or three calls in a row whose call and result both occurred before.
    """
    keys = [call_key(call) for call in calls]
    seen: set[tuple[str, str | None]] = set()
    stale = 0
    for index in range(len(keys)):
        if index + 1 >= EQUAL_CALLS and len(set(keys[index + 1 - EQUAL_CALLS : index + 1])) == 1:
            return Loop("equal_calls", index)
        if any(_is_cycle(keys[: index + 1], length) for length in _CYCLE_LENGTHS):
            return Loop("cycle", index)
        if results is not None and index < len(results):
            pair = (keys[index], results[index])
            stale = stale + 1 if pair in seen else 0
            seen.add(pair)
            if stale >= _STALE_CALLS:
                return Loop("nothing_new", index)
    return None


def _is_cycle(keys: list[str], length: int) -> bool:
    if len(keys) < length * _CYCLE_RUNS:
        return False
    last, before = keys[-length:], keys[-2 * length : -length]
    return last == before and len(set(last)) == length

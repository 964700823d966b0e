r"""Cuts a raw completion into spans: text, tags, call bodies. Every character belongs to exactly one.

What the spans mean (which calls, which defects) is `completions.py`. The format is the Hermes one of Qwen2.5, Qwen3 and
our small base: `<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

OPEN_TAG = "<tool_call>"
CLOSE_TAG = "</tool_call>"
THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "</s>")
_MARKER = re.compile("|".join(re.escape(mark) for mark in (OPEN_TAG, CLOSE_TAG, THINK_OPEN, THINK_CLOSE, *_END_TOKENS)))
_AFTER_BODY = re.compile("|".join(re.escape(mark) for mark in (OPEN_TAG, CLOSE_TAG, *_END_TOKENS)))
# No tool's arguments nest this deep; what does would exhaust the stack of whoever walks it.
_MAX_DEPTH = 100
# JSON's own: what else Unicode calls a blank makes a body that is no JSON.
_SPACE = re.compile(r"[ \t\r\n]*")

SpanKind = Literal["text", "tag", "call", "think", "end"]


@dataclass(frozen=True, slots=True)
class CallBody:
    """What stood between the tags.

    Attributes:
        values: The JSON values read, in order; empty where the body is not JSON.
        closed: The closing tag followed.
        problem: Why the body is not one JSON value, or None.
    """

    values: tuple[Any, ...]
    closed: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of the raw completion."""

    kind: SpanKind
    start: int
    end: int
    body: CallBody | None = None
    is_stray: bool = False


class _Uncounted(str):
    """A text in which a JSON error does not count the lines before it: with thousands of errors that is quadratic."""

    __slots__ = ()

    def count(self, *_args: object) -> int:
        return 0

    def rfind(self, *_args: object) -> int:
        return -1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse_constant(number[:20])


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def read_json(raw: str, position: int) -> tuple[Any, int] | str:
    """Return the JSON value that starts at a position and where it ends, or why there is none.

    Strict, as serving engines are: no trailing commas, no single quotes, no raw line breaks in strings, no NaN, no number
    beyond what a float holds.
    """
    try:
        value, end = _DECODER.raw_decode(raw, position)
        return "nested too deeply" if _is_too_deep(value) else (value, end)
    except json.JSONDecodeError as error:
        return f"{error.msg} at character {error.pos - position}"
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {str(error)[:80]}"


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return False
    return True


def cut_spans(raw: str) -> list[Span]:
    """Cut a completion into spans that cover it without gap or overlap, in order."""
    spans: list[Span] = []
    position = thought_end(raw)
    if position:
        spans.append(Span("think", 0, position))
    last_thought_close = raw.rfind(THINK_CLOSE)
    raw = _Uncounted(raw)
    while position < len(raw):
        marker = _MARKER.search(raw, position)
        if marker is None:
            spans.append(Span("text", position, len(raw)))
            break
        if marker.start() > position:
            spans.append(Span("text", position, marker.start()))
        position = _take(raw, marker, spans, last_thought_close)
    return spans


def thought_end(raw: str) -> int:
    """Return where the thought that a completion begins with ends; 0 where it begins with none.

    A thought that never ends is all of the completion, as reasoning parsers of serving engines read it. A thinking
    template puts the opening tag into the prompt: then the first tag to come is the closing one.
    """
    first = _MARKER.search(raw)
    if first is None or first.group() not in (THINK_OPEN, THINK_CLOSE):
        return 0
    if first.group() == THINK_OPEN and raw[: first.start()].strip():
        return 0
    close = raw.find(THINK_CLOSE, first.start())
    return len(raw) if close < 0 else close + len(THINK_CLOSE)


def _take(raw: str, marker: re.Match[str], spans: list[Span], last_thought_close: int) -> int:
    """Append the spans that a marker begins; return where they end."""
    mark, start, end = marker.group(), marker.start(), marker.end()
    if mark == OPEN_TAG:
        return _take_call(raw, start, end, spans)
    if mark == CLOSE_TAG:
        spans.append(Span("tag", start, end, is_stray=True))
        return end
    if mark == THINK_OPEN and start < last_thought_close:
        close = raw.find(THINK_CLOSE, end) + len(THINK_CLOSE)
        spans.append(Span("think", start, close))
        return close
    if mark in (THINK_OPEN, THINK_CLOSE):
        spans.append(Span("text", start, end))
        return end
    spans.append(Span("end", start, end))
    if end < len(raw):
        spans.append(Span("text", end, len(raw)))
    return len(raw)


def _take_call(raw: str, tag_start: int, body_start: int, spans: list[Span]) -> int:
    spans.append(Span("tag", tag_start, body_start))
    values: list[Any] = []
    position = _skip_space(raw, body_start)
    problem: str | None = None
    while position < len(raw) and not _AFTER_BODY.match(raw, position):
        if values and raw[position] not in "{[":
            break
        outcome = read_json(raw, position)
        if isinstance(outcome, str):
            problem = outcome
            break
        values.append(outcome[0])
        position = _skip_space(raw, outcome[1])
    if not values and problem is None:
        problem = "nothing between the tags"
    following = _AFTER_BODY.match(raw, position)
    if problem is None and (following or position >= len(raw)):
        return _close(raw, body_start, position, CallBody(tuple(values), False, None), spans)
    stop = _AFTER_BODY.search(raw, position)
    if problem is None and not (stop and stop.group() == CLOSE_TAG):
        # A whole call, never closed, then words: the call was made, and the words are after it.
        spans.append(Span("call", body_start, position, CallBody(tuple(values), False, None)))
        if len(raw) - position < len(CLOSE_TAG) and CLOSE_TAG.startswith(raw[position:]):
            # No words: the completion was cut inside the closing tag.
            spans.append(Span("tag", position, len(raw)))
            return len(raw)
        return position
    problem = problem or "more than JSON between the tags"
    return _close(raw, body_start, stop.start() if stop else len(raw), CallBody((), False, problem), spans)


def _close(raw: str, start: int, end: int, body: CallBody, spans: list[Span]) -> int:
    """Append the body and, where it follows, its closing tag."""
    closed = raw.startswith(CLOSE_TAG, end)
    spans.append(Span("call", start, end, CallBody(body.values, closed, body.problem)))
    if closed:
        spans.append(Span("tag", end, end + len(CLOSE_TAG)))
        return end + len(CLOSE_TAG)
    return end


def _skip_space(raw: str, position: int) -> int:
    match = _SPACE.match(raw, position)
    return match.end() if match else position

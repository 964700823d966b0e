"""When a text or an argument repeats itself: the defect that made v2's arguments run until the token limit.

Three rules, each measured on the real arguments of the shared sessions (docs/reference/completions.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

MAX_EQUAL_LINES = 3
MAX_REPEATED_4GRAM_RATIO = 0.5
# Shorter texts reach any share by chance: `a b a b a b a` has four 4-grams, two of them new.
MIN_4GRAMS = 16
MAX_REPEATED_ITEMS_RATIO = 0.5
_MIN_ITEMS = 8
_TAIL_CHARACTERS = 2_000
_MIN_PERIODS = 4
# Where the completion was cut; where it ended by itself, a ruler or a table's edge may be as long.
_MIN_PERIODIC_CHARACTERS = 80
_LONG_PERIODIC_CHARACTERS = 400


def repetition_in(text: str) -> str | None:
    """Return how a text repeats itself, or None.

    The same non-empty line more than three times in a row (blank lines between and other spacing do not interrupt),
    more than half of its word 4-grams seen before in it, or an end of 400 characters or more with one period.
    """
    run = longest_line_run(text)
    if run > MAX_EQUAL_LINES:
        return f"the same line {run} times in a row"
    words = text.split()
    ratio = repeated_4gram_ratio(words) if len(words) - 3 >= MIN_4GRAMS else 0.0
    if ratio > MAX_REPEATED_4GRAM_RATIO:
        return f"{ratio:.2f} of its 4-grams are repeats"
    return periodic_tail(text, _LONG_PERIODIC_CHARACTERS)


def longest_line_run(text: str) -> int:
    """Return how often the most repeated non-empty line stands in a row.

    Spacing does not make a line another one, except where it is nesting: a line without a letter or digit (a closing
    bracket), or one whose indentation only grows or only shrinks from line to line, as `</div>` does.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    longest = 0
    for words, group in groupby(lines, key=str.split):
        run = list(group)
        if _is_nesting(words, run):
            longest = max(longest, *(len(list(equal)) for _, equal in groupby(run)))
        else:
            longest = max(longest, len(run))
    return longest


def _is_nesting(words: list[str], run: list[str]) -> bool:
    """Return whether lines of the same words may well stand below each other at different indentations."""
    if not any(char.isalnum() for word in words for char in word):
        return True
    indents = [len(line) - len(line.lstrip()) for line in run]
    return {(right > left) - (right < left) for left, right in pairwise(indents)} in ({1}, {-1})


def repeated_4gram_ratio(words: list[str]) -> float:
    """Return the share of word 4-grams that occurred before in the same text, 0 to 1."""
    count = len(words) - 3
    if count < 1:
        return 0.0
    distinct = {tuple(words[index : index + 4]) for index in range(count)}
    return 1.0 - len(distinct) / count


def periodic_tail(text: str, at_least: int = _MIN_PERIODIC_CHARACTERS) -> str | None:
    """Return how the end of a text repeats with one period, in that many characters or more; else None.

    The period comes from the failure function of the reversed tail (Knuth, Morris, Pratt), so no length is guessed.
    """
    if len(text) < at_least:
        return None
    tail = text[-_TAIL_CHARACTERS:][::-1]
    failure = [0] * len(tail)
    best: tuple[int, int] | None = None
    for index in range(1, len(tail)):
        matched = failure[index - 1]
        while matched and tail[index] != tail[matched]:
            matched = failure[matched - 1]
        failure[index] = matched + 1 if tail[index] == tail[matched] else 0
        period, length = index + 1 - failure[index], index + 1
        if length >= at_least and length >= _MIN_PERIODS * period:
            best = (period, length)
    return f"its last {best[1]} characters repeat every {best[0]}" if best else None


def repetition_in_arguments(arguments: Any) -> str | None:
    """Return how any text inside a call's arguments repeats itself, or how often a list says the same, or None."""
    for text in iterate_texts(arguments):
        found = repetition_in(text)
        if found:
            return found
    return next(filter(None, map(_repetition_in_list, _iterate_lists(arguments))), None)


def _repetition_in_list(items: list[Any]) -> str | None:
    """Return how a list says the same: an item more than three times in a row, or more than half of many said before."""
    # Numbers, flags and blanks repeat in honest lists.
    said = [json.dumps(item, sort_keys=True) for item in items if isinstance(item, str | list | dict) and item]
    run = max((len(list(equal)) for _, equal in groupby(said)), default=0)
    if run > MAX_EQUAL_LINES:
        return f"the same item {run} times in a row"
    if len(said) >= _MIN_ITEMS and len(set(said)) < (1 - MAX_REPEATED_ITEMS_RATIO) * len(said):
        return f"{len(said) - len(set(said))} of {len(said)} items are repeats"
    return None


def iterate_texts(value: Any) -> list[str]:
    """Return every string value inside a JSON value, depth first."""
    return [item for item in _iterate(value) if isinstance(item, str)]


def _iterate_lists(value: Any) -> list[list[Any]]:
    return [item for item in _iterate(value) if isinstance(item, list)]


def _iterate(value: Any) -> Iterator[Any]:
    """Yield every value inside a JSON value, depth first, without recursion (a model may nest deeply)."""
    pending = [value]
    while pending:
        item = pending.pop()
        yield item
        if isinstance(item, dict):
            pending.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            pending.extend(reversed(item))

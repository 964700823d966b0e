"""When an argument repeats itself: the defect that made v2's arguments run until the token limit.

Three rules, each measured on the real arguments of the shared sessions (docs/reference/completions.md).
"""

from __future__ import annotations

from typing import Any

MAX_EQUAL_LINES = 3
MAX_REPEATED_4GRAM_RATIO = 0.5
# Shorter texts reach any share by chance: `a b a b a b a` has four 4-grams, two of them new.
MIN_4GRAMS = 16
_TAIL_CHARACTERS = 2_000
_MIN_PERIODS = 4
_MIN_PERIODIC_CHARACTERS = 80


def repetition_in(text: str) -> str | None:
    """Return how a text repeats itself, or None.

    The same non-empty line more than three times in a row (blank lines between do not interrupt), or more than half
    of its word 4-grams seen before in it.
    """
    run = longest_line_run(text)
    if run > MAX_EQUAL_LINES:
        return f"the same line {run} times in a row"
    words = text.split()
    if len(words) - 3 < MIN_4GRAMS:
        return None
    ratio = repeated_4gram_ratio(words)
    return f"{ratio:.2f} of its 4-grams are repeats" if ratio > MAX_REPEATED_4GRAM_RATIO else None


def longest_line_run(text: str) -> int:
    """Return how often the most repeated non-empty line stands in a row."""
    longest = run = 0
    previous: str | None = None
    for line in text.splitlines():
        line = line.rstrip()
        if not line.strip():
            continue
        run = run + 1 if line == previous else 1
        previous = line
        longest = max(longest, run)
    return longest


def repeated_4gram_ratio(words: list[str]) -> float:
    """Return the share of word 4-grams that occurred before in the same text, 0 to 1."""
    count = len(words) - 3
    if count < 1:
        return 0.0
    distinct = {tuple(words[index : index + 4]) for index in range(count)}
    return 1.0 - len(distinct) / count


def periodic_tail(text: str) -> str | None:
    """Return how the end of a text repeats with one period, or None; asked only where the token limit was reached.

    The period comes from the failure function of the reversed tail (Knuth, Morris, Pratt), so no length is guessed.
    """
    tail = text[-_TAIL_CHARACTERS:][::-1]
    failure = [0] * len(tail)
    best: tuple[int, int] | None = None
    for index in range(1, len(tail)):
        matched = failure[index - 1]
        while matched and tail[index] != tail[matched]:
            matched = failure[matched - 1]
        failure[index] = matched + 1 if tail[index] == tail[matched] else 0
        period, length = index + 1 - failure[index], index + 1
        if length >= _MIN_PERIODIC_CHARACTERS and length >= _MIN_PERIODS * period:
            best = (period, length)
    return f"its last {best[1]} characters repeat every {best[0]}" if best else None


def repetition_in_arguments(arguments: Any) -> str | None:
    """Return how any text inside a call's arguments repeats itself, or None."""
    for text in iterate_texts(arguments):
        found = repetition_in(text)
        if found:
            return found
    return None


def iterate_texts(value: Any) -> list[str]:
    """Return every string value inside a JSON value, depth first, without recursion (a model may nest deeply)."""
    texts: list[str] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, dict):
            pending.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            pending.extend(reversed(item))
    return texts

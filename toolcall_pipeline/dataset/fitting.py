"""Make drafts fit the longest row: old tool output is shortened in the middle, a supervised turn is never cut.

An episode that is still too long becomes several rows. Each begins with the prompt and says how many steps before it
are left out, so that no later call is shown as a first reaction; every turn is supervised in one of them at most.
Lengths here are characters; `encoding.py` measures tokens and asks again with a smaller budget where they do not fit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from toolcall_pipeline.dataset.drafts import Draft, DraftCall, DraftStep

MIN_RESULT_CHARACTERS = 400
"""A tool result is never shortened below this; the row is split instead."""
_TURN_OVERHEAD_CHARACTERS = 40
_MAX_PROMPT_RATIO = 0.4
_MAX_CONTEXT_RATIO = 0.35


@dataclass(frozen=True)
class FittedRow:
    """The part of a draft that makes one row.

    Attributes:
        start, stop: The turns it is about, by number in the draft; those before `start` are context.
        prompt: The typed prompt, with a note of what is left out in later rows.
        steps: Turns with shortened results.
        context_steps: How many of the first `steps` only repeat the row before as context.
        shortened_results: How many results lost their middle.
    """

    start: int
    stop: int
    prompt: str
    steps: list[DraftStep]
    context_steps: int
    shortened_results: int


def shorten_middle(text: str, limit: int) -> str:
    """Return a text of at most about `limit` characters: its head and tail, and how much is left out between."""
    if len(text) <= limit:
        return text
    head = (limit * 2) // 3
    tail = limit - head
    left_out = len(text) - head - tail
    return f"{text[:head]}\n[… {left_out} characters left out …]\n{text[len(text) - tail :]}"


def turn_characters(step: DraftStep) -> int:
    """Return the length of what the assistant wrote in a turn."""
    return len(step.content) + sum(
        len(json.dumps(call.arguments, ensure_ascii=False)) + len(call.name) + _TURN_OVERHEAD_CHARACTERS
        for call in step.calls
    )


def turn_sizes(draft: Draft) -> list[int]:
    """Return the characters that each turn takes in a row, without its results."""
    return [turn_characters(step) + _TURN_OVERHEAD_CHARACTERS * (1 + len(step.calls)) for step in draft.steps]


def fit(
    draft: Draft,
    sizes: Sequence[int],
    *,
    fixed_characters: int,
    budget_characters: int,
    start: int = 0,
    stop: int | None = None,
) -> tuple[list[FittedRow], int]:
    """Split a draft, or some turns of it, into rows that fit.

    Args:
        draft: The episode.
        sizes: Its `turn_sizes`.
        fixed_characters: System message and tools.
        budget_characters: Of a whole row.
        start: The first turn that rows are wanted for.
        stop: The turn after the last one; None for all.

    Returns:
        The rows, and how many turns are too long for any row (left out, with everything after them in that row).
    """
    room = budget_characters - fixed_characters
    prompt = shorten_middle(draft.prompt, max(200, int(room * _MAX_PROMPT_RATIO)))
    room -= len(prompt) + 2 * _TURN_OVERHEAD_CHARACTERS
    stop = len(draft.steps) if stop is None else stop
    least = [
        size + sum(min(len(call.result), MIN_RESULT_CHARACTERS) for call in step.calls)
        for size, step in zip(sizes[:stop], draft.steps[:stop], strict=True)
    ]
    rows: list[FittedRow] = []
    too_long = 0
    while start < stop:
        available = room - len(_note(start))
        if least[start] > available:
            too_long += 1
            start += 1
            continue
        first = start
        context = 0
        while first and context + least[first - 1] <= min(available * _MAX_CONTEXT_RATIO, available - least[start]):
            context += least[first - 1]
            first -= 1
        used = context
        end = start
        while end < stop and used + least[end] <= available:
            used += least[end]
            end += 1
        steps, shortened = _share_out(draft.steps[first:end], available - sum(sizes[first:end]))
        rows.append(FittedRow(start, end, prompt + _note(first), steps, start - first, shortened))
        start = end
    return rows, too_long


def _note(left_out: int) -> str:
    return f"\n\n[{left_out} earlier steps of this task are left out here.]" if left_out else ""


def _share_out(steps: list[DraftStep], characters: int) -> tuple[list[DraftStep], int]:
    """Shorten results to a common limit so that they fit; the newest keeps its length where the older ones can pay."""
    lengths = [len(call.result) for step in steps for call in step.calls]
    if sum(lengths) <= characters:
        return steps, 0
    older = lengths[:-1]
    least = sum(min(length, MIN_RESULT_CHARACTERS) for length in older)
    newest = min(lengths[-1], max(MIN_RESULT_CHARACTERS, characters // 3), characters - least)
    limit = max(MIN_RESULT_CHARACTERS, _level(older, characters - newest))
    newest = max(newest, characters - sum(min(length, limit) for length in older))
    limits = [limit] * len(older) + [newest]
    shortened = sum(length > most for length, most in zip(lengths, limits, strict=True))
    position = iter(limits)
    return [
        DraftStep(
            step.content,
            [
                DraftCall(call.name, call.arguments, call.event_id, shorten_middle(call.result, next(position)))
                for call in step.calls
            ],
            step.reason,
        )
        for step in steps
    ], shortened


def _level(lengths: list[int], total: int) -> int:
    """Return the largest limit under which the lengths, each cut to it, sum to at most `total`."""
    remaining, count = total, len(lengths)
    for length in sorted(lengths):
        if length * count > remaining:
            return max(0, remaining // count)
        remaining -= length
        count -= 1
    return max(lengths, default=0)

"""Shares and caps: met by leaving turns unsupervised and by repeating conclusions, never by throwing episodes away.

All counts are of supervised turns. Which turn of a category stays supervised is decided by a hash of its identity, so
that the same turns stay chosen while the corpus grows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.dataset.drafts import category
from toolcall_pipeline.dataset.rows import Message

MAX_REPEATS = 2
"""A concluding episode is repeated at most this often (spec 3, item 6)."""
TEXT_AFTER_TOOL = "text_after_tool"
TEXT = "text"
LEAST_TEXT_RATIO = 0.16
"""Below this share of conclusions calls are left unsupervised; the gate's limit is 0.15."""


@dataclass(slots=True)
class Turn:
    """An assistant turn that may be supervised: where it stands, its cap key."""

    row_id: str
    step: int
    category: str
    supervised: bool = True


@dataclass
class Selection:
    """What was chosen.

    Attributes:
        repeats: Row id to how many further times its conclusion is trained.
        capped: Category to turns left unsupervised for the cap.
        conclusions_left_out: Conclusions left unsupervised because there were too many.
        level: Largest number of supervised turns a category may have.
    """

    repeats: dict[str, int] = field(default_factory=dict)
    capped: Counter[str] = field(default_factory=Counter)
    conclusions_left_out: int = 0
    level: int = 0


def message_category(message: Message, *, after_tool: bool) -> str:
    """Return the cap key of an assistant turn: its first call's, else `text_after_tool` or `text`."""
    if message.tool_calls:
        return category(message.tool_calls[0].name, message.tool_calls[0].arguments)
    return TEXT_AFTER_TOOL if after_tool else TEXT


def supervised_categories(messages: Sequence[Message]) -> list[str]:
    """Return the cap keys of a row's supervised turns, in order."""
    return [
        message_category(message, after_tool=index > 0 and messages[index - 1].role == "tool")
        for index, message in enumerate(messages)
        if message.role == "assistant" and message.supervised
    ]


def choose_supervised(
    turns: Iterable[Turn], *, max_category_ratio: float, text_after_tool_ratio: float, seed: int
) -> Selection:
    """Decide which turns are supervised and which conclusions are repeated; sets `supervised` in place.

    Args:
        turns: All turns that may be supervised, of training rows.
        max_category_ratio: No category above this share of supervised turns.
        text_after_tool_ratio: Share of conclusions aimed at.
        seed: Of the order in which turns are left out.

    Returns:
        Repeats and what was left out. Where the corpus cannot meet a share at all (one tool only), the nearest is
        chosen and the gates say so.
    """
    by_category: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        by_category[turn.category].append(turn)
    for members in by_category.values():
        members.sort(key=lambda turn: sha256_text(f"{seed}\0{turn.row_id}\0{turn.step}"))
    conclusions = by_category.pop(TEXT_AFTER_TOOL, [])
    counts = {name: len(members) for name, members in by_category.items()}
    wanted, level = _balance(counts, len(conclusions), max_category_ratio, text_after_tool_ratio)
    selection = Selection(level=level)
    for name, members in by_category.items():
        for turn in members[level:]:
            turn.supervised = False
        if len(members) > level:
            selection.capped[name] = len(members) - level
    for turn in conclusions[wanted:]:
        turn.supervised = False
    selection.conclusions_left_out = max(0, len(conclusions) - wanted)
    for extra in range(max(0, wanted - len(conclusions))):
        row_id = conclusions[extra % len(conclusions)].row_id
        selection.repeats[row_id] = selection.repeats.get(row_id, 0) + 1
    return selection


def _balance(counts: dict[str, int], conclusions: int, cap: float, aim: float) -> tuple[int, int]:
    """Return how often conclusions are trained in all, and the most turns of one category."""
    most = conclusions * (1 + MAX_REPEATS)
    level = max(counts.values(), default=0)
    texts = conclusions
    for _ in range(60):
        level = _cap_level(counts, texts, cap)
        calls = sum(min(count, level) for count in counts.values())
        wanted = min(most, round(aim / (1 - aim) * calls))
        if wanted == texts:
            break
        texts = wanted
    calls = sum(min(count, level) for count in counts.values())
    if conclusions and texts < LEAST_TEXT_RATIO * (texts + calls):
        allowed = int(texts * (1 - LEAST_TEXT_RATIO) / LEAST_TEXT_RATIO)
        level = min(_level_for_total(counts, allowed), _cap_level(counts, texts, cap))
    while level > 1 and level > cap * (texts + sum(min(count, level) for count in counts.values())):
        level -= 1
    return texts, level


def _cap_level(counts: dict[str, int], texts: int, cap: float) -> int:
    """Return the largest level at which no category, cut to it, exceeds the cap."""
    low, high = 0, max(counts.values(), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        total = texts + sum(min(count, middle) for count in counts.values())
        # The share of the largest category falls as its level does, so that the level can be searched by halves.
        if min(middle, max(counts.values())) <= cap * total:
            low = middle
        else:
            high = middle - 1
    return low


def _level_for_total(counts: dict[str, int], total: int) -> int:
    """Return the largest level at which the categories, cut to it, sum to at most `total`."""
    low, high = 0, max(counts.values(), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(count, middle) for count in counts.values()) <= total:
            low = middle
        else:
            high = middle - 1
    return low

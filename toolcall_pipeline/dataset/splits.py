"""Training or validation, by session family, and stable: a family stays on its side while the corpus grows.

A family's place on the line from 0 to 1 is a hash of its id. New families below the threshold go to validation; those
that were placed by an earlier dataset stay. Families that merge across the split go to validation, and are retired:
what once trained is no question any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.dataset.suite_protocol import ValidationNeeds

TRAIN = "train"
VALID = "valid"


@dataclass(frozen=True, slots=True)
class FamilyCounts:
    """What a family would bring to validation."""

    family_id: str
    session_ids: frozenset[str]
    call_turns: int
    conclusions: int


@dataclass(frozen=True)
class Splits:
    """Where every family stands.

    Attributes:
        families: Family id to `train` or `valid`.
        sessions: Session id to its side; what the next dataset recognises merged families by.
        retired: Families in validation of which some session ever trained; sorted.
        trained_sessions: Sessions that stand, or ever stood, in training; sorted.
        ratio: Share of families in validation.
        needs_met: Whether validation holds what the suites need.
    """

    families: dict[str, str]
    sessions: dict[str, str]
    retired: list[str] = field(default_factory=list)
    trained_sessions: list[str] = field(default_factory=list)
    ratio: float = 0.0
    needs_met: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the form on disk."""
        return {
            "families": dict(sorted(self.families.items())),
            "sessions": dict(sorted(self.sessions.items())),
            "retired": self.retired,
            "trained_sessions": self.trained_sessions,
            "ratio": self.ratio,
            "needs_met": self.needs_met,
        }


def place(family_id: str) -> float:
    """Return a family's fixed place in [0, 1)."""
    return int(sha256_text(f"split\0{family_id}")[:13], 16) / 16**13


def split_families(
    families: Iterable[FamilyCounts],
    *,
    least_ratio: float,
    needs: ValidationNeeds,
    previous: Mapping[str, Any] | None = None,
    asked_sessions: frozenset[str] = frozenset(),
) -> Splits:
    """Put every family on a side.

    Args:
        families: All families with what they would bring.
        least_ratio: Share of families in validation, at least.
        needs: What validation has to hold; more families follow until it does, up to half of them.
        previous: `Splits.as_json()` of the dataset before, or None.
        asked_sessions: Sessions that a frozen suite asks about; their families are in validation.

    Returns:
        The sides. `needs_met` is False where even half of the families do not fill the suites.
    """
    ordered = sorted(families, key=lambda family: (place(family.family_id), family.family_id))
    before: Mapping[str, str] = (previous or {}).get("sessions", {})
    ever_trained = set((previous or {}).get("trained_sessions", ()))
    sides: dict[str, str] = {}
    retired = set()
    for family in ordered:
        known = {before[session] for session in family.session_ids if session in before}
        if family.session_ids & asked_sessions:
            sides[family.family_id] = VALID
        elif known:
            sides[family.family_id] = VALID if VALID in known else TRAIN
        if sides.get(family.family_id) == VALID and family.session_ids & ever_trained:
            retired.add(family.family_id)
    usable = [family for family in ordered if sides.get(family.family_id) == VALID and family.family_id not in retired]
    calls = sum(family.call_turns for family in usable)
    conclusions = sum(family.conclusions for family in usable)
    count = sum(side == VALID for side in sides.values())
    least = -(-len(ordered) * least_ratio // 1)
    met = calls >= needs.call_turns and conclusions >= needs.conclusions
    for family in ordered:
        if (met and count >= least) or count >= max(1, len(ordered) // 2):
            break
        if family.family_id in sides:
            continue
        sides[family.family_id] = VALID
        count += 1
        calls += family.call_turns
        conclusions += family.conclusions
        met = calls >= needs.call_turns and conclusions >= needs.conclusions
    families_by_side = {family.family_id: sides.get(family.family_id, TRAIN) for family in ordered}
    sessions = {session: families_by_side[family.family_id] for family in ordered for session in family.session_ids}
    trained = ever_trained | {session for session, side in sessions.items() if side == TRAIN}
    return Splits(
        families_by_side,
        {**before, **sessions},
        sorted(retired),
        sorted(trained),
        round(count / len(ordered), 6) if ordered else 0.0,
        met,
    )


def family_counts(rows: Iterable[tuple[str, str, int, int]]) -> list[FamilyCounts]:
    """Sum (family id, session id, call turns, conclusions) per family."""
    sessions: dict[str, set[str]] = defaultdict(set)
    calls: dict[str, int] = defaultdict(int)
    conclusions: dict[str, int] = defaultdict(int)
    for family, session, call_turns, concluding in rows:
        sessions[family].add(session)
        calls[family] += call_turns
        conclusions[family] += concluding
    return [
        FamilyCounts(family, frozenset(members), calls[family], conclusions[family])
        for family, members in sessions.items()
    ]

"""Which candidates become rows, on which side, with which turns supervised: all choices that need the whole corpus."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.dataset import recipe_v2
from toolcall_pipeline.dataset.corpus import Candidate, project_of
from toolcall_pipeline.dataset.decontamination import Grams, NearDuplicates, SuitePrompts, boilerplate
from toolcall_pipeline.dataset.shares import TEXT, TEXT_AFTER_TOOL, Selection, Turn, choose_supervised
from toolcall_pipeline.dataset.splits import TRAIN, VALID, Splits, family_counts, split_families
from toolcall_pipeline.dataset.suite_protocol import ValidationNeeds
from toolcall_pipeline.presets import DatasetConfiguration


@dataclass
class Sides:
    """Candidates on their sides, before the shares.

    Attributes:
        drops: Why candidates are on neither side.
        ignored_grams: Boilerplate, left out of decontamination.
    """

    train: list[Candidate]
    valid: list[Candidate]
    splits: Splits
    ignored_grams: Grams
    drops: Counter[str] = field(default_factory=Counter)


def split_candidates(
    candidates: list[Candidate],
    configuration: DatasetConfiguration,
    needs: ValidationNeeds,
    previous: dict[str, Any] | None,
    asked_sessions: frozenset[str] = frozenset(),
) -> Sides:
    """Put every candidate on its side, stable by family (recipe v2: by session)."""
    drops: Counter[str] = Counter()
    is_v2 = configuration.recipe == "v2"
    if is_v2:
        candidates, short = recipe_v2.drop_short_sessions(candidates)
        drops["session_with_fewer_than_two_rows"] += short
        candidates, capped = recipe_v2.cap_categories(
            candidates, max_category_ratio=configuration.max_category_ratio, seed=configuration.seed
        )
        drops["category_cap"] += sum(capped.values())

    def unit(candidate: Candidate) -> str:
        return candidate.source.session_id if is_v2 else candidate.source.family_id

    splits = split_families(
        family_counts(
            (unit(candidate), candidate.source.session_id, candidate.call_turns, candidate.conclusions)
            for candidate in candidates
        ),
        least_ratio=configuration.validation_family_ratio,
        needs=ValidationNeeds(0, 0) if is_v2 else needs,
        previous=previous,
        asked_sessions=asked_sessions,
    )
    sides: dict[str, list[Candidate]] = {TRAIN: [], VALID: []}
    for candidate in candidates:
        sides[splits.families[unit(candidate)]].append(candidate)
    prints = ((candidate.source.family_id, candidate.prompt_print) for candidate in candidates)
    return Sides(sides[TRAIN], sides[VALID], splits, boilerplate(prints), drops)


def decontaminate(sides: Sides, prompts: dict[str, list[str]]) -> dict[str, int]:
    """Leave out training rows that share a typed 13-gram with a suite; return how many, by suite."""
    found: Counter[str] = Counter()
    suites = {suite: SuitePrompts(texts, sides.ignored_grams) for suite, texts in sorted(prompts.items())}
    kept = []
    for candidate in sides.train:
        hits = [suite for suite, known in suites.items() if known.shares_with(candidate.prompt_print)]
        found.update(hits)
        if not hits:
            kept.append(candidate)
    sides.drops["shares_prompt_with_suite"] += len(sides.train) - len(kept)
    sides.train = kept
    return dict(sorted(found.items()))


def drop_near_duplicates(sides: Sides) -> None:
    """Leave out training rows that nearly equal a validation row."""
    index = NearDuplicates()
    for candidate in sides.valid:
        index.add(candidate.row_id, candidate.sketch)
    kept = [candidate for candidate in sides.train if not index.is_near(candidate.sketch)]
    sides.drops["near_duplicate_of_validation"] += len(sides.train) - len(kept)
    sides.train = kept


def choose_rows(sides: Sides, configuration: DatasetConfiguration) -> Selection:
    """Meet the shares on the training side; sets turns, repeats rows, orders both sides by seed."""
    seed = configuration.seed
    sides.train.sort(key=lambda row: _order(seed, row))
    sides.valid.sort(key=lambda row: _order(seed, row))
    if configuration.max_training_rows is not None:
        sides.drops["over_max_training_rows"] += max(0, len(sides.train) - configuration.max_training_rows)
        sides.train = sides.train[: configuration.max_training_rows]
    if configuration.recipe == "v2":
        return Selection()
    sides.train.extend(list(_oversampled(sides.train, configuration.oversample_projects)))
    selection = choose_supervised(
        [turn for candidate in sides.train for turn in candidate.turns],
        max_category_ratio=configuration.max_category_ratio,
        text_after_tool_ratio=configuration.text_after_tool_ratio,
        seed=seed,
    )
    sides.train.extend(list(_repeats(sides.train, selection)))
    kept = [candidate for candidate in sides.train if any(turn.supervised for turn in candidate.turns)]
    sides.drops["no_turn_left_after_shares"] += len(sides.train) - len(kept)
    sides.train = sorted(kept, key=lambda row: _order(seed, row))
    return selection


def _order(seed: int, candidate: Candidate) -> str:
    return sha256_text(f"{seed}\0order\0{candidate.row_id}\0{candidate.repeat}")


def _oversampled(candidates: Sequence[Candidate], times: Mapping[str, int]) -> Iterator[Candidate]:
    """Yield further rows of the projects that are to weigh more; shares and caps count them like any other."""
    for candidate in candidates:
        for number in range(1, times.get(project_of(candidate), 1)):
            again = copy.copy(candidate)
            again.row_id = f"{candidate.row_id}~project{number}"
            again.turns = [Turn(again.row_id, turn.step, turn.category) for turn in candidate.turns]
            yield again


def _repeats(candidates: Sequence[Candidate], selection: Selection) -> Iterator[Candidate]:
    """Yield further rows of concluding episodes, in which only the conclusion is supervised."""
    for candidate in candidates:
        for number in range(1, selection.repeats.get(candidate.row_id, 0) + 1):
            again = copy.copy(candidate)
            again.repeat = number
            again.turns = [
                Turn(turn.row_id, turn.step, turn.category)
                for turn in candidate.turns
                if turn.category == TEXT_AFTER_TOOL and turn.supervised
            ]
            yield again


@dataclass(frozen=True)
class SideFigures:
    """Counts of one side, by supervised turns."""

    rows: int
    families: int
    supervised_turns: int
    supervised_calls_turns: int
    text_after_tool_turns: int
    text_turns: int
    repeated_rows: int
    more_than_one_tool_fits_ratio: float
    categories: dict[str, int]
    projects: dict[str, int]

    @property
    def text_after_tool_ratio(self) -> float:
        """Return the share of conclusions."""
        return self.text_after_tool_turns / self.supervised_turns if self.supervised_turns else 0.0

    @property
    def largest_category(self) -> tuple[str, float]:
        """Return the largest category of calls and its share."""
        calls = {name: count for name, count in self.categories.items() if name not in {TEXT, TEXT_AFTER_TOOL}}
        if not calls:
            return "", 0.0
        name = max(sorted(calls), key=lambda key: calls[key])
        return name, calls[name] / self.supervised_turns


def figures(candidates: Sequence[Candidate]) -> SideFigures:
    """Count one side."""
    categories: Counter[str] = Counter()
    projects: Counter[str] = Counter()
    for candidate in candidates:
        chosen = [turn.category for turn in candidate.turns if turn.supervised]
        categories.update(chosen)
        projects[project_of(candidate)] += len(chosen)
    total = sum(categories.values())
    texts = categories[TEXT_AFTER_TOOL] + categories[TEXT]
    return SideFigures(
        rows=len(candidates),
        families=len({candidate.source.family_id for candidate in candidates}),
        supervised_turns=total,
        supervised_calls_turns=total - texts,
        text_after_tool_turns=categories[TEXT_AFTER_TOOL],
        text_turns=categories[TEXT],
        repeated_rows=sum(candidate.repeat > 0 for candidate in candidates),
        more_than_one_tool_fits_ratio=(
            sum(candidate.more_tools_fit for candidate in candidates) / len(candidates) if candidates else 0.0
        ),
        categories=dict(sorted(categories.items(), key=lambda item: (-item[1], item[0]))),
        projects=dict(sorted(projects.items(), key=lambda item: (-item[1], item[0]))),
    )

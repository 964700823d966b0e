"""What the gates on `eval_reports` look at, and how they count it.

Names of measures: docs/reference/suites.md. A measure that is absent does not apply to its case and is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

from toolcall_pipeline.evaluation.cases import CaseResult, SuiteRun
from toolcall_pipeline.gates.comparison import (
    RECALL_COMPARED_FROM_N,
    RECALL_SUITE,
    SuiteComparison,
    compare_runs,
)
from toolcall_pipeline.gates.statistics import Outcome
from toolcall_pipeline.presets import EvaluationConfiguration


class Agreement(BaseModel):
    """One case run in-process and through a llama.cpp server."""

    model_config = ConfigDict(frozen=True, extra="allow")

    suite: str
    case_id: str
    cluster_id: str
    agrees: bool


@dataclass(frozen=True)
class Evidence:
    """Everything the gates on `eval_reports` are judged from.

    Attributes:
        candidate: The judged model, decoded freely.
        reference: Production, or the base where nothing is in production; None where neither was measured.
        reference_name: Which of the two.
        agreement: Same cases through both harnesses; empty where the server was not asked.
        is_reduced: Fewer cases or suites were run than the frozen suite has; that never ships.
    """

    candidate: SuiteRun
    reference: SuiteRun | None
    reference_name: Literal["base", "production"]
    agreement: tuple[Agreement, ...] = ()
    is_reduced: bool = False

    def results(self, *suites: str, stratum: str | None = None) -> list[CaseResult]:
        """Return the candidate's results of some suites (all that gates count where none is named), or of one stratum."""
        return [
            result
            for result in gated(self.candidate.results)
            if (not suites or result.suite in suites) and (stratum is None or result.stratum == stratum)
        ]

    def reference_results(self, suite: str) -> list[CaseResult]:
        """Return the reference's results of a suite, none where there is no reference."""
        return [] if self.reference is None else [result for result in self.reference.results if result.suite == suite]

    @property
    def uncompared_suites(self) -> list[str]:
        """Return the suites of which one model met cases and the comparison says nothing; a small E is none of them."""
        reference = () if self.reference is None else gated(self.reference.results)
        met = Counter(result.suite for result in self.results()) | Counter(result.suite for result in reference)
        compared = {item.suite for item in self.comparisons}
        return sorted(
            suite
            for suite, count in met.items()
            if suite not in compared and (suite != RECALL_SUITE or count >= RECALL_COMPARED_FROM_N)
        )

    @cached_property
    def comparisons(self) -> list[SuiteComparison]:
        """Return the paired comparison with the reference, empty where there is none."""
        if self.reference is None:
            return []
        ours, theirs = (
            run.model_copy(update={"results": gated(run.results)}) for run in (self.candidate, self.reference)
        )
        return compare_runs(ours, theirs)


def gated(results: Sequence[CaseResult]) -> tuple[CaseResult, ...]:
    """Return the results that gates count: BFCL is optional, and reported only."""
    return tuple(result for result in results if result.suite != "BFCL")


def passes(results: Sequence[CaseResult]) -> list[Outcome]:
    """Return whether each case passed."""
    return [(result.cluster_id, result.passed) for result in results]


def flags(results: Sequence[CaseResult], measure: str) -> list[Outcome]:
    """Return whether a measure is true, or above zero, in each case it applies to."""
    return where(results, measure, bool)


def where(results: Sequence[CaseResult], measure: str, happened: Callable[[float], bool]) -> list[Outcome]:
    """Return whether a measure fulfils a condition, in each case it applies to."""
    return [
        (result.cluster_id, happened(value))
        for result in results
        if (value := result.measures.get(measure)) is not None
    ]


def grounded(results: Sequence[CaseResult]) -> dict[str, list[Outcome]]:
    """Return one outcome per path or name used, in arguments and in answers: whether it exists in context or sandbox.

    Arguments in the user's own sessions are a group of their own: a rewritten path of theirs is not made up for by the
    many that our own cases name.
    """
    outcomes: dict[str, list[Outcome]] = {"arguments (A, B)": [], "arguments (C, D, V)": [], "answers": []}
    for result in results:
        found, total, found_in_calls, in_calls = (
            int(result.measures.get(name) or 0)
            for name in ("grounded_found", "grounded_total", "grounded_in_calls_found", "grounded_in_calls_total")
        )
        group = "arguments (A, B)" if result.suite in ("A", "B") else "arguments (C, D, V)"
        outcomes[group] += [(result.cluster_id, index < found_in_calls) for index in range(in_calls)]
        outcomes["answers"] += [
            (result.cluster_id, index < found - found_in_calls) for index in range(total - in_calls)
        ]
    return outcomes


def within_needed(results: Sequence[CaseResult], ratio: float) -> list[Outcome]:
    """Return whether each task took at most `ratio` times the calls it needs."""
    return [
        (result.cluster_id, float(used) <= ratio * float(needed))
        for result in results
        if (used := result.measures.get("calls_used")) is not None
        and (needed := result.measures.get("calls_needed")) is not None
    ]


def exactly_one(results: Sequence[CaseResult]) -> list[Outcome]:
    """Return whether exactly one call was made, in each case that asks for one."""
    return [
        (result.cluster_id, result.measures.get("calls", result.measures.get("calls_used")) == 1)
        for result in results
        if result.measures.get("calls_asked") == 1
    ]


def broken_count(results: Sequence[CaseResult]) -> int:
    """Return how many cases say nothing about the model, since the backend or the sandbox failed."""
    return sum(result.is_broken for result in results)


def is_reduced(configuration: EvaluationConfiguration) -> bool:
    """Return whether a configuration runs fewer cases or suites than the frozen suite has."""
    return configuration.cases_per_suite is not None or not set("ABCDEV") <= set(configuration.suites)

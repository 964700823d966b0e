"""Two models on the same cases: pairing, differences with bounds, exact McNemar with Holm over suites.

A case on which the other model's backend or sandbox broke counts as passed by it: nobody is better by another's errors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.gates.statistics import holm, mcnemar_exact, paired_difference_bounds

RECALL_SUITE = "E"
RECALL_COMPARED_FROM_N = 100
"""Suite E below this many cases is reported, but neither gated nor compared."""


class JudgedCase(Protocol):
    """What a case must tell to be paired: a `CaseResult`, or a case of a results file."""

    @property
    def suite(self) -> str: ...  # noqa: D102
    @property
    def case_id(self) -> str: ...  # noqa: D102
    @property
    def cluster_id(self) -> str: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def passed(self) -> bool: ...  # noqa: D102
    @property
    def is_broken(self) -> bool: ...  # noqa: D102


_Case = TypeVar("_Case", bound=JudgedCase)


@dataclass(frozen=True)
class SuiteComparison:
    """Candidate against another model on one suite.

    Attributes:
        suite: Suite id.
        n: Pairs of the same case and seed.
        unpaired: Cases that only one of the two met; a comparison with any says less than it seems.
        candidate_ratio, other_ratio: Share passed, of the paired cases; what broke counts for the other and not for the
            candidate.
        difference, low, high: Candidate minus other, with one-sided 95 % bounds.
        candidate_only, other_only: Discordant pairs.
        p, p_holm: Exact McNemar, two-sided; adjusted over the suites compared.
    """

    suite: str
    n: int
    unpaired: int
    candidate_ratio: float
    other_ratio: float
    difference: float
    low: float
    high: float
    candidate_only: int
    other_only: int
    p: float
    p_holm: float = 1.0


def compare_runs(candidate: SuiteRun, other: SuiteRun) -> list[SuiteComparison]:
    """Compare two models suite by suite, on the same cases and seeds.

    Returns:
        One comparison per suite that both met, in alphabetical order; suite E only from 100 pairs on.

    Raises:
        UsageError: The two met different suite versions, or one with and one without a grammar.
    """
    if candidate.suite_sha256 != other.suite_sha256:
        raise UsageError(
            f"{candidate.model.name} met suite {candidate.suite_version} ({candidate.suite_sha256[:12]}), "
            f"{other.model.name} met {other.suite_version} ({other.suite_sha256[:12]}). Results of different suite "
            "versions are not compared: measure one of them again."
        )
    if candidate.decoding != other.decoding:
        raise UsageError(
            f"{candidate.model.name} decoded {candidate.decoding}, {other.model.name} {other.decoding}: "
            "constrained and free decoding are never mixed. Compare two runs of the same kind."
        )
    return compare_cases(candidate.results, other.results)


def compare_cases(candidate: Sequence[JudgedCase], other: Sequence[JudgedCase]) -> list[SuiteComparison]:
    """Compare two models' cases of one suite version, paired by case and seed; returns as `compare_runs`."""
    ours, theirs = _by_case(candidate), _by_case(other)
    comparisons = []
    for suite in sorted(set(ours) & set(theirs)):
        shared = sorted(set(ours[suite]) & set(theirs[suite]))
        if not shared or (suite == RECALL_SUITE and len(shared) < RECALL_COMPARED_FROM_N):
            continue
        pairs = [(ours[suite][key], theirs[suite][key]) for key in shared]
        unpaired = len(set(ours[suite]) ^ set(theirs[suite]))
        comparisons.append(_compare_suite(suite, pairs, unpaired))
    adjusted = holm([comparison.p for comparison in comparisons])
    return [replace(comparison, p_holm=p) for comparison, p in zip(comparisons, adjusted, strict=True)]


def _by_case(results: Sequence[_Case]) -> dict[str, dict[tuple[str, int], _Case]]:
    table: dict[str, dict[tuple[str, int], _Case]] = defaultdict(dict)
    for result in results:
        table[result.suite][result.case_id, result.seed] = result
    return table


def _compare_suite(suite: str, pairs: Sequence[tuple[JudgedCase, JudgedCase]], unpaired: int) -> SuiteComparison:
    others = [theirs.passed or theirs.is_broken for _, theirs in pairs]
    differences = [(ours.cluster_id, ours.passed - passed) for (ours, _), passed in zip(pairs, others, strict=True)]
    n = len(pairs)
    low, high = paired_difference_bounds(differences)
    return SuiteComparison(
        suite=suite,
        n=n,
        unpaired=unpaired,
        candidate_ratio=sum(ours.passed for ours, _ in pairs) / n,
        other_ratio=sum(others) / n,
        difference=sum(value for _, value in differences) / n,
        low=low,
        high=high,
        candidate_only=sum(1 for _, value in differences if value > 0),
        other_only=sum(1 for _, value in differences if value < 0),
        p=mcnemar_exact(differences),
    )

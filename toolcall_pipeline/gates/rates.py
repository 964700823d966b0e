"""How a count or a rate becomes a verdict: the pure functions every gate ends in.

Rule of every gate on a rate over evaluated cases: `pass` when the exact bound on the safe side clears the threshold;
`fail` when the rate itself does not; otherwise `inconclusive`, which does not ship and says how many more cases would
decide. Under `smoke` the point value is compared instead (`GateRule.judged_on_point`). Counts and shares of a dataset
are exact and compared directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.gates.profiles import GateRule, Threshold
from toolcall_pipeline.gates.statistics import (
    DRAWN_LEVEL,
    Outcome,
    RateEstimate,
    estimate_rate,
    more_cases_needed,
)
from toolcall_pipeline.gates.verdict import Comparison, GateResult, Interval, Verdict

if TYPE_CHECKING:
    from toolcall_pipeline.evaluation.cases import SuiteRun

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": lambda value, threshold: value == threshold,
    "<=": lambda value, threshold: value <= threshold,
    "<": lambda value, threshold: value < threshold,
    ">=": lambda value, threshold: value >= threshold,
    ">": lambda value, threshold: value > threshold,
}


def clears(value: float, comparison: Comparison, threshold: Threshold) -> bool:
    """Return whether a value clears a threshold; NaN clears nothing."""
    if math.isnan(value):
        return False
    if isinstance(threshold, tuple):
        return threshold[0] <= value <= threshold[1]
    return _COMPARE[comparison](value, threshold)


def result_of(
    rule: GateRule,
    verdict: Verdict,
    *,
    measured: float | None,
    n: int,
    explanation: str,
    how_to_fix: str,
    interval: Interval | None = None,
    details: dict[str, Any] | None = None,
) -> GateResult:
    """Return a verdict under a rule, with what the rule asks beside what was measured."""
    return GateResult(
        gate=rule.gate,
        asset=rule.asset,
        verdict=verdict,
        measured=measured,
        comparison=rule.comparison,
        threshold=rule.threshold,
        unit=rule.unit,
        n=n,
        interval=interval,
        explanation=explanation,
        how_to_fix=how_to_fix,
        details=details or {},
    )


def exact_verdict(
    rule: GateRule,
    *,
    measured: float,
    n: int,
    explanation: str,
    how_to_fix: str,
    details: dict[str, Any] | None = None,
    also: bool = True,
) -> GateResult:
    """Return the verdict of a count or an exact share: pass or fail.

    Args:
        rule: The rule in force.
        measured: What was counted, in the rule's unit; NaN fails.
        n: Lines, rows, tensors ... that were looked at.
        explanation: One sentence of what was found; never session text.
        how_to_fix: What to do about it.
        details: Small tables or samples for the page.
        also: Further conditions of the rule that the measured number does not carry; False fails.
    """
    enough = n >= int(rule.parameters.get("min_n", 0))
    passed = also and enough and clears(float(measured), rule.comparison, rule.threshold)
    return result_of(
        rule,
        Verdict.PASS if passed else Verdict.FAIL,
        measured=None if math.isnan(measured) else float(measured),
        n=n,
        explanation=explanation,
        how_to_fix=how_to_fix,
        details=details,
    )


def rate_verdict(
    rule: GateRule,
    *,
    outcomes: Sequence[Outcome],
    explanation: str,
    how_to_fix: str,
) -> GateResult:
    """Return the verdict of a rate over evaluated cases.

    Args:
        rule: The rule in force; its comparison says which side is safe.
        outcomes: (cluster id, whether the counted thing happened) per case. For `< 0.01` the counted thing is the bad
            event, for `>= 0.60` the good one.
        explanation: One sentence of what is counted; the figures are added.
        how_to_fix: What to do about it; the number of further cases is added where it would decide.
    """
    estimate = estimate_rate(outcomes)
    verdict, advice = judge_estimate(rule, estimate)
    figures = f"{estimate.successes} of {estimate.n} cases" if estimate.n else "nothing was measured"
    return result_of(
        rule,
        verdict,
        measured=None if estimate.n == 0 else estimate.rate,
        n=estimate.n,
        explanation=f"{explanation} ({figures})",
        how_to_fix=f"{advice} {how_to_fix}".strip() if verdict is not Verdict.PASS else how_to_fix,
        interval=interval_of(estimate),
        details={"cluster_count": estimate.cluster_count},
    )


def judge_estimate(rule: GateRule, estimate: RateEstimate, threshold: float | None = None) -> tuple[Verdict, str]:
    """Return the verdict of an estimated rate, and what more would decide it.

    Args:
        rule: Its comparison, threshold and minimum n.
        estimate: The rate with its bounds.
        threshold: Another threshold than the rule's, for a rule of several parts.
    """
    limit = float(rule.threshold) if threshold is None and not isinstance(rule.threshold, tuple) else threshold
    if limit is None:
        raise ValueError(f"Gate {rule.gate}: a rate is compared with one number, not with {rule.threshold!r}.")
    minimum = int(rule.parameters.get("min_n", 1))
    if estimate.n == 0:
        return Verdict.INCONCLUSIVE, "Nothing was measured: run the suites this gate counts."
    if not clears(estimate.rate, rule.comparison, limit):
        return Verdict.FAIL, ""
    if estimate.n < minimum:
        return Verdict.INCONCLUSIVE, f"{minimum - estimate.n} more cases are needed: at least {minimum} are judged."
    if rule.judged_on_point:
        return Verdict.PASS, ""
    lower = rule.comparison in (">=", ">")
    if clears(estimate.low if lower else estimate.high, rule.comparison, limit):
        return Verdict.PASS, ""
    more = more_cases_needed(estimate.rate, estimate.n, estimate.effective_n, limit, lower_bound=lower)
    return Verdict.INCONCLUSIVE, (
        f"About {more:,} more cases would decide at this rate."
        if more
        else "At this rate no number of cases would decide: the rate sits on the threshold."
    )


def interval_of(estimate: RateEstimate) -> Interval | None:
    """Return the interval that is drawn: both one-sided 95 % bounds."""
    if estimate.n == 0:
        return None
    return Interval(low=estimate.low, high=estimate.high, level=DRAWN_LEVEL, method=estimate.method)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of a rule of several parts: the worst of them; no part at all is inconclusive."""
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS if verdicts else Verdict.INCONCLUSIVE


def validator_outcomes(rule: GateRule, run: SuiteRun) -> list[Outcome]:
    """Return what `validator_merged` and `validator_gguf` count: suite D's passes, or under `smoke` its parses."""
    suite = rule.parameters.get("suite", "D")
    counts = rule.parameters.get("counts", "passed")
    return [
        (result.cluster_id, result.passed if counts == "passed" else bool(result.measures.get(counts)))
        for result in run.results
        if result.suite == suite
    ]

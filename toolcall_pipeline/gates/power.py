"""The operating curve of a profile: the chance that a named good model passes all gates together.

Gates must be able to say yes. Runs are drawn from stated true rates (`good_model.py`) and judged by the real gates, so
that nothing about a gate is assumed twice. Command: `gates power`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from toolcall_pipeline.gates.evaluated import judge_evidence
from toolcall_pipeline.gates.evidence import Evidence
from toolcall_pipeline.gates.good_model import (
    BASE_MODEL,
    FULL_SUITES,
    GOOD_MODEL,
    SuiteShape,
    TrueRates,
    draw_agreement,
    draw_run,
)
from toolcall_pipeline.gates.profiles import GateRule, all_rules
from toolcall_pipeline.gates.statistics import clopper_pearson
from toolcall_pipeline.gates.verdict import GateResult, Verdict
from toolcall_pipeline.stage_context import ProgressCallback

DEFAULT_SHIFTS = (-0.15, -0.10, -0.05, 0.0, 0.05)
DEFAULT_RUNS = 40


@dataclass(frozen=True)
class PowerPoint:
    """One point of the curve.

    Attributes:
        shift: Added to every rate of passing a suite (0 is the good model itself).
        together: Share of runs that passed every gate.
        low, high: Exact one-sided 95 % bounds of that share.
        by_gate: Share of runs that passed, by gate.
    """

    shift: float
    together: float
    low: float
    high: float
    by_gate: dict[str, float]


@dataclass(frozen=True)
class PowerReport:
    """The operating curve of a profile.

    Attributes:
        profile: Whose gates.
        model, reference: The stated true rates of the good model and of what it is compared with.
        suites: Sizes and clusters of the suites drawn.
        runs: Runs drawn per point.
        points: By shift, worst model first.
    """

    profile: str
    model: dict[str, Any]
    reference: dict[str, Any]
    suites: list[dict[str, Any]]
    runs: int
    points: list[PowerPoint]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return asdict(self)

    def as_text(self) -> str:
        """Return the curve as a table, and which gates hold the good model back."""
        lines = [
            f"Profile {self.profile}: chance to pass every gate of eval_reports together, {self.runs} runs a point.",
            f"Good model, true rates: {_rates(self.model)}.",
            f"Against, where it differs: {_rates(self.reference, self.model)}.",
            "",
            "  every suite    together   90 % interval     gates that hold most often",
        ]
        for point in self.points:
            held = sorted((share, gate) for gate, share in point.by_gate.items() if share < 1)[:3]
            named = ", ".join(f"{gate} {1 - share:.0%}" for share, gate in held) or "none"
            lines.append(
                f"  {point.shift * 100:+5.0f} points   {point.together:8.2f}   {point.low:.2f} to {point.high:.2f}"
                f"      {named}"
            )
        return "\n".join(lines)


def judge_drawn(
    rules: Sequence[GateRule],
    model: TrueRates,
    seed: int,
    *,
    reference: TrueRates = BASE_MODEL,
    suites: tuple[SuiteShape, ...] = FULL_SUITES,
) -> dict[str, GateResult]:
    """Draw one run of a model and of what it is compared with, and judge it by the real gates, by gate name."""
    evidence = Evidence(
        candidate=draw_run(model, seed, suites=suites),
        reference=draw_run(reference, seed, suites=suites),
        reference_name="base",
        agreement=draw_agreement(model, seed),
    )
    return {rule.gate: judge_evidence(rule, evidence) for rule in rules}


def power_curve(
    profile: str = "ship",
    *,
    shifts: Sequence[float] = DEFAULT_SHIFTS,
    runs: int = DEFAULT_RUNS,
    progress: ProgressCallback | None = None,
) -> PowerReport:
    """Return the chance that a model passes all gates on `eval_reports` together, over a range of qualities.

    Args:
        profile: Whose gates.
        shifts: Added to every rate of passing a suite, one point of the curve each.
        runs: Runs drawn per point.
        progress: Called with (done, total, unit, message).
    """
    rules = [rule for rule in all_rules(profile) if rule.asset == "eval_reports"]
    points = []
    for index, shift in enumerate(sorted(shifts)):
        passed: Counter[str] = Counter()
        together = 0
        for seed in range(runs):
            results = judge_drawn(rules, shifted(GOOD_MODEL, shift), seed)
            good = [gate for gate, result in results.items() if result.verdict is Verdict.PASS]
            passed.update(good)
            together += len(good) == len(rules)
            if progress is not None:
                progress(index * runs + seed + 1, len(shifts) * runs, "runs", f"shift {shift:+.2f}")
        low, high = clopper_pearson(together, runs)
        by_gate = {rule.gate: passed[rule.gate] / runs for rule in rules}
        points.append(PowerPoint(shift, together / runs, low, high, by_gate))
    return PowerReport(
        profile=profile,
        model=_plain(GOOD_MODEL),
        reference=_plain(BASE_MODEL),
        suites=[asdict(shape) for shape in FULL_SUITES],
        runs=runs,
        points=points,
    )


def shifted(model: TrueRates, shift: float) -> TrueRates:
    """Return a model that passes every suite more or less often by `shift`."""
    passed = {key: min(max(rate + shift, 0.0), 1.0) for key, rate in model.passed.items()}
    return replace(model, passed=passed)


def _rates(model: dict[str, Any], but: dict[str, Any] | None = None) -> str:
    """Return a model's rates in words, without those that another has too."""
    passed = {f"{suite} passed": rate for suite, rate in model["passed"].items()}
    others = {
        name.replace("_", " "): value
        for name, value in model.items()
        if name not in ("name", "passed", "calls_used") and (but is None or but[name] != value)
    }
    return ", ".join(f"{name} {rate:g}" for name, rate in (passed | others).items())


def _plain(model: TrueRates) -> dict[str, Any]:
    return {**asdict(model), "passed": dict(model.passed)}

"""A model described by how often it does each thing right, and runs drawn from that description.

The operating curve asks whether the gates can say yes to the good model below; the planted bad models are it with one
thing spoilt. Suite sizes and clusters are those of the full suites.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from toolcall_pipeline.evaluation.cases import CaseResult, ModelIdentity, SuiteId, SuiteRun
from toolcall_pipeline.gates.evidence import Agreement


@dataclass(frozen=True)
class SuiteShape:
    """How many cases a part of a suite has, and how many of them depend on each other.

    Attributes:
        suite, stratum: Which part.
        n: Cases, seeds included.
        cluster_size: Cases of one session, task or prompt.
        correlation: Between two cases of a cluster.
    """

    suite: SuiteId
    stratum: str
    n: int
    cluster_size: int
    correlation: float


FULL_SUITES: tuple[SuiteShape, ...] = (
    SuiteShape("A", "", 400, 4, 0.05),
    SuiteShape("B", "call", 250, 4, 0.05),
    SuiteShape("B", "conclude", 250, 4, 0.05),
    SuiteShape("C", "", 250, 2, 0.5),
    SuiteShape("D", "", 550, 1, 0.0),
    SuiteShape("E", "", 200, 4, 0.05),
    SuiteShape("V", "", 600, 3, 0.3),
)
AGREEMENT_CASES = 200

CALLS_NEEDED = 3
"""Of a task of suite C, as drawn here."""


@dataclass(frozen=True)
class TrueRates:
    """How often a model does what, in truth.

    Attributes:
        name: Of the model.
        passed: By `suite` or `suite:stratum`: how often a case is passed.
        empty_arguments, shape_defects, repetition_defects: Per case, any suite.
        looped, too_soon_c: Per task of C; too_soon_b: per case of B's calling half.
        wrong_action: Per case of B, C and D.
        uses_result: Per case of B's concluding half.
        exactly_one: Per case of D; every one drawn here asks for one call.
        within_needed: Per task of C: calls used equal calls needed, else twice as many.
        grounded: Per path or name used, two a case.
        agreement: Per case run through both harnesses.
    """

    name: str
    passed: Mapping[str, float]
    empty_arguments: float = 0.0
    shape_defects: float = 0.0
    repetition_defects: float = 0.0
    looped: float = 0.0
    too_soon_c: float = 0.0
    too_soon_b: float = 0.0
    wrong_action: float = 0.0
    uses_result: float = 1.0
    exactly_one: float = 1.0
    within_needed: float = 1.0
    grounded: float = 1.0
    agreement: float = 1.0
    calls_used: int = field(default=CALLS_NEEDED)

    def pass_rate(self, shape: SuiteShape) -> float:
        """Return how often a case of a part of a suite is passed."""
        return self.passed.get(f"{shape.suite}:{shape.stratum}", self.passed.get(shape.suite, 0.0))


GOOD_MODEL = TrueRates(
    name="good-model",
    passed={"A": 0.72, "B:call": 0.86, "B:conclude": 0.84, "C": 0.66, "D": 0.93, "E": 0.83, "V": 0.93},
    empty_arguments=0.001,
    shape_defects=0.002,
    repetition_defects=0.001,
    looped=0.01,
    too_soon_c=0.08,
    too_soon_b=0.07,
    wrong_action=0.04,
    uses_result=0.82,
    exactly_one=0.95,
    within_needed=0.80,
    grounded=0.97,
    agreement=0.995,
)
"""The good model of the operating curve: better than its base, far from perfect."""

BASE_MODEL = replace(
    GOOD_MODEL,
    name="base-model",
    passed={"A": 0.50, "B:call": 0.80, "B:conclude": 0.70, "C": 0.55, "D": 0.86, "E": 0.62, "V": 0.88},
)
PERFECT_MODEL = TrueRates(name="perfect-model", passed={"A": 1.0, "B": 1.0, "C": 1.0, "D": 1.0, "E": 1.0, "V": 1.0})


def draw_run(
    model: TrueRates, seed: int, *, suites: tuple[SuiteShape, ...] = FULL_SUITES, suite_sha256: str = "0" * 64
) -> SuiteRun:
    """Draw what a model with these rates does with every case; the same seed, the same run."""
    generator = random.Random(f"{model.name}/{seed}")
    results = tuple(result for shape in suites for result in _draw_part(model, shape, generator))
    return SuiteRun(
        model=ModelIdentity(name=model.name, sha256="0" * 64, backend="drawn"),
        suite_version="1",
        suite_sha256=suite_sha256,
        results=results,
    )


def draw_agreement(model: TrueRates, seed: int, n: int = AGREEMENT_CASES) -> tuple[Agreement, ...]:
    """Draw whether two harnesses agree, case by case."""
    generator = random.Random(f"{model.name}/agreement/{seed}")
    return tuple(
        Agreement(suite="D", case_id=f"D-{i}", cluster_id=f"D-{i}", agrees=generator.random() < model.agreement)
        for i in range(n)
    )


def _draw_part(model: TrueRates, shape: SuiteShape, generator: random.Random) -> Iterator[CaseResult]:
    """Draw one part of a suite; a case copies its cluster's draw often enough to give the stated correlation."""
    copying = shape.correlation**0.5
    for first in range(0, shape.n, shape.cluster_size):
        shared = generator.random()
        for index in range(first, min(first + shape.cluster_size, shape.n)):
            draw = shared if generator.random() < copying else generator.random()
            passed = draw < model.pass_rate(shape)
            is_task = shape.suite == "C"
            # Checking 2,500 cases a run would double the time of a curve; the values are made right here.
            yield CaseResult.model_construct(
                suite=shape.suite,
                case_id=f"{shape.suite}-{shape.stratum}-{first if is_task else index}",
                cluster_id=f"{shape.suite}-{shape.stratum}-{first}",
                stratum=shape.stratum,
                seed=index - first if is_task else 0,
                outcome="pass" if passed else "wrong",
                passed=passed,
                measures=_measures(model, shape, lambda rate: generator.random() < rate),
            )


def _measures(
    model: TrueRates, shape: SuiteShape, happens: Callable[[float], bool]
) -> dict[str, float | int | bool | None]:
    measures: dict[str, float | int | bool | None] = {
        "completions": 1,
        "calls": 1,
        "empty_arguments": int(happens(model.empty_arguments)),
        "shape_defects": int(happens(model.shape_defects)),
        "repetition_defects": int(happens(model.repetition_defects)),
        "grounded_total": 2,
        "grounded_found": (existing := int(happens(model.grounded)) + int(happens(model.grounded))),
        # Of the user's own sessions too, which are judged apart.
        "grounded_in_calls_total": 2,
        "grounded_in_calls_found": existing,
    }
    if shape.suite in ("B", "C", "D"):
        measures["wrong_action"] = happens(model.wrong_action)
    if shape.suite == "C":
        used = model.calls_used if happens(model.within_needed) else 2 * CALLS_NEEDED
        measures |= {
            "looped": happens(model.looped),
            "concluded_too_soon": happens(model.too_soon_c),
            "calls_used": used,
            "calls_needed": CALLS_NEEDED,
        }
    elif shape.stratum == "call":
        measures["concluded_too_soon"] = happens(model.too_soon_b)
    elif shape.stratum == "conclude":
        measures["uses_result"] = happens(model.uses_result)
    elif shape.suite == "D":
        measures |= {"calls_asked": 1, "calls": 1 if happens(model.exactly_one) else 2}
    return measures

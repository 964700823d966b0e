"""Models built to deserve it are held by the gate named; good ones pass; v1 to v5 are held for what they really did.

Here the outcomes are drawn, at full suite size; completions are judged end to end in test_scripted_models.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from toolcall_pipeline.evaluation.cases import CaseResult, ModelIdentity, SuiteRun
from toolcall_pipeline.gates.evaluated import judge_evidence
from toolcall_pipeline.gates.evidence import Evidence
from toolcall_pipeline.gates.good_model import (
    BASE_MODEL,
    FULL_SUITES,
    GOOD_MODEL,
    PERFECT_MODEL,
    TrueRates,
    draw_agreement,
    draw_run,
)
from toolcall_pipeline.gates.power import judge_drawn, power_curve, shifted
from toolcall_pipeline.gates.profiles import all_rules, rule_for
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.verdict import GateResult, Verdict
from toolcall_pipeline.presets import PRESETS

SHIP = [rule for rule in all_rules("ship") if rule.asset == "eval_reports"]
SMOKE = [rule for rule in all_rules("smoke") if rule.asset == "eval_reports"]


def held(results: dict[str, GateResult]) -> set[str]:
    return {gate for gate, result in results.items() if result.verdict is not Verdict.PASS}


def spoilt(model: TrueRates, passed: dict[str, float] | None = None, **rates: Any) -> TrueRates:
    return replace(model, name="planted", passed={**model.passed, **(passed or {})}, **rates)


@pytest.mark.parametrize(
    ("model", "gate"),
    [
        pytest.param(spoilt(PERFECT_MODEL, empty_arguments=0.03), "empty_arguments", id="empty arguments"),
        pytest.param(spoilt(PERFECT_MODEL, looped=0.12), "loops", id="the same call forever"),
        pytest.param(spoilt(PERFECT_MODEL, repetition_defects=0.03), "argument_repetition", id="repeats a line"),
        pytest.param(spoilt(PERFECT_MODEL, shape_defects=0.03), "call_shape", id="writes after the call"),
        pytest.param(
            spoilt(PERFECT_MODEL, {"B:call": 1.0, "B:conclude": 0.0}, uses_result=0.0),
            "suite_b_next_step",
            id="never concludes",
        ),
        pytest.param(
            spoilt(PERFECT_MODEL, {"B:call": 0.0, "B:conclude": 1.0}, too_soon_b=1.0, too_soon_c=0.9),
            "concludes_too_soon",
            id="always concludes after one call",
        ),
        pytest.param(spoilt(PERFECT_MODEL, exactly_one=0.0, within_needed=0.0), "calls_per_task", id="seven calls"),
        pytest.param(spoilt(PERFECT_MODEL, within_needed=0.2), "calls_per_task", id="twice the calls on C only"),
        pytest.param(spoilt(PERFECT_MODEL, wrong_action=0.2), "fitting_action", id="wrong tool"),
        pytest.param(spoilt(PERFECT_MODEL, grounded=0.7), "grounded_arguments", id="invents paths"),
        pytest.param(spoilt(PERFECT_MODEL, uses_result=0.4), "uses_result", id="ignores the result"),
        pytest.param(spoilt(PERFECT_MODEL, {"C": 0.3}), "suite_c_solved", id="good on D and bad on C"),
        pytest.param(spoilt(PERFECT_MODEL, {"A": 0.45}), "suite_a_shape", id="other calls than the session"),
        pytest.param(spoilt(PERFECT_MODEL, {"D": 0.8}), "suite_d_valid", id="a true 80 % on D"),
        pytest.param(spoilt(PERFECT_MODEL, {"E": 0.5}), "suite_e_recall", id="does not know the projects"),
        pytest.param(spoilt(PERFECT_MODEL, agreement=0.9), "harness_agreement", id="two harnesses"),
    ],
)
def test_a_planted_bad_model_is_held_by_the_gate_named(model: TrueRates, gate: str) -> None:
    results = judge_drawn(SHIP, model, seed=1)
    assert gate in held(results)


def test_fifteen_points_worse_than_production_everywhere_is_held_by_not_worse() -> None:
    production = spoilt(PERFECT_MODEL, {suite: 0.95 for suite in "ABCDEV"})
    results = judge_drawn(SHIP, shifted(production, -0.15), 1, reference=production)
    assert results["not_worse"].verdict is Verdict.FAIL


def test_equal_to_production_is_held_by_better() -> None:
    results = judge_drawn(SHIP, GOOD_MODEL, 1, reference=GOOD_MODEL)
    assert held(results) == {"better"}
    assert results["better"].verdict is Verdict.FAIL


def test_as_good_as_production_in_truth_rarely_counts_as_better() -> None:
    twin = replace(GOOD_MODEL, name="twin")
    wrongly = sum("better" not in held(judge_drawn(SHIP, twin, seed, reference=GOOD_MODEL)) for seed in range(6))
    assert wrongly <= 1  # at most 5 % of the time in truth


def test_a_perfect_model_passes_everything() -> None:
    assert held(judge_drawn(SHIP, PERFECT_MODEL, 1)) == set()


def test_the_good_model_passes_in_eight_of_ten_seeds() -> None:
    assert sum(not held(judge_drawn(SHIP, GOOD_MODEL, 100 + seed)) for seed in range(10)) >= 8


def test_the_ship_profile_can_say_yes() -> None:
    report = power_curve("ship", shifts=(0.0,), runs=12)
    assert report.points[0].together >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_operating_curve_rises_from_almost_never_to_almost_always() -> None:
    report = power_curve("ship", shifts=(-0.15, 0.0, 0.05), runs=60)
    worse, good, better = report.points
    assert worse.together <= 0.01
    assert good.together >= 0.8
    assert better.together >= good.together - 0.05


def run_of(results: Sequence[CaseResult], name: str = "replayed") -> SuiteRun:
    return SuiteRun(
        model=ModelIdentity(name=name, sha256="0" * 64, backend="replayed"),
        suite_version="published",
        suite_sha256="1" * 64,
        results=tuple(results),
    )


def cases(suite: str, n: int, passed: int, stratum: str = "", **counts: Any) -> list[CaseResult]:
    """Published counts as cases: each keyword is a measure, with its value or (how many are true)."""
    results = []
    for index in range(n):
        measures = {name: (index < value[0]) if isinstance(value, tuple) else value for name, value in counts.items()}
        results.append(
            CaseResult(
                suite=suite,
                case_id=f"{suite}{stratum}{index}",
                cluster_id=f"{suite}{stratum}{index}",
                stratum=stratum,
                seed=0,
                outcome="pass" if index < passed else "fail",
                passed=index < passed,
                measures=measures,
            )
        )
    return results


V1 = run_of(
    [
        *cases("A", 30, 2),
        *cases("B", 30, 10, "conclude", uses_result=(10,)),
        *cases("C", 10, 3, looped=(4,)),
        *cases("D", 20, 19),
        *cases("E", 12, 8),
    ],
    "v1",
)
V2 = run_of(
    [
        *cases("A", 30, 14),
        *cases("B", 30, 0, "conclude", uses_result=(0,)),
        *cases("C", 10, 0, looped=(9,), repetition_defects=(5,)),
        *cases("D", 20, 16),
        *cases("E", 12, 9),
    ],
    "v2",
)
V4 = run_of([*cases("B", 10, 0, "call", concluded_too_soon=(10,)), *cases("B", 10, 10, "conclude")], "v4")
V5 = run_of(cases("D", 60, 60, calls=7, calls_asked=1), "v5")


def failed(candidate: SuiteRun, reference: SuiteRun | None) -> set[str]:
    evidence = Evidence(candidate=candidate, reference=reference, reference_name="production")
    return {rule.gate for rule in SHIP if judge_evidence(rule, evidence).verdict is Verdict.FAIL}


@pytest.mark.parametrize(
    ("candidate", "reference", "gates"),
    [
        pytest.param(V1, None, {"suite_a_shape", "suite_c_solved", "loops"}, id="v1"),
        pytest.param(
            V2,
            V1,
            {"suite_c_solved", "loops", "argument_repetition", "not_worse"},
            id="v2",
        ),
        pytest.param(V4, None, {"concludes_too_soon", "suite_b_next_step"}, id="v4"),
        pytest.param(V5, None, {"calls_per_task"}, id="v5"),
    ],
)
def test_a_published_version_fails_for_the_reason_found_later(
    candidate: SuiteRun, reference: SuiteRun | None, gates: set[str]
) -> None:
    assert gates <= failed(candidate, reference)


def test_v2_never_concludes_and_is_held_by_suite_b() -> None:
    adapted = cases("B", 30, 27, "call", concluded_too_soon=(0,))
    results = run_of([*V2.results, *adapted], "v2")
    assert "suite_b_next_step" in failed(results, None)


def test_v3_is_stopped_before_training_by_the_mask_proof() -> None:
    rule = rule_for(PRESETS["full"], "v2_chat_dataset", "mask_proof")
    result = exact_verdict(rule, measured=840 + 109, n=22_890 + 1_392, explanation="", how_to_fix="")
    assert result.verdict is Verdict.FAIL


SMOKE_SUITES = tuple(replace(shape, n=n) for shape, n in zip(FULL_SUITES, (8, 4, 4, 2, 4, 0, 2), strict=True))
POOR = TrueRates(
    name="tiny-model",
    passed={"A": 0.1, "B": 0.3, "C": 0.0, "D": 0.2, "V": 0.5},
    looped=0.5,
    shape_defects=0.3,
    wrong_action=0.5,
    uses_result=0.1,
    grounded=0.4,
    exactly_one=0.3,
)


def test_an_honest_tiny_model_passes_the_smoke_profile_and_not_the_ship_profile() -> None:
    assert held(judge_drawn(SMOKE, POOR, 3, suites=SMOKE_SUITES)) == set()
    assert held(judge_drawn(SHIP, POOR, 3, suites=SMOKE_SUITES))


@pytest.mark.parametrize(
    ("lost", "gate"),
    [
        ("A", "suite_a_shape"),
        ("B", "suite_b_next_step"),
        ("C", "suite_c_solved"),
        ("C", "loops"),
        ("D", "suite_d_valid"),
    ],
)
def test_a_suite_that_did_not_run_holds_even_the_smoke_profile(lost: str, gate: str) -> None:
    suites = tuple(shape for shape in SMOKE_SUITES if shape.suite != lost)
    assert gate in held(judge_drawn(SMOKE, POOR, 3, suites=suites))


@pytest.mark.parametrize("outcome", ["error", "sandbox_failed"])
@pytest.mark.parametrize("rules", [SMOKE, SHIP], ids=["smoke", "ship"])
def test_cases_that_broke_hold_whatever_the_rate(rules: list[Any], outcome: str) -> None:
    run = draw_run(PERFECT_MODEL, 1)
    broken = [
        result.model_copy(update={"outcome": outcome}) if result.suite == "C" and index % 10 == 0 else result
        for index, result in enumerate(run.results)
    ]
    evidence = Evidence(
        candidate=run.model_copy(update={"results": tuple(broken)}),
        reference=draw_run(BASE_MODEL, 1),
        reference_name="base",
        agreement=draw_agreement(PERFECT_MODEL, 1),
    )
    results = {rule.gate: judge_evidence(rule, evidence) for rule in rules}
    for gate in ("suite_c_solved", "loops", "concludes_too_soon", "calls_per_task"):
        assert results[gate].verdict is Verdict.FAIL
        assert "25 of 250 cases broke" in results[gate].explanation


def without(run: SuiteRun, *suites: str) -> SuiteRun:
    return run.model_copy(update={"results": tuple(result for result in run.results if result.suite not in suites)})


@pytest.mark.parametrize("rules", [SMOKE, SHIP], ids=["smoke", "ship"])
@pytest.mark.parametrize("lost", ["E", "V"])
@pytest.mark.parametrize("whose", ["candidate", "reference"])
def test_a_suite_that_one_of_two_models_did_not_meet_is_no_proof_of_not_worse(
    rules: list[Any], lost: str, whose: str
) -> None:
    runs = {"candidate": draw_run(PERFECT_MODEL, 1), "reference": draw_run(BASE_MODEL, 1)}
    runs[whose] = without(runs[whose], lost)
    results = {rule.gate: judge_evidence(rule, Evidence(**runs, reference_name="base")) for rule in rules}
    assert results["not_worse"].verdict is Verdict.INCONCLUSIVE
    assert f"met by one of the two only: {lost}" in results["not_worse"].explanation
    assert (results["suite_e_recall"].verdict is Verdict.PASS) == ((lost, whose) != ("E", "candidate"))


def test_nobody_is_better_by_what_broke_for_another() -> None:
    run = draw_run(GOOD_MODEL, 1)
    broken = [
        result.model_copy(update={"outcome": "error", "passed": False, "error": "the server is gone"})
        if result.suite == "C" and index % 10 == 0
        else result
        for index, result in enumerate(run.results)
    ]
    reference = run.model_copy(update={"results": tuple(broken)})
    evidence = Evidence(candidate=run, reference=reference, reference_name="production")
    rule = next(rule for rule in SHIP if rule.gate == "better")
    result = judge_evidence(rule, evidence)
    assert result.verdict is Verdict.FAIL
    assert "No suite improved" in result.explanation


def test_a_measure_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError):
        cases("B", 1, 1, "conclude", uses_result=math.nan)


def test_without_another_model_there_is_nothing_to_be_better_than() -> None:
    evidence = Evidence(candidate=draw_run(PERFECT_MODEL, 1), reference=None, reference_name="base")
    for rule in (*SHIP, *SMOKE):
        if rule.gate in ("not_worse", "better"):
            assert judge_evidence(rule, evidence).verdict is Verdict.INCONCLUSIVE


def test_a_case_the_other_model_did_not_meet_leaves_not_worse_open() -> None:
    base = draw_run(BASE_MODEL, 1)
    evidence = Evidence(
        candidate=draw_run(PERFECT_MODEL, 1),
        reference=base.model_copy(update={"results": base.results[1:]}),
        reference_name="base",
    )
    rule = next(rule for rule in SHIP if rule.gate == "not_worse")
    assert judge_evidence(rule, evidence).verdict is Verdict.INCONCLUSIVE


def test_no_rate_gate_passes_on_nothing() -> None:
    nothing = Evidence(candidate=run_of([]), reference=run_of([]), reference_name="base")
    for rule in (*SHIP, *SMOKE):
        verdict = judge_evidence(rule, nothing).verdict
        # Suite E is a user's own: without projects to ask about it is reported, not gated.
        assert (verdict is Verdict.PASS) == (rule.gate == "suite_e_recall"), rule


@pytest.mark.parametrize(("rules", "expected"), [(SMOKE, Verdict.PASS), (SHIP, Verdict.INCONCLUSIVE)])
def test_a_model_that_names_nothing_invents_nothing_but_shows_nothing_either(
    rules: list[Any], expected: Verdict
) -> None:
    silent = Evidence(candidate=run_of(cases("D", 40, 40)), reference=None, reference_name="base")
    rule = next(rule for rule in rules if rule.gate == "grounded_arguments")
    result = judge_evidence(rule, silent)
    assert result.verdict is expected
    assert result.measured is None


@pytest.mark.parametrize(("existing", "expected"), [(2, Verdict.PASS), (1, Verdict.FAIL)])
@pytest.mark.parametrize(("judged", "other"), [("A", "V"), ("D", "A")])
def test_many_names_elsewhere_do_not_hide_rewritten_paths(
    judged: str, other: str, existing: int, expected: Verdict
) -> None:
    def naming(suite: str, count: int, found: int) -> list[CaseResult]:
        names = {"grounded_total": 2, "grounded_in_calls_total": 2}
        return cases(suite, count, count, **names, grounded_found=found, grounded_in_calls_found=found)

    answers = cases("B", 250, 250, "conclude", grounded_total=8, grounded_found=8)
    results = [*answers, *naming(other, 1000, 2), *naming(judged, 100, existing)]
    evidence = Evidence(candidate=run_of(results), reference=None, reference_name="base")
    rule = next(rule for rule in SHIP if rule.gate == "grounded_arguments")
    result = judge_evidence(rule, evidence)
    assert result.verdict is expected
    if expected is Verdict.FAIL:
        assert result.n == 200  # the names in these calls, not the 2,000 in others or in answers


def test_the_optional_suite_is_counted_by_no_gate() -> None:
    run, base = draw_run(PERFECT_MODEL, 1), draw_run(BASE_MODEL, 1)
    public = cases("BFCL", 400, 0, shape_defects=1, empty_arguments=1, calls_asked=1, calls=7, grounded_total=1)
    verdicts = []
    for extra in ([], public):
        evidence = Evidence(
            candidate=run.model_copy(update={"results": (*run.results, *extra)}),
            reference=base.model_copy(update={"results": (*base.results, *extra)}),
            reference_name="base",
            agreement=draw_agreement(PERFECT_MODEL, 1),
        )
        verdicts.append([judge_evidence(rule, evidence) for rule in SHIP])
    assert verdicts[0] == verdicts[1]


def test_a_small_recall_suite_is_reported_but_neither_gated_nor_compared() -> None:
    suites = tuple(replace(shape, n=99) if shape.suite == "E" else shape for shape in FULL_SUITES)
    results = judge_drawn(SHIP, spoilt(PERFECT_MODEL, {"E": 0.0}), 1, suites=suites)
    assert results["suite_e_recall"].verdict is Verdict.PASS
    assert results["not_worse"].verdict is Verdict.PASS


def test_a_part_of_the_suite_never_passes_the_ship_profile() -> None:
    evidence = Evidence(
        candidate=draw_run(PERFECT_MODEL, 1),
        reference=draw_run(BASE_MODEL, 1),
        reference_name="base",
        agreement=draw_agreement(PERFECT_MODEL, 1),
        is_reduced=True,
    )
    assert {judge_evidence(rule, evidence).verdict for rule in SHIP} == {Verdict.INCONCLUSIVE}
    assert {judge_evidence(rule, evidence).verdict for rule in SMOKE} == {Verdict.PASS}

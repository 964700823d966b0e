"""Verdicts of counts and rates, and the file of all thresholds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from toolcall_pipeline.errors import ConfigurationError
from toolcall_pipeline.gates import registry
from toolcall_pipeline.gates.evaluated import JUDGES
from toolcall_pipeline.gates.gates_page import gates_page
from toolcall_pipeline.gates.model_equivalence import equivalence_verdict
from toolcall_pipeline.gates.profiles import PROFILES, GateRule, all_rules, rule_for, rules_for
from toolcall_pipeline.gates.rates import exact_verdict, rate_verdict, worst
from toolcall_pipeline.gates.verdict import GateContext, Verdict
from toolcall_pipeline.presets import PRESETS, resolve_configuration
from toolcall_pipeline.settings import REPOSITORY_ROOT


def rule(comparison: Any, threshold: Any, **options: Any) -> GateRule:
    settings: dict[str, Any] = {"unit": "ratio", "kind": "rate", "profile": "ship", "question": ""}
    return GateRule(gate="g", asset="a", comparison=comparison, threshold=threshold, **(settings | options))


def outcomes(successes: int, n: int, clusters: int | None = None) -> list[tuple[str, bool]]:
    return [(str(i % (clusters or n)), i < successes) for i in range(n)]


@pytest.mark.parametrize(
    ("comparison", "threshold", "successes", "n", "expected"),
    [
        (">=", 0.85, 51, 60, "inconclusive"),  # the source passed on this: a true 80 % model does so 21 % of the time
        (">=", 0.85, 50, 60, "fail"),
        (">=", 0.85, 58, 60, "pass"),
        ("<", 0.01, 0, 50, "inconclusive"),  # 0 of 50 shows < 5.8 % only
        ("<", 0.01, 0, 299, "pass"),
        ("<", 0.01, 3, 300, "fail"),  # exactly 1 % is not below 1 %
        ("<=", 0.05, 12, 250, "inconclusive"),
        ("<=", 0.05, 4, 250, "pass"),
        ("<=", 0.05, 9, 10, "fail"),
        (">=", 0.5, 0, 0, "inconclusive"),
    ],
)
def test_a_rate_passes_on_its_bound_and_fails_on_itself(
    comparison: str, threshold: float, successes: int, n: int, expected: str
) -> None:
    result = rate_verdict(
        rule(comparison, threshold), outcomes=outcomes(successes, n), explanation="Counted", how_to_fix="Mend it."
    )
    assert result.verdict.value == expected
    assert (result.measured is None) == (n == 0)


def test_an_inconclusive_rate_says_how_many_more_cases_would_decide() -> None:
    result = rate_verdict(rule("<", 0.01), outcomes=outcomes(0, 50), explanation="Counted", how_to_fix="Mend it.")
    assert "249 more cases" in result.how_to_fix


def test_too_few_cases_are_inconclusive_however_good() -> None:
    demanding = rule("<", 0.01, parameters={"min_n": 2000})
    result = rate_verdict(demanding, outcomes=outcomes(0, 1500), explanation="Counted", how_to_fix="")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "500 more cases" in result.how_to_fix


def test_cases_of_one_cluster_do_not_count_as_many() -> None:
    spread = rate_verdict(rule(">=", 0.5), outcomes=outcomes(70, 100), explanation="", how_to_fix="")
    copies = [(str(i // 10), i < 70) for i in range(100)]
    clustered = rate_verdict(rule(">=", 0.5), outcomes=copies, explanation="", how_to_fix="")
    assert spread.verdict is Verdict.PASS
    assert clustered.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("comparison", "threshold", "measured", "also", "expected"),
    [
        ("==", 0, 0, True, "pass"),
        ("==", 0, 949, True, "fail"),  # rows without a supervised token in v3
        ("==", 0, 0, False, "fail"),
        (">=", 0.99, math.nan, True, "fail"),  # NaN clears nothing
        ("within", (0.15, 0.30), 0.15, True, "pass"),
        ("within", (0.15, 0.30), 0.30, True, "pass"),
        ("within", (0.15, 0.30), 0.40, True, "fail"),  # v4
        ("within", (0.15, 0.30), 0.0, True, "fail"),  # v2
        ("<", 0.10, 0.83, True, "fail"),  # v1: 83 % synthetic
        ("<", 0.10, 0.10, True, "fail"),
    ],
)
def test_an_exact_count_passes_or_fails(
    comparison: str, threshold: Any, measured: float, also: bool, expected: str
) -> None:
    result = exact_verdict(
        rule(comparison, threshold, kind="exact"), measured=measured, n=1, explanation="", how_to_fix="", also=also
    )
    assert result.verdict.value == expected


@pytest.mark.parametrize(
    ("same_top", "mean_kl", "expected"),
    [
        (["1" * 48] * 21, 0.0005, Verdict.PASS),
        (["1" * 48] * 20, 0.0005, Verdict.FAIL),  # 960 positions, whatever the file says of their number
        ([], 0.0, Verdict.FAIL),
        (["1" * 48] * 21, math.nan, Verdict.FAIL),
        (["1" * 47 + "0"] * 21, 0.0005, Verdict.FAIL),
    ],
)
def test_an_equivalence_is_counted_from_its_positions(same_top: list[str], mean_kl: float, expected: Verdict) -> None:
    configuration = resolve_configuration("nightly")
    asked = rule_for(configuration, "merged_model", "merge_equivalence")
    context = GateContext(None, "p", None, None, configuration, asked)  # type: ignore[arg-type]
    told = {"same_top_ratio": 1.0, "positions_count": 5000, "mean_kl": mean_kl, "max_kl": 1.0, "same_top": same_top}
    result = equivalence_verdict(context, told, what="x", how_to_fix="y", details={}, also=True)
    assert (result.verdict, result.n) == (expected, sum(map(len, same_top)))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["fail", "inconclusive"], "fail"),
        ([], "inconclusive"),
    ],
)
def test_a_rule_of_several_parts_is_as_bad_as_its_worst(parts: list[str], expected: str) -> None:
    assert worst([Verdict(part) for part in parts]).value == expected


@pytest.mark.parametrize(
    ("asset", "gate", "comparison", "threshold"),
    [
        ("v2_chat_dataset", "synthetic_share", "<", 0.10),
        ("v2_chat_dataset", "category_cap", "<=", 0.20),
        ("v2_chat_dataset", "text_after_tool_share", "within", (0.15, 0.30)),
        ("merged_model", "merge_equivalence", ">=", 0.99),
        ("merged_model", "validator_merged", ">=", 0.85),
        ("gguf_q6k", "quant_equivalence", ">=", 0.95),
        ("gguf_q6k", "validator_gguf", ">=", 0.85),
        ("eval_reports", "suite_a_shape", ">=", 0.60),
        ("eval_reports", "suite_b_next_step", ">=", 0.70),
        ("eval_reports", "suite_c_solved", ">=", 0.50),
        ("eval_reports", "suite_d_valid", ">=", 0.85),
        ("eval_reports", "suite_e_recall", ">=", 0.70),
        ("eval_reports", "empty_arguments", "<", 0.01),
        ("eval_reports", "call_shape", "<", 0.01),
        ("eval_reports", "argument_repetition", "<", 0.01),
        ("eval_reports", "loops", "<=", 0.05),
        ("eval_reports", "concludes_too_soon", "<=", 0.20),
        ("eval_reports", "calls_per_task", ">=", 0.80),
        ("eval_reports", "fitting_action", "<=", 0.10),
        ("eval_reports", "grounded_arguments", ">=", 0.90),
        ("eval_reports", "uses_result", ">=", 0.70),
        ("eval_reports", "harness_agreement", ">=", 0.95),
        ("eval_reports", "not_worse", ">", -0.10),
        ("eval_reports", "better", "<", 0.05),
    ],
)
def test_the_ship_profile_asks_what_the_specification_says(
    asset: str, gate: str, comparison: str, threshold: Any
) -> None:
    found = rule_for(PRESETS["full"], asset, gate)
    assert (found.comparison, found.threshold) == (comparison, threshold)


@pytest.mark.parametrize(
    ("preset", "profile", "minimum"),
    [
        ("full", "ship", 25_000),
        ("nightly", "ship", 2_000),
        ("smoke", "smoke", 50),
        ("smoke", "ship", 2_000),  # a preset cannot lower what shipping asks
        ("full", "smoke", 50),
    ],
)
def test_enough_examples_depend_on_preset_and_profile(preset: str, profile: str, minimum: int) -> None:
    configuration = resolve_configuration(preset, {"evaluation": {"profile": profile}})
    assert rule_for(configuration, "v2_chat_dataset", "min_examples").threshold == minimum


def test_both_profiles_have_the_same_gates_and_never_the_same_rule() -> None:
    ship, smoke = all_rules("ship"), all_rules("smoke")
    assert [(r.asset, r.gate) for r in ship] == [(r.asset, r.gate) for r in smoke]
    assert not {r.sha256 for r in ship} & {r.sha256 for r in smoke}
    assert len({r.sha256 for r in ship}) == len(ship)


def test_a_rule_changes_its_hash_with_its_threshold_and_not_with_its_wording() -> None:
    first = rule(">=", 0.5)
    assert first.sha256 != first.model_copy(update={"threshold": 0.51}).sha256
    assert first.sha256 != first.model_copy(update={"parameters": {"min_n": 3}}).sha256
    assert first.sha256 == first.model_copy(update={"question": "Reworded?"}).sha256


def test_unknown_profiles_assets_and_gates_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no gate profile"):
        all_rules("lenient")
    with pytest.raises(ConfigurationError, match="has no gate"):
        rule_for(PRESETS["full"], "eval_reports", "vibes")


def test_every_rule_on_the_evidence_has_its_judge() -> None:
    assert set(JUDGES) == {r.gate for r in all_rules("ship") if r.asset == "eval_reports"}


def test_every_gate_is_where_its_asset_says() -> None:
    for asset in registry.ASSETS_WITH_GATES:
        gates = registry.gates_of(asset)
        assert [gate.name for gate in gates] == [r.gate for r in all_rules("ship") if r.asset == asset]
        assert all(gate.description for gate in gates)


def test_gates_of_an_asset_without_gates_are_none() -> None:
    assert registry.gates_of("database_backup") == ()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_has_every_rule(preset: str) -> None:
    assert len(rules_for(PRESETS[preset])) == len(all_rules(PROFILES[0]))


def test_the_page_of_gates_is_up_to_date() -> None:
    page = REPOSITORY_ROOT / "docs" / "reference" / "gates.md"
    assert page.read_text(encoding="utf-8") == gates_page(), "run `make docs`"

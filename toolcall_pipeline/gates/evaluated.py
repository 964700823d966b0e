"""The gates on `eval_reports` as pure functions of a rule and the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from toolcall_pipeline.evaluation.cases import CaseResult
from toolcall_pipeline.gates import evidence as counting
from toolcall_pipeline.gates.comparison import SuiteComparison
from toolcall_pipeline.gates.evidence import Evidence
from toolcall_pipeline.gates.profiles import GateRule
from toolcall_pipeline.gates.rates import clears, interval_of, judge_estimate, rate_verdict, result_of, worst
from toolcall_pipeline.gates.statistics import DRAWN_LEVEL, Outcome, RateEstimate, estimate_rate
from toolcall_pipeline.gates.verdict import GateResult, Interval, Verdict

MAX_BROKEN_RATIO = 0.05
"""Share of a suite's cases that may end in a backend or sandbox error before the suite says nothing."""

Judge = Callable[[GateRule, Evidence], GateResult]


def judge_evidence(rule: GateRule, evidence: Evidence) -> GateResult:
    """Return the verdict of one gate on `eval_reports`; a part of the suite alone never passes `ship`."""
    result = JUDGES[rule.gate](rule, evidence)
    if evidence.is_reduced and rule.profile == "ship" and result.verdict is Verdict.PASS:
        return result.model_copy(
            update={
                "verdict": Verdict.INCONCLUSIVE,
                "explanation": f"{result.explanation}; only a part of the frozen suite was run",
                "how_to_fix": "Run the whole suite: leave evaluation.cases_per_suite and evaluation.suites alone.",
            }
        )
    return result


def _rate_gate(
    counts: Callable[[Evidence], list[Outcome]],
    looks_at: tuple[str, ...],
    explanation: str,
    how_to_fix: str,
    stratum: str | None = None,
) -> Judge:
    """Return the judge of a gate that is one rate."""

    def judge(rule: GateRule, evidence: Evidence) -> GateResult:
        result = rate_verdict(rule, outcomes=counts(evidence), explanation=explanation, how_to_fix=how_to_fix)
        return _unless_broken(result, evidence.results(*looks_at, stratum=stratum))

    return judge


def _unless_broken(result: GateResult, *parts: list[CaseResult]) -> GateResult:
    """Fail a gate of which a part's cases broke: an error of the backend says nothing good about the model."""
    for cases in parts:
        broken = counting.broken_count(cases)
        if broken > MAX_BROKEN_RATIO * len(cases):
            said = f"{result.explanation}; {broken} of {len(cases)} cases broke in the backend or the sandbox"
            mend = "Read the errors of the broken cases in the report, mend the backend, and evaluate again."
            return result.model_copy(update={"verdict": Verdict.FAIL, "explanation": said, "how_to_fix": mend})
    return result


def _suite_gate(suite: str, explanation: str, how_to_fix: str) -> Judge:
    return _rate_gate(lambda evidence: counting.passes(evidence.results(suite)), (suite,), explanation, how_to_fix)


def _pooled_gate(measure: str, explanation: str, how_to_fix: str) -> Judge:
    return _rate_gate(lambda evidence: counting.flags(evidence.results(), measure), (), explanation, how_to_fix)


def _suite_e_recall(rule: GateRule, evidence: Evidence) -> GateResult:
    cases = evidence.results("E")
    result = rate_verdict(
        rule,
        outcomes=counting.passes(cases),
        explanation="Questions about the user's projects answered from memory",
        how_to_fix="Keep project facts in the training rows; look at which projects fail in the report.",
    )
    gated_from_n = int(rule.parameters["gated_from_n"])
    if max(len(cases), len(evidence.reference_results("E"))) >= gated_from_n:
        return _unless_broken(result, cases)
    note = f"{result.explanation}; below {gated_from_n} cases suite E is reported, not gated"
    return result.model_copy(update={"verdict": Verdict.PASS, "explanation": note, "how_to_fix": ""})


def _grounded_arguments(rule: GateRule, evidence: Evidence) -> GateResult:
    cases = evidence.results()
    groups = {name: estimate_rate(outcomes) for name, outcomes in counting.grounded(cases).items()}
    named = {name: estimate for name, estimate in groups.items() if estimate.n}
    result = _worst_group(
        rule,
        named or groups,
        "Paths and names that exist, of those used",
        "Look for a path prefix most rows share, and normalise it (recipe item 8).",
    )
    if not named and cases and rule.parameters.get("may_name_nothing"):
        note = f"No path or name was used in {len(cases)} cases: there is nothing that could not exist"
        result = result.model_copy(update={"verdict": Verdict.PASS, "n": len(cases), "explanation": note})
    return _unless_broken(result, cases)


def _suite_b_next_step(rule: GateRule, evidence: Evidence) -> GateResult:
    halves = {
        name: estimate_rate(counting.passes(evidence.results("B", stratum=name))) for name in ("call", "conclude")
    }
    balanced = _mean_estimate(halves["call"], halves["conclude"])
    each = float(rule.parameters["each_half"])
    parts = [judge_estimate(rule, balanced)]
    parts += [judge_estimate(rule, half, threshold=each) for half in halves.values()]
    verdict = worst([part for part, _ in parts])
    advice = _advice(verdict, parts)
    shown = ", ".join(f"{name} {_share(half)}" for name, half in halves.items())
    result = result_of(
        rule,
        verdict,
        measured=balanced.rate if balanced.n else None,
        n=balanced.n,
        interval=interval_of(balanced),
        explanation=f"Balanced accuracy of the next step after a result ({shown}; each half must reach {each:.0%})",
        how_to_fix=f"{advice} A low conclude half: too few rows end in text. A low call half: too many do.".strip(),
        details={"halves": [_row(name, half) for name, half in halves.items()]},
    )
    return _unless_broken(result, evidence.results("B"))


def _mean_estimate(first: RateEstimate, second: RateEstimate) -> RateEstimate:
    """Return the mean of two rates; the mean of their bounds is a bound whatever the dependence between the halves."""
    if first.n == 0 or second.n == 0:
        return estimate_rate([])
    return RateEstimate(
        rate=(first.rate + second.rate) / 2,
        successes=first.successes + second.successes,
        n=first.n + second.n,
        cluster_count=first.cluster_count + second.cluster_count,
        effective_n=first.effective_n + second.effective_n,
        low=(first.low + second.low) / 2,
        high=(first.high + second.high) / 2,
        method="mean of both halves' Clopper-Pearson bounds",
    )


def _concludes_too_soon(rule: GateRule, evidence: Evidence) -> GateResult:
    groups = {
        "suite C": estimate_rate(counting.flags(evidence.results("C"), "concluded_too_soon")),
        "calling half of B": estimate_rate(counting.flags(evidence.results("B", stratum="call"), "concluded_too_soon")),
    }
    result = _worst_group(
        rule,
        groups,
        "Conclusions before the task was done",
        "Lower the share of rows that end in text after a tool result (recipe item 4).",
    )
    return _unless_broken(result, evidence.results("C"), evidence.results("B", stratum="call"))


def _calls_per_task(rule: GateRule, evidence: Evidence) -> GateResult:
    one = estimate_rate(counting.exactly_one(evidence.results("D")))
    parts = [judge_estimate(rule, one)]
    details = [_row("exactly one call where one is asked (D)", one)]
    limit = rule.parameters.get("max_median_ratio")
    tasks = estimate_rate(counting.within_needed(evidence.results("C"), float(limit or 1.5)))
    details.append(_row(f"tasks within {float(limit or 1.5)} x the calls needed (C)", tasks))
    if limit is not None:
        # A median lies within a limit exactly when half of the cases do, so it has an exact bound of its own.
        parts.append(judge_estimate(rule, tasks, threshold=0.5))
    verdict = worst([part for part, _ in parts])
    advice = _advice(verdict, parts)
    result = result_of(
        rule,
        verdict,
        measured=one.rate if one.n else None,
        n=one.n,
        interval=interval_of(one),
        explanation=f"Exactly one call where one is asked (D): {_share(one)}; "
        f"tasks within {float(limit or 1.5)} x the calls needed (C): {_share(tasks)}, half of them must be",
        how_to_fix=f"{advice} Supervise the end of turn (mask_proof), and do not hide it with a stop string.".strip(),
        details={"parts": details},
    )
    return _unless_broken(result, evidence.results("C"), evidence.results("D"))


def _worst_group(rule: GateRule, groups: dict[str, RateEstimate], explanation: str, how_to_fix: str) -> GateResult:
    """Judge one threshold on several groups, all of which must clear it; show the worst."""
    judged = {name: judge_estimate(rule, estimate) for name, estimate in groups.items()}
    order = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS]
    sign = 1 if rule.comparison in (">=", ">") else -1
    name = min(
        groups, key=lambda key: (order.index(judged[key][0]), sign * groups[key].rate if groups[key].n else -1.0)
    )
    shown, advice = groups[name], judged[name][1]
    figures = ", ".join(f"{key} {_share(estimate)}" for key, estimate in groups.items())
    return result_of(
        rule,
        worst([verdict for verdict, _ in judged.values()]),
        measured=shown.rate if shown.n else None,
        n=shown.n,
        interval=interval_of(shown),
        explanation=f"{explanation}: {figures}",
        how_to_fix=f"{advice} {how_to_fix}".strip(),
        details={"groups": [_row(key, estimate) for key, estimate in groups.items()]},
    )


def _harness_agreement(rule: GateRule, evidence: Evidence) -> GateResult:
    return rate_verdict(
        rule,
        outcomes=[(case.cluster_id, case.agrees) for case in evidence.agreement],
        explanation="Cases with the same outcome in-process and through a llama.cpp server",
        how_to_fix="Compare the rendered prompts of both paths (template_parity) and their generation settings.",
    )


def _not_worse(rule: GateRule, evidence: Evidence) -> GateResult:
    comparisons = evidence.comparisons
    if not comparisons:
        return _nothing_to_compare(rule)
    threshold = _number(rule)
    judged = {item.suite: _judge_difference(rule, item, threshold) for item in comparisons}
    open_suites = evidence.uncompared_suites
    order = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS]
    shown = min(comparisons, key=lambda item: (order.index(judged[item.suite]), item.low))
    held = [item.suite for item in comparisons if judged[item.suite] is not Verdict.PASS]
    return result_of(
        rule,
        worst([*judged.values(), *(Verdict.INCONCLUSIVE for _ in open_suites)]),
        measured=shown.difference,
        n=shown.n,
        interval=Interval(low=shown.low, high=shown.high, level=DRAWN_LEVEL, method="Tango score, paired"),
        explanation=f"Suite {shown.suite} against {evidence.reference_name}: {shown.candidate_ratio:.1%} and "
        f"{shown.other_ratio:.1%} on the same {shown.n} cases"
        + (f"; not shown to be within 10 points: {', '.join(held)}" if held else f"; worst of {len(judged)} suites")
        + (f"; met by one of the two only: {', '.join(open_suites)}" if open_suites else ""),
        how_to_fix="Measure both on the same suites: materialise baseline_reports, then evaluate again."
        if open_suites and not held
        else "Look at the cases only the other model passes: the report lists them in the paired comparison.",
        details={"suites": [_comparison_row(item) for item in comparisons]},
    )


def _judge_difference(rule: GateRule, item: SuiteComparison, threshold: float) -> Verdict:
    if not clears(item.difference, rule.comparison, threshold):
        return Verdict.FAIL
    if rule.judged_on_point:
        return Verdict.PASS
    if item.unpaired or not clears(item.low, rule.comparison, threshold):
        return Verdict.INCONCLUSIVE
    return Verdict.PASS


def _better(rule: GateRule, evidence: Evidence) -> GateResult:
    comparisons = evidence.comparisons
    if not comparisons:
        return _nothing_to_compare(rule)
    improved = [item for item in comparisons if item.difference > 0]
    shown = min(improved or comparisons, key=lambda item: (item.p_holm if improved else 1.0, -item.difference))
    measured = shown.p_holm if improved else 1.0
    if clears(measured, rule.comparison, rule.threshold):
        verdict = Verdict.PASS
    else:
        verdict = Verdict.INCONCLUSIVE if improved else Verdict.FAIL
    return result_of(
        rule,
        verdict,
        measured=measured,
        n=shown.n,
        explanation=("" if improved else "No suite improved; the nearest is ")
        + f"suite {shown.suite} against {evidence.reference_name}: {shown.candidate_ratio:.1%} and "
        f"{shown.other_ratio:.1%}, {shown.candidate_only} cases won and {shown.other_only} lost, exact McNemar",
        how_to_fix="An improvement that cannot be told from chance does not ship: train on more or better rows.",
        details={"suites": [_comparison_row(item) for item in comparisons]},
    )


def _nothing_to_compare(rule: GateRule) -> GateResult:
    return result_of(
        rule,
        Verdict.INCONCLUSIVE,
        measured=None,
        n=0,
        explanation="There is no other model on the same cases",
        how_to_fix="Materialise baseline_reports on this suite version, then evaluate again.",
    )


def _advice(verdict: Verdict, parts: list[tuple[Verdict, str]]) -> str:
    """Return what would decide a rule of several parts; nothing where one of them failed."""
    if verdict is not Verdict.INCONCLUSIVE:
        return ""
    return " ".join(dict.fromkeys(text for _, text in parts if text))


def _number(rule: GateRule) -> float:
    if isinstance(rule.threshold, tuple):
        raise ValueError(f"Gate {rule.gate}: expected one threshold, got {rule.threshold!r}. Mend gates/profiles.py.")
    return float(rule.threshold)


def _share(estimate: RateEstimate) -> str:
    return f"{estimate.rate:.1%} of {estimate.n}" if estimate.n else "not measured"


def _row(name: str, estimate: RateEstimate) -> dict[str, object]:
    if estimate.n == 0:
        return {"part": name, "ratio": None, "n": 0, "low": None, "high": None}
    return {"part": name, "ratio": estimate.rate, "n": estimate.n, "low": estimate.low, "high": estimate.high}


def _comparison_row(item: SuiteComparison) -> dict[str, object]:
    return {
        "suite": item.suite,
        "n": item.n,
        "candidate_ratio": item.candidate_ratio,
        "other_ratio": item.other_ratio,
        "difference": item.difference,
        "low": item.low,
        "high": item.high,
        "p": item.p,
        "p_holm": item.p_holm,
        "unpaired": item.unpaired,
    }


JUDGES: Mapping[str, Judge] = {
    "suite_a_shape": _suite_gate(
        "A", "Calls of the shape the session made", "Look at the wrong calls by tool; label plausible alternatives."
    ),
    "suite_b_next_step": _suite_b_next_step,
    "suite_c_solved": _suite_gate("C", "Tasks solved with real tools", "Read the transcripts of unsolved tasks."),
    "suite_d_valid": _suite_gate("D", "Single-turn asks answered right", "Look at the defect gallery by kind."),
    "suite_e_recall": _suite_e_recall,
    "empty_arguments": _pooled_gate(
        "empty_arguments", "Cases with an empty call where arguments are required", "Check no_empty_arguments."
    ),
    "call_shape": _pooled_gate(
        "shape_defects",
        "Cases with a call out of shape, words behind a call, or a turn of somebody else",
        "Check mask_proof: the end of turn. Check template_parity: calls in another notation.",
    ),
    "argument_repetition": _pooled_gate(
        "repetition_defects",
        "Cases with a line or phrase repeated inside an argument or in what is said",
        "Look for long scripts in rows.",
    ),
    "loops": _rate_gate(
        lambda evidence: counting.flags(evidence.results("C"), "looped"),
        ("C",),
        "Tasks that ended in a loop",
        "Supervise conclusions after results; look at what the model repeats.",
    ),
    "concludes_too_soon": _concludes_too_soon,
    "calls_per_task": _calls_per_task,
    "fitting_action": _rate_gate(
        lambda evidence: counting.flags(evidence.results("B", "C", "D"), "wrong_action"),
        ("B", "C", "D"),
        "Cases with an action off topic or by the wrong tool",
        "Offer the tools the agent had in every row (recipe item 2).",
    ),
    "grounded_arguments": _grounded_arguments,
    "uses_result": _rate_gate(
        lambda evidence: counting.flags(evidence.results("B", stratum="conclude"), "uses_result"),
        ("B",),
        "Conclusions with a fact of the result, in B's concluding half",
        "Keep rows whose final text quotes the result; drop those that do not.",
        stratum="conclude",
    ),
    "harness_agreement": _harness_agreement,
    "not_worse": _not_worse,
    "better": _better,
}
"""By gate name; exactly the gates `profiles.py` puts on `eval_reports`."""

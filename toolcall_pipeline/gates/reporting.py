"""Judge a run and write its reports: what `eval_reports`, `evaluate`, `report render` and `compare` call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from toolcall_pipeline.artifacts import hardware, package_versions, write_atomically
from toolcall_pipeline.evaluation.cases import Case, CaseResult, SuiteRun
from toolcall_pipeline.evaluation.reports.build import SUITE_QUESTIONS, build_results
from toolcall_pipeline.evaluation.reports.model import (
    ComparisonEntry,
    GateEntry,
    IntervalEntry,
    OverallVerdict,
    RateEntry,
    Results,
    SuiteEntry,
    dump_results,
)
from toolcall_pipeline.evaluation.reports.render import render_html, render_markdown
from toolcall_pipeline.gates.comparison import SuiteComparison, compare_runs
from toolcall_pipeline.gates.eval_reports import ASSET
from toolcall_pipeline.gates.evaluated import judge_evidence
from toolcall_pipeline.gates.evidence import Agreement, Evidence, is_reduced, passes
from toolcall_pipeline.gates.profiles import GateRule, all_rules
from toolcall_pipeline.gates.rates import interval_of
from toolcall_pipeline.gates.statistics import estimate_rate, pass_hat_k
from toolcall_pipeline.gates.status import artifacts_in_use, gate_rows, missing_entry, overall_verdict, result_entry
from toolcall_pipeline.stage_context import StageContext

RESULTS_NAME = "results.json"
MARKDOWN_NAME = "report.md"
HTML_NAME = "report.html"


def is_sample_suite(suite_version: str) -> bool:
    """Return whether a suite version is the shipped sample's: nothing it judges ships."""
    return suite_version.startswith("sample")


def judge_runs(
    candidate: SuiteRun,
    *,
    base: SuiteRun | None = None,
    production: SuiteRun | None = None,
    harness_agreement: Iterable[Any] = (),
    profile: Literal["ship", "smoke"] = "ship",
    reduced: bool = False,
    not_asked: Mapping[str, str] | None = None,
) -> list[GateEntry]:
    """Judge a run on every gate of `eval_reports`.

    Args:
        candidate: The judged model, decoded freely.
        base: Measured on the same cases.
        production: The same; it is what the candidate must beat where both are given.
        harness_agreement: Lines of `harness_agreement.json`.
        profile: `ship` or `smoke`.
        reduced: Whether fewer cases or suites were run than the frozen suite has.
        not_asked: Gates left unjudged, by name, with why.

    Returns:
        One row per gate, in the order of `profiles.py`.
    """
    evidence = Evidence(
        candidate=candidate,
        reference=production or base,
        reference_name="production" if production is not None else "base",
        agreement=tuple(Agreement.model_validate(_plain(line)) for line in harness_agreement),
        is_reduced=reduced,
    )
    reasons = not_asked or {}
    return [
        missing_entry(rule).model_copy(update={"explanation": reasons[rule.gate], "how_to_fix": ""})
        if rule.gate in reasons
        else result_entry(rule, judge_evidence(rule, evidence))
        for rule in _rules(profile)
    ]


def judged_results(
    candidate: SuiteRun,
    *,
    name: str,
    profile: Literal["ship", "smoke"] = "ship",
    base: SuiteRun | None = None,
    production: SuiteRun | None = None,
    constrained: SuiteRun | None = None,
    cases: Sequence[Case] = (),
    harness_agreement: Iterable[Any] = (),
    other_gates: Sequence[GateEntry] = (),
    provenance: dict[str, Any] | None = None,
    in_chain: bool = False,
    reduced: bool = False,
    not_asked: Mapping[str, str] | None = None,
) -> Results:
    """Return the results of one judged run: gates, suites, comparisons, cases.

    Args:
        candidate: The judged model, decoded freely.
        name: The partition, or a name for a model judged outside the chain.
        profile: `ship` or `smoke`.
        base: Measured on the same cases.
        production: The same; it is what the candidate must beat where both are given.
        constrained: The same model decoded with a grammar; a column of its own, never judged.
        cases: The cases themselves, for prompts and expectations.
        harness_agreement: Lines of `harness_agreement.json`.
        other_gates: Gates of earlier assets, in the order of the chain.
        provenance: Where everything came from.
        in_chain: Whether this is the judgement of a partition. Outside the chain nothing can be SHIP, and
            `harness_agreement`, which is asked of the file that ships, is not waited for.
        reduced: Whether fewer cases or suites were run than the frozen suite has.
        not_asked: Gates left unjudged, by name, with why.
    """
    gates = [
        *other_gates,
        *judge_runs(
            candidate,
            base=base,
            production=production,
            harness_agreement=harness_agreement,
            profile=profile,
            reduced=reduced,
            not_asked=not_asked,
        ),
    ]
    is_sample = is_sample_suite(candidate.suite_version)
    judged = [gate for gate in gates if in_chain or gate.gate != "harness_agreement"]
    verdict: OverallVerdict = overall_verdict(judged, profile, suite_is_sample=is_sample or not in_chain)
    return build_results(
        partition=name,
        profile=profile,
        verdict=verdict,
        gates=gates,
        candidate=candidate,
        suites=suite_entries(candidate, base=base, production=production, constrained=constrained),
        comparisons=[
            *comparison_entries(candidate, base, "base"),
            *comparison_entries(candidate, production, "production"),
        ],
        cases=cases,
        base=base,
        production=production,
        provenance=provenance,
        suite_is_sample=is_sample,
    )


def write_reports(
    directory: Path,
    *,
    context: StageContext,
    candidate: SuiteRun,
    constrained: SuiteRun | None = None,
    base: SuiteRun | None = None,
    production: SuiteRun | None = None,
    cases: Sequence[Case] = (),
    harness_agreement: Iterable[Any] = (),
) -> dict[str, Any]:
    """Write `results.json`, `report.md` and `report.html` of a partition into the artifact being made.

    Returns:
        Counts and figures for the artifact's manifest: the verdict, gates by verdict, the rate of every suite.
    """
    configuration = context.configuration
    earlier = [
        row
        for row in gate_rows(context.engine, artifacts_in_use(context.artifacts, context.partition), configuration)
        if row.asset != ASSET
    ]
    results = judged_results(
        candidate,
        name=context.partition,
        profile=configuration.evaluation.profile,
        base=base,
        production=production,
        constrained=constrained,
        cases=cases,
        harness_agreement=harness_agreement,
        other_gates=earlier,
        provenance=_provenance(context),
        in_chain=True,
        reduced=is_reduced(configuration.evaluation),
    )
    write_rendered(results, directory)
    return report_metadata(results)


def write_rendered(results: Results, directory: Path) -> None:
    """Write the three files of a report into a folder."""
    write_atomically(directory / RESULTS_NAME, dump_results(results))
    write_atomically(directory / MARKDOWN_NAME, render_markdown(results))
    write_atomically(directory / HTML_NAME, render_html(results))


def report_metadata(results: Results) -> dict[str, Any]:
    """Return the figures of a report, with snake_case names and units."""
    verdicts = Counter(gate.verdict for gate in results.gates)
    metadata: dict[str, Any] = {
        "verdict": results.verdict.verdict,
        "verdict_headline": results.verdict.headline,
        "suite_version": results.suite_version,
        "suite_sha256": results.suite_sha256,
        "cases_count": len(results.cases),
        **{f"gates_{verdict}_count": verdicts.get(verdict, 0) for verdict in ("pass", "fail", "inconclusive")},
    }
    for suite in results.suites:
        metadata[f"suite_{suite.suite.lower()}_ratio"] = round(suite.passed / suite.n, 6) if suite.n else None
        if suite.base_ratio is not None:
            metadata[f"suite_{suite.suite.lower()}_base_ratio"] = round(suite.base_ratio, 6)
    return metadata


def suite_entries(
    candidate: SuiteRun,
    *,
    base: SuiteRun | None = None,
    production: SuiteRun | None = None,
    constrained: SuiteRun | None = None,
) -> list[SuiteEntry]:
    """Return the rate of every suite the candidate met, with the other models' on the same suite."""
    entries = []
    for suite in sorted({result.suite for result in candidate.results}):
        results = _of_suite(candidate, suite)
        under_grammar = [] if constrained is None else _of_suite(constrained, suite)
        entries.append(
            SuiteEntry(
                suite=suite,
                question=SUITE_QUESTIONS[suite],
                **dict(_rate(results)),
                outcomes=dict(sorted(Counter(result.outcome for result in results).items())),
                pass_hat_k=_pass_hat_k(results) if suite == "C" else {},
                base_ratio=_ratio(base, suite),
                production_ratio=_ratio(production, suite),
                constrained=_rate(under_grammar) if under_grammar else None,
            )
        )
    return entries


def _rate(results: Sequence[CaseResult]) -> RateEntry:
    estimate = estimate_rate(passes(results))
    interval = interval_of(estimate)
    return RateEntry(
        n=estimate.n,
        passed=estimate.successes,
        interval=None if interval is None else IntervalEntry(**interval.model_dump()),
    )


def comparison_entries(
    candidate: SuiteRun, other: SuiteRun | None, against: Literal["base", "production"]
) -> list[ComparisonEntry]:
    """Return the paired comparison with another model, one entry per suite; none where it was not measured."""
    if other is None:
        return []
    return to_entries(compare_runs(candidate, other), against, other.model.name)


def to_entries(
    comparisons: Sequence[SuiteComparison], against: Literal["base", "production", "run"], model: str
) -> list[ComparisonEntry]:
    """Return comparisons in the form of the results file."""
    return [
        ComparisonEntry(
            against=against,
            model=model,
            suite=item.suite,
            n=item.n,
            candidate_ratio=item.candidate_ratio,
            other_ratio=item.other_ratio,
            difference=item.difference,
            low=item.low,
            high=item.high,
            candidate_only=item.candidate_only,
            other_only=item.other_only,
            p=item.p,
            p_holm=item.p_holm,
        )
        for item in comparisons
    ]


def _rules(profile: Literal["ship", "smoke"]) -> list[GateRule]:
    return [rule for rule in all_rules(profile) if rule.asset == ASSET]


def _of_suite(run: SuiteRun, suite: str) -> list[CaseResult]:
    return [result for result in run.results if result.suite == suite]


def _ratio(run: SuiteRun | None, suite: str) -> float | None:
    results = [] if run is None else _of_suite(run, suite)
    return sum(result.passed for result in results) / len(results) if results else None


def _pass_hat_k(results: Sequence[CaseResult]) -> dict[str, float]:
    attempts = Counter(result.case_id for result in results)
    most = min(attempts.values(), default=0)
    pairs = [(result.case_id, result.passed) for result in results]
    return {f"pass^{k}": pass_hat_k(pairs, k) for k in range(1, most + 1)}


def _provenance(context: StageContext) -> dict[str, Any]:
    parents = {}
    for asset in dict.fromkeys(rule.asset for rule in all_rules("ship")):
        artifact = context.artifacts.current(asset, context.partition)
        if artifact is not None and asset != ASSET:
            parents[asset] = artifact.sha256
    return {
        "partition": context.partition,
        "preset": context.configuration.preset,
        "artifacts": parents,
        "overridden_gates": sorted(context.overridden_gates),
        "evaluation": context.configuration.evaluation.model_dump(mode="json"),
        "versions": package_versions(),
        "hardware": hardware(),
    }


def _plain(line: Any) -> Any:
    return line.model_dump() if hasattr(line, "model_dump") else line

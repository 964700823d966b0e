"""Gate on `baseline_reports`: base and production were measured, on this suite version, before any training."""

from __future__ import annotations

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.gates.eval_reports import load_run
from toolcall_pipeline.gates.evaluated import MAX_BROKEN_RATIO
from toolcall_pipeline.gates.evidence import broken_count
from toolcall_pipeline.gates.production import ProductionModel, current_production
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult


def baseline_problems(
    artifact: Artifact, suite_sha256: str, production: ProductionModel | None
) -> list[dict[str, str]]:
    """Return what is missing or unusable, one line per baseline.

    Args:
        artifact: Of `baseline_reports`.
        suite_sha256: Of the suite version the dataset was kept apart from.
        production: The model in production now, None where nothing is.
    """
    wanted: list[tuple[str, str, str | None]] = [("base", "base.json", None)]
    if production is not None:
        wanted.append(("production", "production.json", production.gguf_sha256))
    problems = []
    for name, file, model_sha256 in wanted:
        if file not in artifact.manifest.files:
            problems.append({"baseline": name, "problem": "was not measured"})
            continue
        run = load_run(artifact, file)
        if run.suite_sha256 != suite_sha256:
            problems.append({"baseline": name, "problem": f"was measured on another suite ({run.suite_version})"})
        elif model_sha256 is not None and run.model.sha256 != model_sha256:
            problems.append({"baseline": name, "problem": "is not the model in production now"})
        elif not run.results:
            problems.append({"baseline": name, "problem": "met no case"})
        problems += [{"baseline": name, "problem": problem} for problem in _broken_suites(run)]
    return problems


def _broken_suites(run: SuiteRun) -> list[str]:
    """Return what broke too often: the run as a whole, or one suite of it (of few cases one may)."""
    broken = broken_count(run.results)
    if broken > MAX_BROKEN_RATIO * len(run.results):
        return [f"broke in {broken} of {len(run.results)} cases"]
    problems = []
    for suite in sorted({result.suite for result in run.results}):
        cases = [result for result in run.results if result.suite == suite]
        broken = broken_count(cases)
        if broken > max(1.0, MAX_BROKEN_RATIO * len(cases)):
            problems.append(f"broke in {broken} of {len(cases)} cases of suite {suite}")
    return problems


def _judge(context: GateContext) -> GateResult:
    dataset = context.store.require("v2_chat_dataset", context.partition)
    suite_sha256 = str(dataset.manifest.metadata["suite_sha256"])
    production = current_production(context.engine)
    problems = baseline_problems(context.artifact, suite_sha256, production)
    count = 1 if production is None else 2
    listed = "; ".join(f"{line['baseline']} {line['problem']}" for line in problems)
    return exact_verdict(
        context.rule,
        measured=len(problems),
        n=count,
        explanation=listed
        or f"{'Base' if count == 1 else 'Base and production'} measured on suite {suite_sha256[:12]}",
        how_to_fix="Materialise baseline_reports again, before training.",
        details={"problems": problems},
    )


GATES: tuple[Gate, ...] = (
    Gate(
        name="baselines_measured",
        asset="baseline_reports",
        description="Base and production are measured on the same suite version before training.",
        judge=_judge,
    ),
)

"""Stages of evaluation: the baselines, the candidate's evidence, the check of a model on suite D."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import Artifact, sha256_file, write_atomically
from toolcall_pipeline.evaluation.attempts import (
    HARNESS_UNMEASURED,
    UNMEASURED,
    newest_attempt,
    unmeasured_count,
    unmeasured_in,
)
from toolcall_pipeline.evaluation.baselines import measure_baselines
from toolcall_pipeline.evaluation.cases import BROKEN_OUTCOMES, Case, SuiteRun
from toolcall_pipeline.evaluation.evaluating import evaluate_gated, evaluate_model, run_metadata
from toolcall_pipeline.evaluation.harness import measure_harness_agreement
from toolcall_pipeline.evaluation.labels import labels_sha256, load_labels
from toolcall_pipeline.evaluation.outcomes import SCORING_VERSION
from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite
from toolcall_pipeline.stage_context import StageContext

__all__ = ["evaluate_candidate", "evaluate_model", "measure_baselines", "validate_model"]

ServerFactory = Callable[..., AbstractContextManager[Any]]
ReportWriter = Callable[..., dict[str, Any]]


def validate_model(context: StageContext, model: Path, suite: FrozenSuite) -> dict[str, Any]:
    """Run suite D alone on a merged model or a GGUF file; returns the SuiteRun as plain data."""
    return evaluate_gated(context, model, suite, suites=("D",)).model_dump(mode="json")


def evaluate_candidate(
    context: StageContext,
    suite: FrozenSuite,
    *,
    gguf_path: Path,
    gguf_artifact_sha256: str,
    baselines: Artifact,
    llama_server: ServerFactory | None = None,
    write_reports: ReportWriter | None = None,
) -> Artifact:
    """Make `eval_reports`: every suite on the file that would ship, beside base and production.

    What broke the last time is asked again, and makes a further artifact where less of it breaks.

    Args:
        context: Partition, configuration, settings.
        suite: The frozen suite the baselines were measured on.
        gguf_path: The candidate.
        gguf_artifact_sha256: Hash of the artifact `gguf_q6k` it belongs to.
        baselines: `baseline_reports` of the partition.
        llama_server: Starts a llama.cpp server on a file (`export.llama_server.LlamaServer`), for the comparison of
            harnesses; None leaves that empty, and its gate inconclusive.
        write_reports: Writes results.json and the reports (`gates.reporting.write_reports`).

    Returns:
        The artifact: suite_run.json, constrained.json where configured, cases.jsonl, harness_agreement.json,
        transcripts.jsonl, and what `write_reports` leaves.
    """
    configuration = context.configuration.evaluation
    recipe = {
        "asset": "eval_reports",
        "gguf_sha256": sha256_file(gguf_path),
        "gguf_artifact_sha256": gguf_artifact_sha256,
        "suite_sha256": suite.sha256,
        "baselines_sha256": baselines.sha256,
        "configuration": configuration.model_dump(mode="json"),
        "labels_sha256": labels_sha256(load_labels(context.settings)),
        "scoring": SCORING_VERSION,
    }
    found, recipe = newest_attempt(context.artifacts, "eval_reports", context.partition, recipe)
    if found is not None and not unmeasured_in(found):
        return found
    candidate = evaluate_gated(context, gguf_path, suite)
    constrained = evaluate_gated(context, gguf_path, suite, constrained=True) if configuration.constrained else None
    cases = cases_of_run(suite, candidate)
    unmeasured = {UNMEASURED: unmeasured_count(candidate), HARNESS_UNMEASURED: 0}
    if found is not None and unmeasured[UNMEASURED] >= unmeasured_in(found):
        return found
    harness = measure_harness_agreement(context, gguf_path, cases, candidate, llama_server)
    unmeasured[HARNESS_UNMEASURED] = sum(compared["server"] in BROKEN_OUTCOMES for compared in harness)
    if found is not None and sum(unmeasured.values()) >= unmeasured_in(found):
        return found
    base, production = (load_run(baselines, name) for name in ("base.json", "production.json"))
    with context.artifacts.build(
        "eval_reports",
        context.partition,
        recipe_of_artifact=recipe,
        parents={"gguf_q6k": gguf_artifact_sha256, "baseline_reports": baselines.sha256},
        seeds={"agentic_first": 0},
    ) as build:
        _write_evidence(build.directory, candidate, constrained, cases, harness)
        build.metadata |= {
            "suite_sha256": suite.sha256,
            "suite_version": suite.version,
            "is_sample_suite": suite.is_sample,
        }
        build.metadata |= run_metadata(candidate) | unmeasured
        if write_reports is not None:
            build.metadata |= write_reports(
                build.directory,
                context=context,
                candidate=candidate,
                constrained=constrained,
                base=base,
                production=production,
                cases=cases,
                harness_agreement=harness,
            )
    return context.artifacts.require("eval_reports", context.partition)


def cases_of_run(suite: FrozenSuite, run: SuiteRun) -> list[Case]:
    """Return the cases a run has results of, in suite order."""
    met = {(result.suite, result.case_id) for result in run.results}
    return [case for case in suite.cases if (case.suite, case.case_id) in met]


def load_run(artifact: Artifact, name: str) -> SuiteRun | None:
    """Return a stored run of an artifact, or None where it has no such file."""
    if name not in artifact.manifest.files:
        return None
    return SuiteRun.model_validate_json(artifact.path(name).read_bytes())


def _write_evidence(
    directory: Path,
    candidate: SuiteRun,
    constrained: SuiteRun | None,
    cases: Sequence[Case],
    harness: Sequence[dict[str, Any]],
) -> None:
    write_atomically(directory / "suite_run.json", candidate.model_dump_json(indent=1) + "\n")
    if constrained is not None:
        write_atomically(directory / "constrained.json", constrained.model_dump_json(indent=1) + "\n")
    write_atomically(directory / "cases.jsonl", "".join(case.model_dump_json() + "\n" for case in cases))
    write_atomically(directory / "harness_agreement.json", json.dumps(list(harness), indent=1) + "\n")
    write_atomically(directory / "transcripts.jsonl", "".join(_transcripts(cases, candidate)))


def _transcripts(cases: Sequence[Case], run: SuiteRun) -> Iterator[str]:
    """Yield one JSON line per result: what was asked, what was said, what tools answered, verbatim."""
    by_id = {(case.suite, case.case_id): case for case in cases}
    for result in run.results:
        case = by_id[result.suite, result.case_id]
        yield (
            json.dumps(
                {
                    "suite": result.suite,
                    "case_id": result.case_id,
                    "seed": result.seed,
                    "outcome": result.outcome,
                    "messages": list(case.messages),
                    "turns": [{"raw": turn.raw, "tool_results": list(turn.tool_results)} for turn in result.turns],
                }
            )
            + "\n"
        )

"""Gates on `eval_reports`: the judged file on every suite, against production or the base."""

from __future__ import annotations

import json
from functools import partial

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.gates.evaluated import JUDGES, judge_evidence
from toolcall_pipeline.gates.evidence import Agreement, Evidence, is_reduced
from toolcall_pipeline.gates.profiles import all_rules
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult
from toolcall_pipeline.presets import EvaluationConfiguration

ASSET = "eval_reports"


def load_run(artifact: Artifact, name: str) -> SuiteRun:
    """Read one SuiteRun of an artifact.

    Raises:
        MissingInputError: The artifact has no such file.
    """
    return SuiteRun.model_validate_json(artifact.path(name).read_bytes())


def load_evidence(artifact: Artifact, baselines: Artifact, configuration: EvaluationConfiguration) -> Evidence:
    """Read what the gates look at.

    Args:
        artifact: Of `eval_reports`.
        baselines: The `baseline_reports` it was compared with.
        configuration: In force now; what was run is in the artifact, and a part that was run stays a part.
    """
    production = "production.json" in baselines.manifest.files
    agreement = json.loads(artifact.path("harness_agreement.json").read_text(encoding="utf-8"))
    return Evidence(
        candidate=load_run(artifact, "suite_run.json"),
        reference=load_run(baselines, "production.json" if production else "base.json"),
        reference_name="production" if production else "base",
        agreement=tuple(Agreement.model_validate(case) for case in agreement),
        is_reduced=is_reduced(configuration) or _was_reduced(artifact),
    )


def _was_reduced(artifact: Artifact) -> bool:
    made_with = artifact.manifest.recipe_of_artifact.get("configuration")
    return made_with is not None and is_reduced(EvaluationConfiguration.model_validate(made_with))


def _judge(name: str, context: GateContext) -> GateResult:
    baselines = context.parent("baseline_reports")
    if context.rule.gate != name:
        raise ValueError(f"Gate {name} was given the rule of {context.rule.gate}.")
    return judge_evidence(context.rule, load_evidence(context.artifact, baselines, context.configuration.evaluation))


GATES: tuple[Gate, ...] = tuple(
    Gate(name=rule.gate, asset=ASSET, description=rule.question, judge=partial(_judge, rule.gate))
    for rule in all_rules("ship")
    if rule.asset == ASSET and rule.gate in JUDGES
)

"""`baseline_reports`: base and production model on the same cases, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import Artifact, sha256_file, write_atomically
from toolcall_pipeline.errors import ArtifactError, MissingInputError
from toolcall_pipeline.evaluation.attempts import newest_attempt, unmeasured_count, unmeasured_in
from toolcall_pipeline.evaluation.evaluating import evaluate_gated, run_metadata
from toolcall_pipeline.evaluation.labels import labels_sha256, load_labels
from toolcall_pipeline.evaluation.outcomes import SCORING_VERSION
from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite
from toolcall_pipeline.stage_context import StageContext

Model = tuple[Path, str]
"""A GGUF file and its SHA-256."""


def measure_baselines(
    context: StageContext, suite: FrozenSuite, *, base_gguf: Model, production: Model | None
) -> Artifact:
    """Measure the base model, and production where something ships, on a frozen suite.

    Results are kept by model, case and generation (`results_log.py`), so a model is measured once per suite version. What broke
    is asked again, and makes a further artifact where less of it breaks.

    Returns:
        The artifact: base.json, production.json where something is in production.

    Raises:
        MissingInputError: The production file is gone.
        ArtifactError: It is not the file that was shipped.
    """
    if production is not None:
        _check(production)
    recipe = {
        "asset": "baseline_reports",
        "base_sha256": base_gguf[1],
        "production_sha256": production[1] if production else None,
        "suite_sha256": suite.sha256,
        "configuration": context.configuration.evaluation.model_dump(mode="json"),
        "labels_sha256": labels_sha256(load_labels(context.settings)),
        "scoring": SCORING_VERSION,
    }
    found, recipe = newest_attempt(context.artifacts, "baseline_reports", context.partition, recipe)
    if found is not None and not unmeasured_in(found):
        return found
    models: dict[str, Model] = {"base": base_gguf} | ({"production": production} if production else {})
    runs = {name: evaluate_gated(context, path, suite) for name, (path, _) in models.items()}
    if found is not None and sum(map(unmeasured_count, runs.values())) >= unmeasured_in(found):
        return found
    with context.artifacts.build(
        "baseline_reports",
        context.partition,
        recipe_of_artifact=recipe,
    ) as build:
        metadata: dict[str, Any] = {"suite_sha256": suite.sha256, "suite_version": suite.version}
        for name, run in runs.items():
            write_atomically(build.directory / f"{name}.json", run.model_dump_json(indent=1) + "\n")
            metadata[f"{name}_sha256"] = models[name][1]
            metadata |= {f"{name}_{key}": value for key, value in run_metadata(run).items()}
        build.metadata |= metadata
    return context.artifacts.require("baseline_reports", context.partition)


def _check(production: Model) -> None:
    path, expected = production
    if not path.is_file():
        raise MissingInputError(
            f"The production model {path} is gone. Restore the file, or move the pointer with `rollback` or `retract`."
        )
    found = sha256_file(path)
    if found != expected:
        raise ArtifactError(f"{path} is not what was shipped: expected SHA-256 {expected}, found {found}. Restore it.")

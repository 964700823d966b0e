"""Measuring again what broke: an artifact with cases that say nothing about the model is evidence, and not the last word."""

from __future__ import annotations

from typing import Any

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.evaluation.cases import SuiteRun

UNMEASURED = "unmeasured_count"
HARNESS_UNMEASURED = f"harness_{UNMEASURED}"


def unmeasured_count(run: SuiteRun) -> int:
    """Return how many cases of a run broke, and one more where suite C could not be run at all."""
    return sum(result.is_broken for result in run.results) + bool(run.generation.get("suite_c_not_run"))


def unmeasured_in(artifact: Artifact) -> int:
    """Return the sum of an artifact's unmeasured cases over the runs it holds."""
    return sum(count for name, count in artifact.manifest.metadata.items() if name.endswith(UNMEASURED))


def newest_attempt(
    artifacts: ArtifactStore, asset: str, partition: str, recipe: dict[str, Any]
) -> tuple[Artifact | None, dict[str, Any]]:
    """Return the newest artifact that was made of a recipe, and the recipe of the next.

    Args:
        artifacts: Where artifacts lie.
        asset: Name of the asset.
        partition: Key of the partition.
        recipe: What decides the artifact; a further attempt has its number in it as well.
    """
    newest, following = None, recipe
    while (found := artifacts.find(asset, partition, following)) is not None:
        newest = found
        following = recipe | {"attempt": following.get("attempt", 1) + 1}
    return newest, following

"""The body that every asset shares: configuration, guard, stage function, result."""

from __future__ import annotations

import time
from typing import Any

import dagster as dg

from toolcall_pipeline import chain
from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.defs.configuration import CONFIGURATION_KEY, resolve_and_remember
from toolcall_pipeline.defs.metadata import artifact_metadata
from toolcall_pipeline.defs.resources import STORE_KEY, Store
from toolcall_pipeline.defs.wiring import Wiring
from toolcall_pipeline.errors import GateHeldError
from toolcall_pipeline.gates import guard
from toolcall_pipeline.stage_context import ProgressCallback, StageContext

REQUIRED_RESOURCES = {STORE_KEY, CONFIGURATION_KEY}
HELD_METADATA = "held_asset"
_SECONDS_BETWEEN_LINES = 5.0


def run_stage(context: dg.AssetExecutionContext, wiring: Wiring, asset: str, **options: Any) -> dg.MaterializeResult:
    """Make one asset of the run's partition behind its guard, and return what the UI shows.

    Args:
        context: Dagster's context of the step.
        wiring: The stage functions.
        asset: Name of the asset.
        options: Handed on to the stage function.

    Raises:
        dagster.Failure: A gate on an upstream artifact did not pass; not worth a retry. The reason is on the run's page.
        ToolcallPipelineError: The stage could not do its work.
    """
    stage_context = make_stage_context(context, wiring, asset)
    artifact = wiring.materialise(asset, stage_context, **options)
    log_result(context, artifact)
    return dg.MaterializeResult(metadata=artifact_metadata(artifact), data_version=dg.DataVersion(artifact.sha256))


def make_stage_context(context: dg.AssetExecutionContext, wiring: Wiring, asset: str) -> StageContext:
    """Return the stage's surroundings, after the guard has let it through."""
    store: Store = getattr(context.resources, STORE_KEY)
    partition = context.partition_key
    configuration = resolve_and_remember(store.engine, partition, getattr(context.resources, CONFIGURATION_KEY))
    try:
        overridden = guard.require_passed(
            store.engine, store.artifacts, partition, chain.ancestors(asset), configuration
        )
    except GateHeldError as error:
        raise dg.Failure(
            description=f"{asset} is held: {error}",
            metadata={"why": dg.MetadataValue.md(str(error)), HELD_METADATA: asset},
            allow_retries=False,
        ) from error
    return StageContext(
        partition=partition,
        configuration=configuration,
        settings=store.settings,
        engine=store.engine,
        log=context.log,
        progress=progress_to(context, wiring, asset),
        overridden_gates=overridden,
    )


def progress_to(context: dg.AssetExecutionContext, wiring: Wiring, asset: str) -> ProgressCallback:
    """Return a callback that writes progress to Dagster's log, at most a line in five seconds, and to the terminal."""
    started = time.monotonic()
    last = started - _SECONDS_BETWEEN_LINES

    def report(done: int, total: int | None, unit: str, message: str) -> None:
        nonlocal last
        wiring.progress(asset, done, total, unit, message)
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES and done != total:
            return
        last = now
        context.log.info(progress_line(done, total, unit, message, now - started))

    return report


def progress_line(done: int, total: int | None, unit: str, message: str, seconds: float) -> str:
    """Return `message: 40/100 rows, 12.5 rows/s, 5 s left`."""
    line = f"{message}: {done:,}" + (f"/{total:,}" if total is not None else "") + f" {unit}"
    rate = done / seconds if seconds > 0 else 0.0
    if rate > 0:
        line += f", {rate:,.1f} {unit}/s"
        if total is not None and total > done:
            line += f", {(total - done) / rate:,.0f} s left"
    return line


def log_result(context: dg.AssetExecutionContext, artifact: Artifact) -> None:
    """Write one line that says which bytes the partition has now."""
    manifest = artifact.manifest
    context.log.info(
        f"{manifest.asset} of {manifest.partition}: {len(manifest.files)} files, SHA-256 {manifest.artifact_sha256}, "
        f"in {artifact.directory}"
    )

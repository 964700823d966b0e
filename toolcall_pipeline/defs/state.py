"""What Dagster knows of a partition's assets: running, failed, done."""

from __future__ import annotations

import dagster as dg
import psutil

from toolcall_pipeline.defs.instance import project_instance
from toolcall_pipeline.defs.partitions import BACKFILL_RUNS
from toolcall_pipeline.defs.stage import HELD_METADATA
from toolcall_pipeline.settings import Settings

PROCESS_TAG = "toolcall_pipeline/process_id"
_STATES = {"IN_PROGRESS": "running", "FAILED": "failed", "MATERIALIZED": "done"}


def asset_states(settings: Settings, partition: str) -> dict[str, str]:
    """Return `running`, `failed` or `done` for each asset of a partition that a Dagster run has touched.

    Args:
        settings: Where state and server are; the server must be up.
        partition: The `backfill_run_id`.
    """
    from toolcall_pipeline import chain

    states = {}
    with project_instance(settings, in_process=True) as instance:
        mark_abandoned_runs(instance)
        for asset in chain.ASSETS:
            status = instance.get_status_by_partition(dg.AssetKey(asset), [partition], BACKFILL_RUNS) or {}
            state = status.get(partition)
            if state is not None and (state.name != "FAILED" or _broke(instance, asset, partition)):
                states[asset] = _STATES[state.name]
    return states


def _broke(instance: dg.DagsterInstance, asset: str, partition: str) -> bool:
    """Return whether the asset's own step broke in the last run that meant to make it; held or skipped is not broken."""
    planned = instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        dg.AssetKey(asset)
    )
    run_id = planned.get(partition, (None, 0))[0]
    if run_id is None:
        return False
    failures = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    for entry in failures:
        event = entry.dagster_event
        if event is not None and event.step_key == asset:
            user = event.step_failure_data.user_failure_data
            return user is None or HELD_METADATA not in user.metadata
    run = instance.get_run_by_id(run_id)
    return run is not None and not failures and run.status is dg.DagsterRunStatus.FAILURE


def mark_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report runs of commands that were killed as failed, and return their ids; else they would look alive for ever."""
    alive = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
    abandoned = []
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=alive)):
        process_id = run.tags.get(PROCESS_TAG)
        if process_id is not None and not psutil.pid_exists(int(process_id)):
            instance.report_run_failed(run, f"The command that ran it (process {process_id}) is gone.")
            abandoned.append(run.run_id)
    return abandoned

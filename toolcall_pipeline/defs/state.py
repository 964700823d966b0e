"""What Dagster knows of a partition's assets: being made, broken, or refused by a guard."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import dagster as dg
import psutil
from dagster._core.execution.stats import StepEventStatus

from toolcall_pipeline import chain
from toolcall_pipeline.defs.instance import project_instance
from toolcall_pipeline.defs.partitions import BACKFILL_RUN_ID
from toolcall_pipeline.defs.stage import HELD_METADATA
from toolcall_pipeline.settings import Settings

PARTITION_TAG = "dagster/partition"
PROCESS_TAG = "toolcall_pipeline/process"
_ALIVE = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.CANCELING]
_RUNS_LOOKED_AT = 25
_CLOCK_SECONDS = 60.0


def asset_states(settings: Settings, partition: str) -> dict[str, str] | None:
    """Return `running`, `failed`, `held` or `done` for each asset of a partition that a run began, as the last one left it.

    Args:
        settings: Where state and server are; the server must be up.
        partition: The `backfill_run_id`.

    Returns:
        Asset to state; None where the partition was never added.
    """
    with project_instance(settings, in_process=True) as instance:
        if not instance.has_dynamic_partition(BACKFILL_RUN_ID, partition):
            return None
        mark_abandoned_runs(instance)
        states: dict[str, str] = {}
        newest_first = instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: partition}), limit=_RUNS_LOOKED_AT)
        for run in newest_first:
            for step in instance.get_run_step_stats(run.run_id):
                if step.step_key in chain.UPSTREAM and step.status is not StepEventStatus.SKIPPED:
                    states.setdefault(step.step_key, _state(instance, run, step.step_key, step.status))
            if len(states) == len(chain.ASSETS):
                break
    return states


def _state(instance: dg.DagsterInstance, run: dg.DagsterRun, asset: str, status: StepEventStatus | None) -> str:
    if status is StepEventStatus.SUCCESS:
        return "done"
    if status is StepEventStatus.FAILURE:
        return "held" if _was_held(instance, run, asset) else "failed"
    return "failed" if run.is_finished else "running"


def _was_held(instance: dg.DagsterInstance, run: dg.DagsterRun, asset: str) -> bool:
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        if event is not None and event.step_key == asset:
            user = event.step_failure_data.user_failure_data
            return user is not None and HELD_METADATA in user.metadata
    return False


def runs_in_progress(instance: dg.DagsterInstance, partition: str) -> list[dg.DagsterRun]:
    """Return the runs of a partition that are going on."""
    mark_abandoned_runs(instance)
    return list(instance.get_runs(dg.RunsFilter(statuses=_ALIVE, tags={PARTITION_TAG: partition})))


def process_identity() -> str:
    """Return host, number and start of this process, which name no later process of the same number."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.0f}"


def mark_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report runs of commands that were killed as failed, and return their ids; else they would look alive for ever."""
    abandoned = []
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=_ALIVE)):
        process = run.tags.get(PROCESS_TAG)
        if process is not None and _is_gone(process):
            instance.report_run_failed(run, f"The command that ran it (process {process.split()[1]}) is gone.")
            abandoned.append(run.run_id)
    return abandoned


def _is_gone(process: str) -> bool:
    host, number, started = process.split()
    if host != socket.gethostname():
        return False  # another machine's process cannot be looked at from here
    with suppress(psutil.NoSuchProcess):
        # A clock that was set moves the start of every process a little.
        return abs(psutil.Process(int(number)).create_time() - float(started)) > _CLOCK_SECONDS
    return True

"""The schedules, with real ticks of the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from toolcall_pipeline.defs.configuration import resolve
from toolcall_pipeline.defs.jobs import DATA_HALF
from toolcall_pipeline.defs.not_due import NOT_DUE_TAG
from toolcall_pipeline.defs.partitions import BACKFILL_RUN_ID
from toolcall_pipeline.defs.schedules import TIME_ZONE, checked_time_zone, nightly_backfill, nightly_backup
from toolcall_pipeline.errors import ConfigurationError

TICK = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
KEY = "20261123T020000Z-nightly"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def evaluate(instance: dg.DagsterInstance, tick: datetime) -> dg.RunRequest:
    return nightly_backfill(dg.build_schedule_context(instance=instance, scheduled_execution_time=tick))


def test_a_tick_adds_its_partition_and_asks_for_one_run_of_the_data_half(instance: dg.DagsterInstance) -> None:
    request = evaluate(instance, TICK)
    assert instance.get_dynamic_partitions(BACKFILL_RUN_ID) == [KEY]
    assert (request.partition_key, request.run_key) == (KEY, KEY)
    assert nightly_backfill.job_name == DATA_HALF
    assert NOT_DUE_TAG in request.tags
    explicit = request.run_config["resources"]["configuration"]["config"]
    assert resolve(explicit, None).preset == "nightly"


def test_the_same_tick_again_adds_nothing_in_whatever_zone_it_is_told_and_another_night_is_another_partition(
    instance: dg.DagsterInstance,
) -> None:
    ticks = [TICK, TICK, TICK.astimezone(ZoneInfo("Asia/Kolkata"))]
    assert {evaluate(instance, tick).run_key for tick in ticks} == {KEY}
    assert instance.get_dynamic_partitions(BACKFILL_RUN_ID) == [KEY]
    evaluate(instance, TICK + timedelta(days=1))
    assert instance.get_dynamic_partitions(BACKFILL_RUN_ID) == [KEY, "20261124T020000Z-nightly"]


@pytest.mark.parametrize(("schedule", "cron"), [(nightly_backfill, "0 2 * * *"), (nightly_backup, "14 3 * * *")])
def test_schedules_are_stopped_in_code_and_say_their_time_zone(schedule: dg.ScheduleDefinition, cron: str) -> None:
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.execution_timezone == TIME_ZONE
    assert schedule.cron_schedule == cron


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin"])
def test_a_time_zone_that_exists_is_taken(name: str) -> None:
    assert checked_time_zone(name) == name


@pytest.mark.parametrize("name", ["Berlin", "", "../etc/passwd", "Europe"])
def test_a_time_zone_that_does_not_exist_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="TOOLCALL_PIPELINE_TIMEZONE"):
        checked_time_zone(name)


def test_the_scheduler_itself_ticks_once_a_night_and_not_again_after_a_restart(instance: dg.DagsterInstance) -> None:
    """Runs the daemon's own scheduler loop over a real code location, with the clock moved past two in the morning."""
    from dagster._core.scheduler.instigation import TickStatus
    from dagster._core.test_utils import create_test_daemon_workspace_context
    from dagster._core.workspace.load_target import ModuleTarget
    from dagster._daemon import get_default_daemon_logger
    from dagster._scheduler.scheduler import launch_scheduled_runs

    target = ModuleTarget(
        module_name="toolcall_pipeline.definitions",
        attribute=None,
        working_directory=None,
        location_name="toolcall_pipeline",
    )
    before, after = TICK - timedelta(hours=1), TICK + timedelta(minutes=1)
    with create_test_daemon_workspace_context(target, instance) as workspace:
        location = next(iter(workspace.create_request_context().get_code_location_entries().values())).code_location
        schedule = location.get_repository("__repository__").get_schedule("nightly_backfill")
        with freeze_time(before):
            instance.start_schedule(schedule)
        for _ in range(2):
            with freeze_time(after):
                logger = get_default_daemon_logger("Scheduler")
                list(launch_scheduled_runs(workspace, logger, after, {}))
        ticks = instance.get_ticks(schedule.get_remote_origin_id(), schedule.selector_id)
    assert [tick.status for tick in ticks] == [TickStatus.SUCCESS]
    assert instance.get_dynamic_partitions(BACKFILL_RUN_ID) == [KEY]
    assert [run.tags["dagster/partition"] for run in instance.get_runs()] == [KEY]

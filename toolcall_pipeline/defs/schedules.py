"""What happens by itself at night; both schedules are stopped until someone starts them in the UI."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfo

import dagster as dg

from toolcall_pipeline.defs.configuration import CONFIGURATION_KEY
from toolcall_pipeline.defs.jobs import BACKUP, DATA_HALF
from toolcall_pipeline.defs.not_due import NOT_DUE, NOT_DUE_TAG
from toolcall_pipeline.defs.partitions import add_partition
from toolcall_pipeline.errors import ConfigurationError
from toolcall_pipeline.partition_key import make_partition_key
from toolcall_pipeline.settings import load_settings

NIGHTLY_LABEL = "nightly"


def checked_time_zone(name: str) -> str:
    """Return the name of a time zone that exists.

    Raises:
        ConfigurationError: There is no such zone.
    """
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"TOOLCALL_PIPELINE_TIMEZONE={name!r} is no time zone. Expected a name such as UTC or Europe/Berlin."
        ) from error


TIME_ZONE = checked_time_zone(load_settings().timezone)


@dg.schedule(
    name="nightly_backfill",
    cron_schedule="0 2 * * *",
    execution_timezone=TIME_ZONE,
    job_name=DATA_HALF,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="At 02:00 adds the partition of its tick and runs the data half: read, store, dataset, gates.",
)
def nightly_backfill(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Add the tick's partition (again: nothing) and ask for one run of it."""
    partition = make_partition_key(context.scheduled_execution_time.astimezone(UTC), NIGHTLY_LABEL)
    added = add_partition(context.instance, partition)
    context.log.info(f"Partition {partition} {'added' if added else 'was there already'}.")
    return dg.RunRequest(
        run_key=partition,
        partition_key=partition,
        run_config={"resources": {CONFIGURATION_KEY: {"config": {"preset": "nightly"}}}},
        tags={NOT_DUE_TAG: NOT_DUE},
    )


nightly_backup = dg.ScheduleDefinition(
    name="nightly_backup",
    cron_schedule="14 3 * * *",
    execution_timezone=TIME_ZONE,
    job_name=BACKUP,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="At 03:14 dumps the store and keeps the three newest dailies.",
)

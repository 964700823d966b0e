"""The one partitions definition that every asset and every check shares."""

from __future__ import annotations

import dagster as dg

BACKFILL_RUN_ID = "backfill_run_id"
BACKFILL_RUNS = dg.DynamicPartitionsDefinition(name=BACKFILL_RUN_ID)


def add_partition(instance: dg.DagsterInstance, partition: str) -> bool:
    """Add a partition where it is not there yet, and say whether it was added."""
    if instance.has_dynamic_partition(BACKFILL_RUN_ID, partition):
        return False
    instance.add_dynamic_partitions(BACKFILL_RUN_ID, [partition])
    return True

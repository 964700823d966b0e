"""The runs: one row per `backfill_run_id`, with the configuration it is made with and its freeze number.

The freeze number is the order of runs. It is given when a run is registered and never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine, RowMapping

from toolcall_pipeline.artifacts import canonical_json
from toolcall_pipeline.errors import StoreError, UsageError
from toolcall_pipeline.partition_key import parse_partition_key
from toolcall_pipeline.presets import Configuration

_COLUMNS = (
    "backfill_run_id, freeze_number, preset, configuration, is_sample, rollback_count, rolled_back_at, created_at"
)
# Registration takes this lock for a moment, so that freeze numbers have no gaps and no two runs share one.
_LOCK_KEY = 0x7C0001


@dataclass(frozen=True, slots=True)
class BackfillRun:
    """One run.

    Attributes:
        backfill_run_id: The partition key.
        freeze_number: Its place in the order of runs, from 1.
        preset: Name of the preset it was made with.
        configuration: Everything it is made with.
        is_sample: Made from the shipped sample sessions.
        rollback_count: How often its rows were rolled back.
        rolled_back_at: When its rows were rolled back; None while they are there.
        created_at: When it was registered.
    """

    backfill_run_id: str
    freeze_number: int
    preset: str
    configuration: Configuration
    is_sample: bool
    rollback_count: int
    rolled_back_at: datetime | None
    created_at: datetime


def register_run(engine: Engine, partition: str, configuration: Configuration, is_sample: bool = False) -> BackfillRun:
    """Register a run and give it the next freeze number; the first registration of a partition stands.

    Args:
        engine: The store.
        partition: The `backfill_run_id`.
        configuration: What the partition is made with; ignored where the run is registered already.
        is_sample: Whether it reads the shipped sample sessions.

    Returns:
        The run as it is stored.

    Raises:
        PartitionKeyError: The key has another form.
    """
    parse_partition_key(partition)
    found = get_run(engine, partition)
    if found is not None:
        return found
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        connection.execute(
            text(
                "INSERT INTO backfill_runs (backfill_run_id, freeze_number, preset, configuration, is_sample) "
                "SELECT :run, coalesce(max(freeze_number), 0) + 1, :preset, CAST(:configuration AS jsonb), :is_sample "
                "FROM backfill_runs ON CONFLICT (backfill_run_id) DO NOTHING"
            ),
            {
                "run": partition,
                "preset": configuration.preset,
                "configuration": canonical_json(configuration.model_dump(mode="json")),
                "is_sample": is_sample,
            },
        )
        return _require(connection, partition)


def get_run(engine: Engine, partition: str) -> BackfillRun | None:
    """Return a run, or None where it was never registered."""
    with engine.connect() as connection:
        return _select(connection, partition)


def require_run(engine: Engine, partition: str) -> BackfillRun:
    """Return a run of this store.

    Raises:
        UsageError: There is none of this name.
    """
    run = get_run(engine, partition)
    if run is None:
        known = ", ".join(run.backfill_run_id for run in list_runs(engine)[-5:]) or "none"
        raise UsageError(f"There is no run {partition!r} in this store. The newest are: {known}.")
    return run


def list_runs(engine: Engine, up_to_freeze_number: int | None = None) -> list[BackfillRun]:
    """Return all runs, or those up to and including a freeze number, in their order."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                f"SELECT {_COLUMNS} FROM backfill_runs "
                "WHERE CAST(:limit AS integer) IS NULL OR freeze_number <= :limit ORDER BY freeze_number"
            ),
            {"limit": up_to_freeze_number},
        )
        return [_run(row) for row in rows.mappings()]


def update_configuration(engine: Engine, partition: str, configuration: Configuration) -> BackfillRun:
    """Replace the configuration a run remembers (a later run of the partition set fields on purpose).

    Raises:
        StoreError: The run was never registered.
    """
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE backfill_runs SET preset = :preset, configuration = CAST(:configuration AS jsonb) "
                "WHERE backfill_run_id = :run"
            ),
            {
                "run": partition,
                "preset": configuration.preset,
                "configuration": canonical_json(configuration.model_dump(mode="json")),
            },
        )
        return _require(connection, partition)


def mark_linking(engine: Engine, partition: str, is_sample: bool) -> None:
    """Write down that a run's rows are being stored (again), and whether it reads the sample sessions."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE backfill_runs SET is_sample = :is_sample, rolled_back_at = NULL WHERE backfill_run_id = :run"),
            {"run": partition, "is_sample": is_sample},
        )


def pretend_run(connection: Connection, partition: str) -> None:
    """Register a run inside a transaction that will be rolled back, so that rows of a dry run have one."""
    connection.execute(
        text(
            "INSERT INTO backfill_runs (backfill_run_id, freeze_number, preset, configuration) "
            "SELECT :run, coalesce(max(freeze_number), 0) + 1, 'dry run', '{}' FROM backfill_runs "
            "ON CONFLICT (backfill_run_id) DO NOTHING"
        ),
        {"run": partition},
    )


def store_id(engine: Engine) -> str:
    """Return the identity of this store: an artifact that tells of its rows belongs to it alone."""
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT store_id FROM store_identity")).scalar_one())


def _require(connection: Connection, partition: str) -> BackfillRun:
    run = _select(connection, partition)
    if run is None:
        raise StoreError(f"Run {partition} is not registered in this store. Materialise jsonl_sessions first.")
    return run


def _select(connection: Connection, partition: str) -> BackfillRun | None:
    statement = text(f"SELECT {_COLUMNS} FROM backfill_runs WHERE backfill_run_id = :run")
    row = connection.execute(statement, {"run": partition}).mappings().first()
    return None if row is None else _run(row)


def _run(row: RowMapping) -> BackfillRun:
    values: dict[str, Any] = dict(row)
    values["configuration"] = Configuration.model_validate(values["configuration"])
    return BackfillRun(**values)

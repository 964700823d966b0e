"""Roll a run back: remove exactly its rows and restore what was before it, the ledger included."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from toolcall_pipeline.errors import StoreError, UsageError
from toolcall_pipeline.store.runs import BackfillRun, list_runs
from toolcall_pipeline.store.writer_lock import writer_lock

# In this order, so that nothing points at a row that is gone.
_TABLES = (
    "mem_late_results",
    "mem_assistant_texts",
    "mem_tool_calls",
    "mem_user_prompts",
    "mem_interruptions",
    "mem_supersessions",
    "mem_offered_tools",
    "mem_session_families",
    "mem_graph_nodes",
    "mem_copied_nodes",
    "mem_parked_events",
    "mem_quarantine",
)


@dataclass(frozen=True, slots=True)
class RollbackReport:
    """What was removed.

    Attributes:
        runs: The runs rolled back, newest first.
        rows: Table name to rows removed.
        files_restored: Files whose place in the ledger went back.
    """

    runs: tuple[str, ...]
    rows: dict[str, int]
    files_restored: int


def rollback(engine: Engine, run_id: str, *, cascade: bool = False, wait_seconds: float = 60.0) -> RollbackReport:
    """Remove a run's rows in one transaction.

    The run itself stays registered (its freeze number is never given again) and says when it was rolled back;
    materialising its partition again stores its rows anew.

    Args:
        engine: The store.
        run_id: The `backfill_run_id`.
        cascade: Also roll back every later run; without it only the newest run can be.
        wait_seconds: How long to wait for a backfill that is writing.

    Raises:
        UsageError: No such run, it has no rows, or it is not the newest and `cascade` is off.
        StoreError: A backfill is writing.
    """
    log = logging.getLogger("toolcall_pipeline")
    with writer_lock(engine, f"rollback {run_id}", wait_seconds=wait_seconds, log=log):
        runs = _chosen(list_runs(engine), run_id, cascade)
        rows = dict.fromkeys(_TABLES, 0)
        files = 0
        with engine.begin() as connection:
            for run in runs:
                for table, count in _remove_rows(connection, run.backfill_run_id).items():
                    rows[table] = rows.get(table, 0) + count
                files += _restore_ledger(connection, run.backfill_run_id)
                _mark(connection, run.backfill_run_id)
    return RollbackReport(tuple(run.backfill_run_id for run in runs), rows, files)


def _chosen(runs: list[BackfillRun], run_id: str, cascade: bool) -> list[BackfillRun]:
    """Return the runs to roll back, newest first."""
    alive = [run for run in runs if run.rolled_back_at is None]
    target = next((run for run in runs if run.backfill_run_id == run_id), None)
    if target is None:
        known = ", ".join(run.backfill_run_id for run in alive[-5:]) or "none"
        raise UsageError(f"There is no run {run_id!r} in this store. The newest are: {known}.")
    if target.rolled_back_at is not None:
        raise UsageError(f"Run {run_id} was rolled back at {target.rolled_back_at:%Y-%m-%d %H:%M:%S %Z} already.")
    later = [run for run in alive if run.freeze_number > target.freeze_number]
    if later and not cascade:
        names = ", ".join(run.backfill_run_id for run in later)
        raise UsageError(
            f"Run {run_id} is not the newest: {names} came after it and may build on its rows. Roll these back first, or "
            "use --cascade to roll them back with it."
        )
    return [*reversed(later), target]


def _remove_rows(connection: Connection, run_id: str) -> dict[str, int]:
    values = {"run": run_id}
    counts: dict[str, int] = {}
    connection.execute(
        text("UPDATE mem_parked_events SET restored_by_run_id = NULL WHERE restored_by_run_id = :run"), values
    )
    for table in _TABLES:
        counts[table] = connection.execute(text(f"DELETE FROM {table} WHERE backfill_run_id = :run"), values).rowcount
    counts["mem_sessions"] = connection.execute(
        text(
            """
            DELETE FROM mem_sessions s WHERE s.backfill_run_id = :run
            AND NOT EXISTS (SELECT 1 FROM mem_user_prompts r WHERE r.session_id = s.session_id)
            AND NOT EXISTS (SELECT 1 FROM mem_tool_calls r WHERE r.session_id = s.session_id)
            AND NOT EXISTS (SELECT 1 FROM mem_assistant_texts r WHERE r.session_id = s.session_id)
            """
        ),
        values,
    ).rowcount
    connection.execute(text("DELETE FROM backfill_batches WHERE backfill_run_id = :run"), values)
    return counts


def _restore_ledger(connection: Connection, run_id: str) -> int:
    """Let every file the run read be read again from where the run started.

    A run of lower number may have been stored after this one and skipped what this one had stored already; what it wrote
    down for the same files later than this run goes too, so that those bytes are read again.
    """
    return connection.execute(
        text(
            "DELETE FROM mem_session_files f USING mem_session_files mine "
            "WHERE mine.backfill_run_id = :run AND f.file_key = mine.file_key AND f.id >= mine.id"
        ),
        {"run": run_id},
    ).rowcount


def _mark(connection: Connection, run_id: str) -> None:
    marked = connection.execute(
        text(
            "UPDATE backfill_runs SET rolled_back_at = now(), rollback_count = rollback_count + 1 "
            "WHERE backfill_run_id = :run"
        ),
        {"run": run_id},
    ).rowcount
    if marked != 1:
        raise StoreError(f"Run {run_id} vanished while it was rolled back. Nothing was changed; try again.")

"""The asset `linked_tool_calls`: the locked files of a run, redacted and linked, as rows in PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from toolcall_pipeline.artifacts import Artifact, canonical_json, write_atomically
from toolcall_pipeline.errors import StoreError
from toolcall_pipeline.redaction import RedactionOptions, load_options
from toolcall_pipeline.sessions.lock import SessionsLock, load_lock
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store import family_worker, ledger, loading, row_hash, runs
from toolcall_pipeline.store.family_worker import FamilyRows, FamilyTask
from toolcall_pipeline.store.grouping import FileFamily, stored_families
from toolcall_pipeline.store.range_nodes import family_files, states_without_rows
from toolcall_pipeline.store.stored_nodes import load_stored_nodes
from toolcall_pipeline.store.writer_lock import writer_lock

ASSET = row_hash.ROWS_ASSET
_SESSIONS_PER_BATCH = 25
_BATCH_BYTES = 8 << 20
# Below this, starting worker processes costs more than it saves (1.5 s to import and warm the scanner).
_POOL_THRESHOLD_BYTES = 48 << 20
# Families read by a thread before their rows are waited for: enough to go on with while a batch is stored.
_READ_AHEAD_FAMILIES = 16
# Families whose stored nodes are asked for in one query.
_FAMILIES_LOOKED_UP = 25
_LOCK_WAIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How linking runs.

    Attributes:
        max_sessions: Stop after about this many sessions (whole families); None takes all.
        is_dry_run: Do everything in one transaction, count, and roll it back.
        process_count: Worker processes; None takes one a core.
        sessions_per_batch: Sessions stored in one transaction, about.
        lock_wait_seconds: How long to wait for another backfill.
        on_batch: Called after every committed batch (tests kill the process here).
    """

    max_sessions: int | None = None
    is_dry_run: bool = False
    process_count: int | None = None
    sessions_per_batch: int = _SESSIONS_PER_BATCH
    lock_wait_seconds: float = _LOCK_WAIT_SECONDS
    on_batch: Callable[[int], None] | None = None


def link_tool_calls(context: StageContext, *, options: LinkOptions | None = None) -> Artifact:
    """Store the rows of a partition's frozen sessions and leave their hash and counts as the artifact.

    Running it again after a crash continues with the families that are not stored yet; after it is done it returns what
    is there and inserts nothing.

    Args:
        context: Its `jsonl_sessions` artifact is what is read.
        options: How it runs.

    Returns:
        The artifact: `rows.json` (hash and number of rows per table) and `counts.json`.

    Raises:
        StoreError: PostgreSQL is gone, another backfill holds the lock for too long, or rows were removed since.
        ArtifactError: A session file changed in its locked range.
        RedactionError: The scanner failed; nothing of the batch is stored.
    """
    options = options or LinkOptions()
    sessions = context.artifacts.require("jsonl_sessions", context.partition)
    lock = load_lock(sessions)
    run = runs.register_run(context.engine, context.partition, context.configuration, lock.is_sample)
    recipe = {
        "jsonl_sessions": sessions.sha256,
        "store_id": runs.store_id(context.engine),
        "rollback_count": run.rollback_count,
        "max_sessions": options.max_sessions,
    }
    found = context.artifacts.find(ASSET, context.partition, recipe)
    if found is not None:
        row_hash.require_rows_unchanged(context.engine, found)
        return found
    with writer_lock(
        context.engine, f"backfill {context.partition}", wait_seconds=options.lock_wait_seconds, log=context.log
    ):
        started = time.monotonic()
        with context.artifacts.build(
            ASSET,
            context.partition,
            recipe_of_artifact=recipe,
            parents={"jsonl_sessions": sessions.sha256},
        ) as build:
            runs.mark_linking(context.engine, context.partition, lock.is_sample)
            counts = store_families(context, sessions, lock, options)
            tables = row_hash.hash_run_rows(context.engine, context.partition)
            write_atomically(build.directory / "rows.json", canonical_json(tables) + "\n")
            write_atomically(build.directory / "counts.json", canonical_json(counts) + "\n")
            seconds = time.monotonic() - started
            build.metadata.update(_metadata(counts, tables, run.freeze_number, seconds))
    return context.artifacts.require(ASSET, context.partition)


def store_families(
    context: StageContext, sessions: Artifact, lock: SessionsLock, options: LinkOptions
) -> dict[str, Any]:
    """Read, redact, link and load every family that is not stored yet.

    Returns:
        The run's counts: what the files held, what was stored, what was skipped.
    """
    families = family_files(context.engine, sessions, lock, context.partition)
    done = ledger.files_done(context.engine, context.partition)
    waiting = [family for family in families if not all(file.file_key in done for file in family.files)]
    waiting = _limited(waiting, options.max_sessions)
    total_bytes = sum(file.end_byte - file.start_byte for family in waiting for file in family.files)
    known = stored_families(context.engine, context.partition)
    redaction = load_options(context.settings)
    context.log.info("%d session families to read, %.1f MB", len(waiting), total_bytes / 1e6)
    stored_count = 0
    try:
        with context.engine.connect() as reading, context.engine.connect() as writing:
            loading.prepare_staging(writing)
            if options.is_dry_run:
                runs.pretend_run(writing, context.partition)
            tasks = _tasks(reading, waiting, lock, known, context.partition)
            results = _run(tasks, redaction, total_bytes, options)
            for batch in _batches(results, options.sessions_per_batch):
                _store_batch(writing, context.partition, batch, options)
                stored_count += len(batch)
                context.progress(stored_count, len(waiting), "families", "linked")
            if not options.is_dry_run:
                _finish_ledger(writing, context, lock)
            return run_counts(writing, context.partition, lock)
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(
            f"PostgreSQL failed while storing run {context.partition}: {str(cause).strip().splitlines()[0]}. {stored_count} "
            f"of {len(waiting)} session families are stored. Mend what it names (is it running? is the disk full?) and run "
            "this again: it continues."
        ) from None  # the chain would show rows
    except BrokenProcessPool as error:
        raise StoreError(
            f"A worker process of run {context.partition} was killed, perhaps for memory. {stored_count} of "
            f"{len(waiting)} session families are stored. Run this again: it continues."
        ) from error


def _finish_ledger(connection: Connection, context: StageContext, lock: SessionsLock) -> None:
    """Write down the files in which nothing was to be read, and wait for everything to be on disk."""
    states = states_without_rows(lock)
    known = ledger.load_ledger(context.engine, [state.file_key for state in states])
    new = [state for state in states if state != known.get(state.file_key)]
    ledger.record_states(connection, context.partition, new)
    connection.execute(text("SET LOCAL synchronous_commit = on"))
    connection.commit()


def _store_batch(connection: Connection, partition: str, batch: Sequence[FamilyRows], options: LinkOptions) -> None:
    loading.load_batch(connection, partition, batch)
    if options.is_dry_run:  # in one transaction, so that a later batch meets what an earlier one stored
        loading.clear_staging(connection)
        return
    connection.commit()
    if options.on_batch is not None:
        options.on_batch(len(batch))


def _limited(families: list[FileFamily], max_sessions: int | None) -> list[FileFamily]:
    if max_sessions is None:
        return families
    taken: list[FileFamily] = []
    count = 0
    for family in families:
        if count >= max_sessions:
            break
        taken.append(family)
        count += len({session_id for file in family.files for session_id in file.session_ids})
    return taken


def _tasks(
    connection: Connection, families: Sequence[FileFamily], lock: SessionsLock, known: dict[str, str], partition: str
) -> Iterator[FamilyTask]:
    for start in range(0, len(families), _FAMILIES_LOOKED_UP):
        together = families[start : start + _FAMILIES_LOOKED_UP]
        stored = load_stored_nodes(connection, [family.stored_sessions for family in together], partition)
        for number, (family, nodes) in enumerate(zip(together, stored, strict=True), start):
            yield FamilyTask(
                number=number,
                lock=msgspec.structs.replace(lock, files=family.files),
                stored=nodes,
                known_families={session_id: known[session_id] for session_id in sorted(family.stored_sessions)},
            )


def _run(
    tasks: Iterator[FamilyTask], redaction: RedactionOptions, total_bytes: int, options: LinkOptions
) -> Iterator[FamilyRows]:
    """Return families in order, read while the caller stores: in worker processes where there is enough, else in a thread."""
    processes = options.process_count or os.cpu_count() or 1
    pool: Executor
    if total_bytes < _POOL_THRESHOLD_BYTES or processes < 2:
        pool, read, ahead = ThreadPoolExecutor(1), family_worker.FamilyReader(redaction).read, _READ_AHEAD_FAMILIES
    else:
        # Fork would copy the locks of whatever threads the caller has (Dagster has several).
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, spawn, family_worker.start_worker, (redaction,))
        read, ahead = family_worker.read_family, 2 * processes
    with pool:
        pending: list[Future[FamilyRows]] = []
        try:
            for task in tasks:
                pending.append(pool.submit(read, task))
                if len(pending) > ahead:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


def _batches(families: Iterator[FamilyRows], sessions_per_batch: int) -> Iterator[list[FamilyRows]]:
    """Return families in batches of about so many sessions; a family is never split."""
    batch: list[FamilyRows] = []
    for family in families:
        batch.append(family)
        sessions = sum(max(1, item.session_count) for item in batch)
        if sessions >= sessions_per_batch or sum(item.size_bytes for item in batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def run_counts(connection: Connection, partition: str, lock: SessionsLock) -> dict[str, Any]:
    """Return a run's counts: what the files held, what was stored, what was skipped."""
    batches = loading.sum_batches(connection, partition)
    stored = loading.count_stored(connection, partition)
    counts = batches["counts"]
    changed = [file for file in lock.files if file.end_byte > file.start_byte]
    return {
        "files": len(lock.files),
        "files_read": len(changed),
        "bytes": sum(file.end_byte - file.start_byte for file in changed),
        **stored,
        "parked_events": counts.get("parked", 0),
        "quarantined_lines": counts.get("quarantined_lines", 0),
        "duplicates_skipped": counts.get("duplicates_skipped", 0),
        "redactions": dict(sorted(batches["redactions"].items())),
    }


def _metadata(
    counts: dict[str, Any], tables: dict[str, dict[str, int | str]], freeze_number: int, seconds: float
) -> dict[str, Any]:
    numbers = {
        f"{name}_count" if name != "bytes" else "read_bytes": value
        for name, value in counts.items()
        if isinstance(value, int)
    }
    return {
        **numbers,
        "redactions_count": sum(counts["redactions"].values()),
        "redactions_by_rule": counts["redactions"],
        "freeze_number": freeze_number,
        "rows_sha256": row_hash.combined_sha256(tables),
        "link_seconds": round(seconds, 3),
        "mb_per_second": round(counts["bytes"] / 1e6 / seconds, 2) if seconds else 0.0,
    }

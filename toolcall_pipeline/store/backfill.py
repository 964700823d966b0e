"""The command `backfill`: read a folder of sessions into the store, or, by default, say what that would bring in."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.partition_key import make_partition_key
from toolcall_pipeline.presets import Configuration, resolve_configuration
from toolcall_pipeline.sessions.lock import SessionsLock, load_lock
from toolcall_pipeline.sessions.stage import freeze_sessions
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import ProgressCallback, StageContext
from toolcall_pipeline.store import runs
from toolcall_pipeline.store.engine import open_store
from toolcall_pipeline.store.ledger import load_ledger
from toolcall_pipeline.store.stage import LinkOptions, link_tool_calls, store_families
from toolcall_pipeline.store.writer_lock import writer_lock

_STORED_COUNTS = ("prompts", "tool_calls", "tool_calls_nested", "orphans", "truncated", "duplicates_skipped")


def backfill(
    settings: Settings,
    *,
    sessions_dir: Path | None,
    commit: bool = False,
    limit: int | None = None,
    partition: str | None = None,
    preset: str = "nightly",
    progress: ProgressCallback | None = None,
    log: logging.Logger | None = None,
    after_stage: Callable[[StageContext, Artifact], None] | None = None,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Read what is new in a folder of sessions into the store.

    Args:
        settings: Where the store is.
        sessions_dir: Folder with `**/*.jsonl`; None takes the shipped sample sessions.
        commit: Write. Without it everything is done, rolled back, and counted.
        limit: At most about this many sessions (families are whole), the next run takes the rest.
        partition: The `backfill_run_id`; by default the present second with the label `manual`.
        preset: What the partition is registered with where it is new.
        progress: As in `StageContext`.
        log: As in `StageContext`.
        after_stage: Called with the context and each finished artifact, such as to judge its gates.
        now: The present, for the partition key.

    Returns:
        The counters of the run, and `run_id` and `committed`. `seconds` leaves out what `after_stage` took.

    Raises:
        ToolcallPipelineError: Whatever freezing or linking raises.
    """
    started = time.monotonic()
    judging_seconds = 0.0

    def judge(context: StageContext, artifact: Artifact) -> None:
        nonlocal judging_seconds
        begun = time.monotonic()
        if after_stage is not None:
            after_stage(context, artifact)
        judging_seconds += time.monotonic() - begun

    key = partition or make_partition_key(now or datetime.now(UTC), "manual")
    engine = open_store(settings)
    try:
        context = StageContext(
            partition=key,
            configuration=_configuration(preset),
            settings=settings,
            engine=engine,
            log=log or logging.getLogger("toolcall_pipeline"),
        )
        if progress is not None:
            context = replace(context, progress=progress)
        work = _commit if commit else _dry_run
        lock, counts = work(context, sessions_dir, limit, judge)
    finally:
        engine.dispose()
    seconds = time.monotonic() - started - judging_seconds
    return {"run_id": key, "committed": commit, **_report(lock, counts, seconds)}


def _configuration(preset: str) -> Configuration:
    return resolve_configuration(preset)


def _commit(
    context: StageContext,
    sessions_dir: Path | None,
    limit: int | None,
    after_stage: Callable[[StageContext, Artifact], None],
) -> tuple[SessionsLock, dict[str, Any]]:
    run = runs.register_run(context.engine, context.partition, context.configuration, sessions_dir is None)
    context = replace(context, configuration=run.configuration)
    sessions = freeze_sessions(context, sessions_dir=sessions_dir, previous=load_ledger(context.engine))
    after_stage(context, sessions)
    linked = link_tool_calls(context, options=LinkOptions(max_sessions=limit))
    after_stage(context, linked)
    counts = {name.removesuffix("_count"): value for name, value in linked.manifest.metadata.items()}
    counts["redactions"] = linked.manifest.metadata["redactions_by_rule"]
    return load_lock(sessions), counts


class _DryRunSettings(Settings):
    """Settings whose artifacts go to a folder that is thrown away."""

    artifacts_root: Path

    @property
    def artifacts_dir(self) -> Path:
        """Return that folder."""
        return self.artifacts_root


def _dry_run(
    context: StageContext,
    sessions_dir: Path | None,
    limit: int | None,
    after_stage: Callable[[StageContext, Artifact], None],
) -> tuple[SessionsLock, dict[str, Any]]:
    del after_stage  # there is nothing to judge: no artifact stays
    with tempfile.TemporaryDirectory(prefix="toolcall-pipeline-dry-run-") as folder:
        settings = _DryRunSettings(
            home=context.settings.home, DATABASE_URL=context.settings.database_url, artifacts_root=Path(folder)
        )
        context = replace(context, settings=settings)
        sessions = freeze_sessions(context, sessions_dir=sessions_dir, previous=load_ledger(context.engine))
        lock = load_lock(sessions)
        options = LinkOptions(max_sessions=limit, is_dry_run=True)
        what = f"dry run {context.partition}"
        with writer_lock(context.engine, what, wait_seconds=options.lock_wait_seconds, log=context.log):
            return lock, store_families(context, sessions, lock, options)


def _report(lock: SessionsLock, counts: dict[str, Any], seconds: float) -> dict[str, Any]:
    read_bytes = sum(file.end_byte - file.start_byte for file in lock.files)
    return {
        "files": len(lock.files),
        "files_unchanged": sum(file.status == "unchanged" for file in lock.files),
        "files_quarantined": sum(
            file.status == "unreadable" or file.account.malformed_parts > 0 for file in lock.files
        ),
        "lines": sum(file.account.lines for file in lock.files),
        "lines_malformed": sum(file.account.malformed_lines for file in lock.files),
        "sessions": counts.get("sessions", 0),
        **{name: counts.get(name, 0) for name in _STORED_COUNTS},
        "redactions": counts.get("redactions", {}),
        "bytes": read_bytes,
        "seconds": round(seconds, 3),
        "mb_per_second": round(read_bytes / 1e6 / seconds, 2) if seconds else 0.0,
    }

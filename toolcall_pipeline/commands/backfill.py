"""`backfill`: session files into the store, without Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.commands.output import log_to_terminal, print_counts, print_json, progress_bar
from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.partition_key import make_partition_key
from toolcall_pipeline.settings import Settings, load_settings
from toolcall_pipeline.stage_context import StageContext

app = typer.Typer(help="Read session files into the store, or take a run back.")


def add_commands(parent: typer.Typer) -> None:
    """Add the `backfill` group."""
    parent.add_typer(app, name="backfill")


@app.callback(invoke_without_command=True)
def backfill(
    context: typer.Context,
    commit: Annotated[bool, typer.Option("--commit", help="Write. Without it nothing is stored (dry run).")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Take this many sessions: 1, then 10, then all.")] = None,
    sessions: Annotated[
        Path | None, typer.Option(help="Folder with session files. Default: ~/.claude/projects.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Read session files, link and redact them; with --commit store them under a new run."""
    if context.invoked_subcommand is not None:
        if commit or limit or sessions or json_:
            raise UsageError(
                f"`backfill {context.invoked_subcommand}` takes none of backfill's own options. Leave them out."
            )
        return
    from toolcall_pipeline.sessions.discovery import require_folder
    from toolcall_pipeline.store.backfill import backfill as store_backfill

    settings = load_settings()
    folder = sessions or settings.sessions_dir or Path("~/.claude/projects").expanduser()
    require_folder(folder)
    log_to_terminal()
    with own_partition(settings, datetime.now(UTC)) as partition, progress_bar("backfill") as report:
        counts = store_backfill(
            settings,
            sessions_dir=folder,
            commit=commit,
            limit=limit,
            partition=partition,
            progress=report,
            after_stage=judge_stage,
        )
    if json_:
        print_json(counts)
        return
    print_counts("stored" if commit else "dry run: nothing was stored (add --commit)", counts)


@contextmanager
def own_partition(settings: Settings, now: datetime) -> Iterator[str]:
    """Give the key of the present second, or of the next that no other backfill or run is making."""
    from filelock import FileLock, Timeout

    folder = settings.home_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        key = make_partition_key(now, "manual")
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            now += timedelta(seconds=1)
        else:
            break
    try:
        yield key
    finally:
        lock.release()


def judge_stage(context: StageContext, artifact: Artifact) -> None:
    """Judge and store an artifact's gates, so that a run that was stored counts for later datasets."""
    from toolcall_pipeline.gates.registry import judge_asset

    judge_asset(context.engine, context.artifacts, context.partition, artifact.manifest.asset, context.configuration)


@app.command()
def rollback(
    run_id: Annotated[str, typer.Argument(help="The backfill_run_id to take back; the newest unless --cascade.")],
    cascade: Annotated[bool, typer.Option("--cascade", help="Take back every newer run as well.")] = False,
) -> None:
    """Remove exactly a run's rows and restore what was before it."""
    from toolcall_pipeline.store.engine import open_store
    from toolcall_pipeline.store.rollback import rollback as store_rollback

    engine = open_store(load_settings())
    try:
        report = store_rollback(engine, run_id, cascade=cascade)
    finally:
        engine.dispose()
    print_counts(
        f"rolled back {', '.join(report.runs)}", {"files_restored": report.files_restored, "rows removed": report.rows}
    )

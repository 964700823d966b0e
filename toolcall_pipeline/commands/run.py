"""`run` and `ui`: the chain from the command line, and the Dagster UI."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toolcall_pipeline import chain
from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.commands.chain_progress import chain_progress
from toolcall_pipeline.commands.output import console, errors, log_to_terminal
from toolcall_pipeline.commands.status import collect_status, print_status, print_where_to_look
from toolcall_pipeline.errors import GateHeldError, MissingInputError, ToolcallPipelineError, UsageError
from toolcall_pipeline.partition_key import make_partition_key, parse_partition_key
from toolcall_pipeline.presets import Preset, resolve_configuration
from toolcall_pipeline.settings import Settings, load_settings


def add_commands(parent: typer.Typer) -> None:
    """Add `run` and `ui`."""
    parent.command()(run)
    parent.command()(ui)


def run(
    partition: Annotated[
        str | None,
        typer.Option(
            help="backfill_run_id, such as 20261123T020000Z-nightly. Default: the sample partition, or a new one."
        ),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="smoke: minutes on two cores, never ships. nightly, full: judged under profile ship. [default: smoke]"
        ),
    ] = None,
    sessions: Annotated[
        Path | None,
        typer.Option(
            help="Folder with session files, such as ~/.claude/projects. Default: the shipped sample sessions."
        ),
    ] = None,
    until: Annotated[str, typer.Option(help=f"Last asset to make: {', '.join(chain.ASSETS)}.")] = "eval_reports",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.FIELD=VALUE",
            help="Replace one field of the preset, such as training.max_steps=80.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print what is only of interest when something is wrong.")
    ] = False,
) -> None:
    """Take sessions through the chain up to an asset, judge every gate on the way, and stop where one holds.

    What is there already and did not change is not made again. Without --partition the sample sessions always use the
    same partition; your own sessions get a new one.
    """
    settings = load_settings()
    if sessions is not None:
        _require_sessions(sessions.expanduser())
    folder = sessions.expanduser().absolute() if sessions is not None else settings.sessions_dir
    partition = partition or _default_partition(folder)
    parse_partition_key(partition)
    asked = (*chain.ancestors(until), until)
    overrides = _overrides(set_ or [])
    if dry_run:
        resolve_configuration((preset or Preset.SMOKE).value, overrides)
        _print_dry_run(settings, partition, asked)
        return
    from toolcall_pipeline.defs.run import run_chain

    log_to_terminal(verbose)
    console.print(f"Partition [bold]{partition}[/bold], state in {settings.home_dir}", highlight=False)
    try:
        with chain_progress(errors, asked) as progress:
            outcome = run_chain(
                settings,
                partition=partition,
                preset=preset.value if preset else None,
                sessions_dir=folder,
                until=until,
                overrides=overrides or None,
                progress=progress,
            )
    except KeyboardInterrupt:
        errors.print("Stopped. What was finished is kept: run this again and it goes on.", style="yellow")
        raise
    for asset, why in {**outcome.held, **outcome.failed}.items():
        errors.print(
            f"{asset}: {why}", style="yellow" if asset in outcome.held else "red", markup=False, highlight=False
        )
    report = collect_status(settings, partition)
    print_status(report)
    print_where_to_look(settings, partition)
    passed = all(row["verdict"] == "pass" for row in report["gates"] if row["asset"] in asked)
    raise typer.Exit(ToolcallPipelineError.exit_code if outcome.failed else 0 if passed else GateHeldError.exit_code)


def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; loopback unless you know who else can reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
) -> None:
    """Serve the Dagster UI and run its daemon until interrupted."""
    from toolcall_pipeline.defs.ui import serve

    raise typer.Exit(serve(load_settings(), host=host, port=port))


def _require_sessions(folder: Path) -> None:
    from toolcall_pipeline.sessions.discovery import require_folder

    require_folder(folder)
    if not any(folder.rglob("*.jsonl")):
        raise MissingInputError(
            f"There is no *.jsonl file below {folder}. Give a folder with session files, such as ~/.claude/projects."
        )


def _default_partition(sessions_dir: Path | None) -> str:
    if sessions_dir is None:
        return make_partition_key(datetime(2026, 1, 1, tzinfo=UTC), "sample")
    return make_partition_key(datetime.now(UTC).replace(microsecond=0), "manual")


def _overrides(assignments: list[str]) -> dict[str, dict[str, Any]]:
    overrides: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        match = re.fullmatch(r"(?P<section>\w+)\.(?P<field>\w+)=(?P<value>.*)", assignment, re.DOTALL)
        if match is None:
            raise UsageError(f"--set {assignment!r}: expected SECTION.FIELD=VALUE, such as training.max_steps=80.")
        overrides.setdefault(match["section"], {})[match["field"]] = _value(match["value"])
    return overrides


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _print_dry_run(settings: Settings, partition: str, asked: tuple[str, ...]) -> None:
    store = ArtifactStore(settings.artifacts_dir)
    for asset in asked:
        there = store.current(asset, partition)
        console.print(
            f"{'is there, made again only if its inputs changed' if there else 'would be made':48} {asset}",
            highlight=False,
        )

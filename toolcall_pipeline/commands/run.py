"""`run`, `status`, `ui`: the chain, what became of it, and the Dagster UI."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from toolcall_pipeline import chain
from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.commands.output import console, errors, log_to_terminal, print_json
from toolcall_pipeline.errors import MissingInputError, UsageError
from toolcall_pipeline.partition_key import make_partition_key, parse_partition_key
from toolcall_pipeline.presets import Preset
from toolcall_pipeline.settings import Settings, load_settings

_STATE_STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "held": "yellow",
    "missing": "dim",
    "not_due": "dim",
}
_VERDICT_STYLES = {
    "pass": "green", "fail": "red", "inconclusive": "yellow", "overridden": "dark_orange", "missing": "dim",
    "SHIP": "bold green", "PASSED_NOT_SHIPPABLE": "bold green", "HOLD": "bold red", "INCONCLUSIVE": "bold yellow",
    "PENDING": "bold cyan",
}  # fmt: skip


def add_commands(parent: typer.Typer) -> None:
    """Add `run`, `status` and `ui`."""
    parent.command()(run)
    parent.command()(status)
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
    if sessions is not None and not sessions.expanduser().is_dir():
        raise UsageError(
            f"--sessions {sessions}: no such folder. Expected a folder with *.jsonl files somewhere below it."
        )
    folder = sessions.expanduser().absolute() if sessions is not None else settings.sessions_dir
    partition = partition or _default_partition(folder)
    parse_partition_key(partition)
    asked = (*chain.ancestors(until), until)
    overrides = _overrides(set_ or [])
    if dry_run:
        _print_dry_run(settings, partition, asked)
        return
    from toolcall_pipeline.defs.run import run_chain

    log_to_terminal(verbose)
    console.print(f"Partition [bold]{partition}[/bold], state in {settings.home_dir}", highlight=False)
    with _ChainProgress(asked) as progress:
        outcome = run_chain(
            settings,
            partition=partition,
            preset=preset.value if preset else None,
            sessions_dir=folder,
            until=until,
            overrides=overrides or None,
            progress=progress,
        )
    for asset, why in {**outcome.held, **outcome.failed}.items():
        errors.print(
            f"{asset}: {why}", style="yellow" if asset in outcome.held else "red", markup=False, highlight=False
        )
    report = collect_status(settings, partition)
    _print_status(report)
    _print_where_to_look(settings, partition)
    raise typer.Exit(outcome.exit_code)


def status(
    key: Annotated[str | None, typer.Argument(help="Partition. Default: the one made last.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, an interface to script against.")] = False,
) -> None:
    """Say what is made, what is held and why, and whether it may ship."""
    settings = load_settings()
    partition = key or chain.latest_partition(ArtifactStore(settings.artifacts_dir))
    if partition is None:
        raise MissingInputError(f"Nothing was made below {settings.home_dir} yet. Start with `toolcall-pipeline run`.")
    parse_partition_key(partition)
    report = collect_status(settings, partition)
    if json_:
        print_json(report)
    else:
        _print_status(report)
        _print_where_to_look(settings, partition)


def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; loopback unless you know who else can reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
) -> None:
    """Serve the Dagster UI and run its daemon until interrupted."""
    from toolcall_pipeline.defs.ui import serve

    raise typer.Exit(serve(load_settings(), host=host, port=port))


def collect_status(settings: Settings, partition: str) -> dict[str, Any]:
    """Return the status of a partition in the form that `status --json` prints (docs/reference/commands.md)."""
    from toolcall_pipeline.gates import status as gate_status
    from toolcall_pipeline.store.engine import open_store
    from toolcall_pipeline.store.runs import get_run

    engine = open_store(settings)
    run_ = get_run(engine, partition)
    if run_ is None:
        raise MissingInputError(
            f"There is no partition {partition}. Make it with `toolcall-pipeline run --partition {partition}`."
        )
    store = ArtifactStore(settings.artifacts_dir)
    rows = gate_status.gate_rows(engine, store, partition, run_.configuration)
    verdict = gate_status.partition_verdict(rows, store, partition, run_.configuration)
    return {
        "partition": partition,
        "profile": run_.configuration.evaluation.profile,
        "shippable": verdict == "SHIP",
        "verdict": verdict,
        "assets": _asset_states(settings, store, partition, rows),
        "gates": [row.as_status() for row in rows],
    }


def _asset_states(
    settings: Settings, store: ArtifactStore, partition: str, rows: list[Any]
) -> dict[str, dict[str, Any]]:
    from toolcall_pipeline.defs.state import asset_states

    seen = asset_states(settings, partition)
    held_assets = {row.asset for row in rows if row.verdict not in ("pass", "overridden")}
    label = parse_partition_key(partition)[1] or ""
    states: dict[str, dict[str, Any]] = {}
    for asset in chain.ASSETS:
        artifact = store.current(asset, partition)
        if seen.get(asset) == "running":
            state = "running"
        elif artifact is not None:
            state = "done"
        elif seen.get(asset) == "failed":
            state = "failed"
        elif any(above in held_assets and store.current(above, partition) for above in chain.ancestors(asset)):
            state = "held"
        elif label.startswith("nightly") and asset not in chain.DATA_ASSETS:
            state = "not_due"
        else:
            state = "missing"
        states[asset] = {"state": state, "metadata": artifact.manifest.metadata if artifact else {}}
    return states


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
    import json

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


def _print_status(report: dict[str, Any]) -> None:
    style = _VERDICT_STYLES[report["verdict"]]
    console.print(
        f"\n[{style}]{report['verdict']}[/{style}]  {report['partition']}  profile {report['profile']}", highlight=False
    )
    assets = Table(box=None, padding=(0, 2), show_header=False)
    for asset, value in report["assets"].items():
        assets.add_row(asset, f"[{_STATE_STYLES[value['state']]}]{value['state']}[/]")
    console.print(assets)
    gates = Table(box=None, padding=(0, 2))
    for heading in ("asset", "gate", "verdict", "measured", "", "threshold", "n"):
        gates.add_column(heading, justify="right" if heading in ("measured", "threshold", "n") else "left")
    for row in report["gates"]:
        style = _VERDICT_STYLES[row["verdict"]]
        gates.add_row(
            row["asset"], row["gate"], f"[{style}]{row['verdict']}[/{style}]", _number(row["measured"]),
            row["comparison"] or "", _number(row["threshold"]), _number(row["n"]),
        )  # fmt: skip
    console.print(gates)
    for row in report["gates"]:
        if row["verdict"] in ("fail", "inconclusive") and row["how_to_fix"]:
            console.print(f"[yellow]{row['asset']}/{row['gate']}[/yellow]: {row['how_to_fix']}", highlight=False)


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return " to ".join(_number(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _print_where_to_look(settings: Settings, partition: str) -> None:
    report = ArtifactStore(settings.artifacts_dir).current("eval_reports", partition)
    if report is not None:
        for name in sorted(report.manifest.files):
            if name.endswith(".html"):
                console.print(f"report  {report.directory / name}", highlight=False, soft_wrap=True)
    console.print("UI      toolcall-pipeline ui   (then http://127.0.0.1:3000)", highlight=False)


class _ChainProgress:
    """Draw one line per asset, with a bar while it is made."""

    def __init__(self, assets: tuple[str, ...]) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:18}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]:9}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", style="dim"),
            console=errors,
        )
        self._tasks = {
            asset: self._progress.add_task(asset, total=None, start=False, state="", message="") for asset in assets
        }

    def __enter__(self) -> _ChainProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def __call__(self, asset: str, state: str, done: int, total: int | None, unit: str, message: str) -> None:
        task = self._tasks.get(asset)
        if task is None:
            return
        if state == "started":
            self._progress.start_task(task)
        finished = state in ("done", "skipped")
        counts = f"{done:,}/{total:,} {unit}" if total else (f"{done:,} {unit}" if done else "")
        self._progress.update(
            task,
            completed=(total or 1) if finished else done,
            total=(total or 1) if finished else total,
            state=state if state != "progress" else "running",
            message="" if finished else f"{counts} {message}".strip()[:70],
        )
        if state in ("done", "skipped", "held", "failed"):
            self._progress.stop_task(task)

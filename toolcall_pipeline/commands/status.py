"""`status`: what is made, what is held and why, and whether it may ship."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from toolcall_pipeline import chain
from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.commands.output import console, print_json
from toolcall_pipeline.errors import MissingInputError, UsageError
from toolcall_pipeline.evaluation.reports.model import GateEntry
from toolcall_pipeline.partition_key import parse_partition_key
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
    """Add `status`."""
    parent.command()(status)


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
        print_status(report)
        print_where_to_look(settings, partition)


def collect_status(settings: Settings, partition: str) -> dict[str, Any]:
    """Return the status of a partition in the form that `status --json` prints (docs/reference/status.md).

    Raises:
        UsageError: The partition was never added.
        StoreError: The server cannot be reached.
    """
    from toolcall_pipeline.defs.configuration import resolve
    from toolcall_pipeline.defs.state import asset_states
    from toolcall_pipeline.gates import status as gate_status
    from toolcall_pipeline.store.engine import open_store
    from toolcall_pipeline.store.runs import get_run

    engine = open_store(settings)
    try:
        run = get_run(engine, partition)
        seen = asset_states(settings, partition)
        if run is None and seen is None:
            raise UsageError(
                f"There is no partition {partition}. Make it with `toolcall-pipeline run --partition {partition}`."
            )
        seen = seen or {}
        configuration = resolve({}, run.configuration if run else None)
        store = ArtifactStore(settings.artifacts_dir)
        standing = _standing_artifacts(store, partition, seen)
        rows = gate_status.gate_rows(engine, standing, configuration)
    finally:
        engine.dispose()
    verdict = gate_status.partition_verdict(rows, standing, configuration)
    return {
        "partition": partition,
        "profile": configuration.evaluation.profile,
        "shippable": verdict == "SHIP",
        "verdict": verdict,
        "assets": _assets(partition, standing, seen, rows),
        "gates": [row.as_status() for row in rows],
    }


def _standing_artifacts(store: ArtifactStore, partition: str, seen: dict[str, str]) -> dict[str, Artifact]:
    """Return the artifacts that stand: neither made from other bytes than those in use, nor being made or broken anew."""
    standing: dict[str, Artifact] = {}
    for asset in chain.ASSETS:
        artifact = store.current(asset, partition)
        is_settled = all(seen.get(name, "done") == "done" for name in (*chain.ancestors(asset), asset))
        if artifact is not None and is_settled and store.stale_parent(artifact) is None:
            standing[asset] = artifact
    return standing


def _assets(
    partition: str, standing: dict[str, Artifact], seen: dict[str, str], rows: list[GateEntry]
) -> dict[str, dict[str, Any]]:
    holding = {row.asset for row in rows if row.verdict in ("fail", "inconclusive")}
    is_nightly = (parse_partition_key(partition)[1] or "").startswith("nightly")
    assets: dict[str, dict[str, Any]] = {}
    for asset in chain.ASSETS:
        artifact = standing.get(asset)
        if artifact is not None:
            state = "done"
        elif seen.get(asset) in ("running", "failed", "held"):
            state = seen[asset]
        elif holding.intersection(chain.ancestors(asset)):
            state = "held"
        elif is_nightly and asset not in chain.DATA_ASSETS:
            state = "not_due"
        else:
            state = "missing"
        assets[asset] = {"state": state, "metadata": artifact.manifest.metadata if artifact else {}}
    return assets


def print_status(report: dict[str, Any]) -> None:
    """Print a status for a person: the verdict, the assets, the gates, and what to do about those that hold."""
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
    waiting = [row for row in report["gates"] if report["assets"][row["asset"]]["state"] != "done"]
    for row in report["gates"]:
        if row in waiting:
            continue
        style = _VERDICT_STYLES[row["verdict"]]
        gates.add_row(
            row["asset"], row["gate"], f"[{style}]{row['verdict']}[/{style}]", _number(row["measured"]),
            row["comparison"] or "", _number(row["threshold"]), _number(row["n"]),
        )  # fmt: skip
    console.print(gates)
    if waiting:
        console.print(f"{len(waiting)} gates of assets that are not made yet", style="dim", highlight=False)
    for row in report["gates"]:
        if row["verdict"] in ("fail", "inconclusive") and row["how_to_fix"]:
            console.print(f"[yellow]{row['asset']}/{row['gate']}[/yellow]: {row['how_to_fix']}", highlight=False)


def print_where_to_look(settings: Settings, partition: str) -> None:
    """Print where the report and the UI are."""
    report = ArtifactStore(settings.artifacts_dir).current("eval_reports", partition)
    if report is not None:
        for name in sorted(report.manifest.files):
            if name.endswith(".html"):
                console.print(f"report  {report.directory / name}", highlight=False, soft_wrap=True)
    console.print("UI      toolcall-pipeline ui   (then http://127.0.0.1:3000)", highlight=False)


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return " to ".join(_number(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

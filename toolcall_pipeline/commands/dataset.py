"""`dataset`, `plan`: what differs between two datasets, and what a training would cost."""

from __future__ import annotations

from typing import Annotated

import typer

from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.commands.output import console, print_json
from toolcall_pipeline.errors import MissingInputError
from toolcall_pipeline.partition_key import parse_partition_key
from toolcall_pipeline.presets import Preset, resolve_configuration
from toolcall_pipeline.settings import load_settings

app = typer.Typer(help="Datasets that were built.", no_args_is_help=True)


def add_commands(parent: typer.Typer) -> None:
    """Add `dataset` and `plan`."""
    parent.add_typer(app, name="dataset")
    parent.command()(plan)


@app.callback()
def dataset() -> None:
    """Keep the group a group while it has one command."""


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="Partition of the first dataset, or a path to its folder.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Partition of the second one, or a path.")],
) -> None:
    """Print how two datasets differ: configuration, rows, shares, tools, reasons for what was left out."""
    from toolcall_pipeline.dataset.diff import diff_datasets

    store = ArtifactStore(load_settings().artifacts_dir)
    result = diff_datasets(_dataset(store, first), _dataset(store, second))
    console.print(result.as_text(), markup=False, highlight=False, soft_wrap=True)


def plan(
    partition: Annotated[
        str | None, typer.Option(help="Partition whose dataset would be trained on. Default: the newest.")
    ] = None,
    preset: Annotated[Preset | None, typer.Option(help="Plan with another preset than the partition's.")] = None,
    device: Annotated[str, typer.Option(help="Device to plan for: cpu, mps, h100, a100, rtx4090.")] = "h100",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a training would take (rows, tokens, steps, memory, time, cost) and refuse what cannot fit."""
    from toolcall_pipeline.chain import latest_partition
    from toolcall_pipeline.dataset.plan import make_plan
    from toolcall_pipeline.gates.profiles import rules_for
    from toolcall_pipeline.store.engine import open_store
    from toolcall_pipeline.store.runs import get_run
    from toolcall_pipeline.training.base_model import resolve_base

    settings = load_settings()
    store = ArtifactStore(settings.artifacts_dir)
    key = partition or latest_partition(store)
    if partition is not None:
        parse_partition_key(partition)
    run = get_run(open_store(settings), key) if key else None
    if preset is None and run is not None:
        configuration = run.configuration
    else:
        configuration = resolve_configuration((preset or Preset.SMOKE).value)
    if partition is not None and run is None:
        raise MissingInputError(
            f"There is no partition {partition}. Make it with `toolcall-pipeline run --partition {partition}`."
        )
    built = store.current("v2_chat_dataset", key) if key else None
    base = resolve_base(configuration.base, settings.cache_dir)
    gates = [f"{asset}:{gate}" for asset, gate in rules_for(configuration)]
    result = make_plan(configuration, built, base, device=device, gates=gates)
    if json_:
        print_json(result.model_dump(mode="json"))
    else:
        console.print(result.as_text(), markup=False, highlight=False, soft_wrap=True)
    result.require_feasible()


def _dataset(store: ArtifactStore, name: str):  # type: ignore[no-untyped-def]
    from pathlib import Path

    from toolcall_pipeline.artifacts import load_artifact

    return load_artifact(Path(name)) if Path(name).is_dir() else store.require("v2_chat_dataset", name)

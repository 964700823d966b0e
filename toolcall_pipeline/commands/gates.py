"""`gates`: what a profile can tell apart."""

from __future__ import annotations

from typing import Annotated

import typer

from toolcall_pipeline.commands.output import console, print_json, progress_bar

app = typer.Typer(help="The ship gates and what they can tell apart.", no_args_is_help=True)


def add_commands(parent: typer.Typer) -> None:
    """Add the `gates` group."""
    parent.add_typer(app, name="gates")


@app.callback()
def gates() -> None:
    """Keep the group a group while it has one command."""


@app.command()
def power(
    profile: Annotated[str, typer.Option(help="Gate profile: ship or smoke.")] = "ship",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the chance that a model of stated true rates passes all gates together (the operating curve)."""
    from toolcall_pipeline.gates.power import power_curve

    with progress_bar("gates power") as progress:
        report = power_curve(profile, progress=progress)
    if json_:
        print_json(report.as_dict())
    else:
        console.print(report.as_text(), markup=False, highlight=False)

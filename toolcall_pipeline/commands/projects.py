"""`projects`: which working directories belong to one project."""

from __future__ import annotations

from typing import Annotated

import typer

from toolcall_pipeline.commands.output import print_counts, print_json
from toolcall_pipeline.settings import load_settings

app = typer.Typer(help="Projects that working directories belong to.", no_args_is_help=True)


def add_commands(parent: typer.Typer) -> None:
    """Add the `projects` group."""
    parent.add_typer(app, name="projects")


@app.callback()
def projects() -> None:
    """Keep the group a group while it has one command."""


@app.command()
def consolidate(
    commit: Annotated[
        bool, typer.Option("--commit", help="Write, in one transaction. Without it nothing changes.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Resolve every stored project again; move rows of sub-folders and worktrees to their root."""
    from toolcall_pipeline.store.consolidation import consolidate as consolidate_projects
    from toolcall_pipeline.store.engine import open_store

    engine = open_store(load_settings())
    try:
        report = consolidate_projects(engine, commit=commit)
    finally:
        engine.dispose()
    if json_:
        print_json(report.as_dict())
    else:
        title = "consolidated" if commit else "dry run: nothing was changed (add --commit)"
        print_counts(title, report.as_dict())

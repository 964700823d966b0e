"""`sessions`: a session file as the pipeline understands it, and the sample generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolcall_pipeline.commands.output import console, print_counts, print_json

app = typer.Typer(help="Look at session files; write sample ones.", no_args_is_help=True)


def add_commands(parent: typer.Typer) -> None:
    """Add the `sessions` group."""
    parent.add_typer(app, name="sessions")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A session file of any known agent.")],
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the conversation as the pipeline understands it: turns, branches, what is dropped and why.

    The text is printed as it stands in the file, secrets included: this is for your own eyes.
    """
    from toolcall_pipeline.sessions.show import render_text, show_session

    view = show_session(file)
    if json_:
        print_json(view.model_dump(mode="json"))
    else:
        console.print(render_text(view), markup=False, highlight=False, soft_wrap=True)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if missing.")],
    seed: Annotated[int, typer.Option(help="Another seed gives other sessions.")] = 7,
) -> None:
    """Write realistic sample sessions, the ones that `run` uses without --sessions."""
    from toolcall_pipeline.sessions.sample import write_sample_sessions

    paths = write_sample_sessions(folder, seed=seed)
    print_counts(str(folder), {"files": len(paths), "bytes": sum(path.stat().st_size for path in paths)})

"""The command line, `toolcall-pipeline`: what is better done outside the UI.

Commands parse arguments, call one function of a room, and print; nothing is decided here. Groups of commands are in
`commands/`, one file per room.
"""

from __future__ import annotations

import signal
import sys

import typer
from rich.console import Console

from toolcall_pipeline.commands import (
    backfill,
    database,
    dataset,
    evaluation,
    gates,
    projects,
    redaction,
    run,
    sessions,
    status,
)
from toolcall_pipeline.errors import ToolcallPipelineError

EXIT_CODES = """Exit codes: 0 done and every gate on what was asked for passed; 1 a gate held it; 2 bad usage; 3 broke; \
4 a report template is missing; 5 results do not conform to the schema; 6 an input is missing; 130 stopped by Ctrl-C or SIGTERM."""

app = typer.Typer(
    name="toolcall-pipeline",
    help="From coding-agent sessions to a local tool-calling model that may honestly ship.\n\n"
    "Start with [bold]run[/bold] (the shipped sample sessions, minutes on two cores), look at it with [bold]ui[/bold] "
    "and [bold]status[/bold], then give it your own sessions: [bold]run --sessions ~/.claude/projects[/bold].",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (run, status, sessions, backfill, projects, redaction, database, dataset, evaluation, gates):
    module.add_commands(app)


def main() -> None:
    """Run the command line and exit with the documented code."""
    # A service manager's stop is a Ctrl-C: what runs is asked to leave a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except ToolcallPipelineError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        # The reader of our output went away (`| head`). Typer ends with 1 then, which here says that a gate held.
        sys.exit(3 if isinstance(ended.__context__, BrokenPipeError) else ended.code)
    except BrokenPipeError:
        sys.stderr.close()  # there is nobody left to tell
        sys.exit(3)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        reason = error.strerror or type(error).__name__
        text = f"error: {reason}{place}. Mend that (permissions, space, the folder itself) and run this again."
        Console(stderr=True, soft_wrap=True).print(text, style="red", markup=False, highlight=False)
        sys.exit(3)
    except Exception:  # noqa: BLE001 - the last resort: the traceback is shown and the exit code says it broke
        Console(stderr=True).print_exception(show_locals=False)
        sys.exit(3)


if __name__ == "__main__":
    main()

"""How commands talk: JSON on stdout for scripts, Rich for people, progress on stderr."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

# Piped output is read by programs and pagers: nothing is folded to an imagined terminal of 80 columns.
console = Console(width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True)
_LINE_SECONDS = 15


def print_json(value: Any) -> None:
    """Print one JSON document on stdout, nothing else; a number that is not finite is null."""
    typer.echo(json.dumps(_finite(value), ensure_ascii=False, indent=2, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def print_counts(title: str, counts: dict[str, Any]) -> None:
    """Print names and figures as a two-column table; nested figures are indented below their name."""
    console.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in counts.items():
        if isinstance(value, dict):
            table.add_row(name, "" if value else "none")
            for inner, figure in sorted(value.items(), key=lambda item: str(item[0])):
                table.add_row(f"  {inner}", _figure(figure))
        else:
            table.add_row(name, _figure(value))
    console.print(table)


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


@contextmanager
def progress_bar(description: str) -> Iterator[Any]:
    """Draw a progress bar on stderr; the value called with (done, total, unit, message) moves it.

    Where stderr is no terminal, a line is written now and then instead.
    """
    if not errors.is_terminal:
        yield _ProgressLines(description)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", style="dim"),
        console=errors,
        transient=True,
    ) as bar:
        task = bar.add_task(description, total=None, unit="", message="")

        def report(done: int, total: int | None, unit: str, message: str) -> None:
            bar.update(task, completed=done, total=total, unit=unit, message=message[:60])

        yield report


class _ProgressLines:
    """Progress as lines, one at most every `_LINE_SECONDS`, and the last."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._written_at = time.monotonic()

    def __call__(self, done: int, total: int | None, unit: str, message: str) -> None:
        now = time.monotonic()
        if now - self._written_at >= _LINE_SECONDS or done == total:
            self._written_at = now
            of = "" if total is None else f" of {total}"
            print(f"{self._description}: {done}{of} {unit} {message[:80]}", file=sys.stderr, flush=True)


def log_to_terminal(verbose: bool = False) -> None:
    """Send the project's own log lines to stderr; libraries only when they warn."""
    handler = RichHandler(console=errors, show_path=False)
    handler.addFilter(_shorten_retries)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("toolcall_pipeline").setLevel(logging.DEBUG if verbose else logging.INFO)


def _shorten_retries(record: logging.LogRecord) -> bool:
    """Say in a line what dagster-postgres says in nine, a dozen times."""
    if str(record.msg).startswith("Retrying failed database connection"):
        record.msg, record.args = "PostgreSQL does not answer; trying again", ()
    return True

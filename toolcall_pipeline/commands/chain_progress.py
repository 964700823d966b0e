"""The progress of a chain: bars in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0


class ChainProgress(Protocol):
    """Hears of every asset's state."""

    def __call__(self, asset: str, state: str, done: int, total: int | None, unit: str, message: str) -> None:
        """Show a state: started, progress, done, skipped, held or failed."""


def chain_progress(console: Console, assets: tuple[str, ...]) -> AbstractContextManager[ChainProgress]:
    """Give what shows the progress of some assets on a console, for as long as the `with` block lasts."""
    return _Bars(console, assets) if console.is_terminal else nullcontext(_Lines(console))


class _Lines:
    """Write a line when an asset begins and ends, and one now and then while it is made."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started: dict[str, float] = {}
        self._last = 0.0

    def __call__(self, asset: str, state: str, done: int, total: int | None, unit: str, message: str) -> None:
        now = time.monotonic()
        if state == "progress":
            if now - self._last < _SECONDS_BETWEEN_LINES:
                return
            text = f"{_counts(done, total, unit)} {message}".strip()
        else:
            seconds = f" after {now - self._started[asset]:.0f} s" if asset in self._started else ""
            text = state + (seconds if state != "started" else "")
            if state == "started":
                self._started[asset] = now
        self._last = now
        self._console.print(f"{asset}: {text}", markup=False, highlight=False, soft_wrap=True)


class _Bars:
    """Draw one line per asset, with a bar while it is made."""

    def __init__(self, console: Console, assets: tuple[str, ...]) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:18}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]:9}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}", style="dim", markup=False),
            console=console,
        )
        self._tasks = {
            asset: self._progress.add_task(asset, total=None, start=False, state="", message="") for asset in assets
        }

    def __enter__(self) -> _Bars:
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
        self._progress.update(
            task,
            completed=(total or 1) if finished else done,
            total=(total or 1) if finished else total,
            state=state if state != "progress" else "running",
            message="" if finished else f"{_counts(done, total, unit)} {message}".strip()[:70],
        )
        if state in ("done", "skipped", "held", "failed"):
            self._progress.stop_task(task)


def _counts(done: int, total: int | None, unit: str) -> str:
    return f"{done:,}/{total:,} {unit}" if total else (f"{done:,} {unit}" if done else "")

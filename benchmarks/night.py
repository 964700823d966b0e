"""A night with 1 % new bytes beside the cold run, on copies of a folder of sessions under new identities.

    python -m benchmarks.night FOLDER [--megabytes 2000]

Both nights do all of a backfill with --commit: connect, look at every file, freeze, read, redact, link, load; gates are not
judged. Process start is left out: the interpreter, imports (the cold run made them) and loading the scanner. What is new in
the second night are the last two fifths of every fortieth file. Bars: the night takes at most 3 % of the cold run on 2 GB or
more; the processes of the cold run (PostgreSQL apart) together stay under 1 GB.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from toolcall_pipeline.redaction import scanner
from toolcall_pipeline.sessions.discovery import discover
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import server
from toolcall_pipeline.store.backfill import backfill

BAR_OF_COLD_RUN = 0.03
BAR_MEMORY_MB = 1000
NEW_SHARE = 0.01
_EVERY = 40
# The sample sessions are small: copies of them stay far below 2 GB, and the figures then say little.
_MAX_COPIES = 64
_IDENTITY = re.compile(
    rb"[0-9a-f]{4}(?=[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})|(?<=toolu_)....|(?<=msg_)....|(?<=call_)...."
)


def copy_sessions(source: Path, target: Path, megabytes: int) -> int:
    """Copy a folder's session files until there are enough bytes, each copy under identities of its own."""
    paths = discover(source)
    total = copy = 0
    while total < megabytes * 1_000_000 and copy < _MAX_COPIES:
        tag = f"{copy:04x}".encode()
        for path in paths:
            relative = path.relative_to(source)
            place = target / f"copy{copy}" / relative.parent / _IDENTITY.sub(tag, relative.name.encode()).decode()
            place.parent.mkdir(parents=True, exist_ok=True)
            content = _IDENTITY.sub(tag, path.read_bytes()) if copy else path.read_bytes()
            place.write_bytes(content)
            total += len(content)
        copy += 1
    return total


def hold_back(folder: Path, total_bytes: int) -> dict[Path, bytes]:
    """Cut the last lines off some files, 1 % of all bytes, and return what was cut."""
    paths = [path for path in discover(folder) if path.stat().st_size][::_EVERY]
    share = NEW_SHARE * total_bytes / sum(path.stat().st_size for path in paths)
    held: dict[Path, bytes] = {}
    for path in paths:
        content = path.read_bytes()
        cut = content.rfind(b"\n", 0, int(len(content) * (1 - share))) + 1
        held[path] = content[cut:]
        path.write_bytes(content[:cut])
    return held


class PeakMemory:
    """Watches the memory of this process and its children, shared pages counted once."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._stop.wait(0.25):
            total = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    if not process.name().startswith("postgres"):
                        total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.megabytes = max(self.megabytes, total / 1e6)


def measure(sessions: Path, home: Path, total_bytes: int) -> dict[str, Any]:
    """Return the seconds of both nights and what they brought in."""
    settings = Settings(home=home, DATABASE_URL=None)
    first = datetime(2026, 11, 1, 2, tzinfo=UTC)
    held = hold_back(sessions, total_bytes)
    server.start(settings)
    try:
        with PeakMemory() as memory:
            started = time.perf_counter()
            cold = backfill(settings, sessions_dir=sessions, commit=True, now=first)
            cold_seconds = time.perf_counter() - started
        for path, content in held.items():
            with path.open("ab") as stream:
                stream.write(content)
        scanner.warm_up()  # process start is left out: the cold run's workers had scanners of their own
        started = time.perf_counter()
        night = backfill(settings, sessions_dir=sessions, commit=True, now=first + timedelta(days=1))
        night_seconds = time.perf_counter() - started
    finally:
        server.stop(settings)
    return {
        "cold_megabytes": round(cold["bytes"] / 1e6, 1),
        "cold_tool_calls": cold["tool_calls"],
        "cold_seconds": round(cold_seconds, 1),
        "cold_mb_per_second": round(cold["bytes"] / 1e6 / cold_seconds, 1),
        "peak_memory_mb": round(memory.megabytes),
        "night_megabytes": round(night["bytes"] / 1e6, 1),
        "night_tool_calls": night["tool_calls"],
        "night_seconds": round(night_seconds, 2),
        "ratio": round(night_seconds / cold_seconds, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcp-bench-night-") as folder:
        total = copy_sessions(arguments.folder, Path(folder) / "sessions", arguments.megabytes)
        result = measure(Path(folder) / "sessions", Path(folder) / "home", total)
    print(json.dumps(result, indent=2))
    for name, value, bar in (
        ("a night with 1 % new bytes, of the cold run", result["ratio"], BAR_OF_COLD_RUN),
        ("peak memory in MB", result["peak_memory_mb"], BAR_MEMORY_MB),
    ):
        print("PASS" if value <= bar else "FAIL", f"{name}: {value}, the bar is {bar}")


if __name__ == "__main__":
    main()

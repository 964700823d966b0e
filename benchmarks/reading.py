"""Reading sessions, beside orjson parsing the same bytes and beside two published exporters, in one run.

    python benchmarks/reading.py FOLDER [--processes 2] [--repeat 3] [--peers]

orjson and the readers use the same number of processes, over the same files, in turn; the best of the repetitions counts.
Cold means that no ledger is known, not that the page cache is empty: disks are not compared. `--peers` adds dataclaw and
teich (both from PyPI) where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.sessions.discovery import discover, sniff_format
from toolcall_pipeline.sessions.formats import FORMATS
from toolcall_pipeline.sessions.lock import load_lock
from toolcall_pipeline.sessions.reading import SessionFileReader
from toolcall_pipeline.sessions.stage import freeze_sessions
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext

BAR_OF_ORJSON = 0.5


def parse_with_orjson(path: str) -> int:
    count = 0
    with open(path, "rb") as stream:
        for line in stream:
            try:
                orjson.loads(line)
                count += 1
            except ValueError:
                pass
    return count


def read_with_readers(path: str) -> int:
    name = sniff_format(Path(path))
    if name not in FORMATS:
        return 0
    return sum(1 for _ in SessionFileReader(Path(path), relative_path=path, format=name))


def timed(function: Callable[[str], int], paths: list[str], processes: int) -> float:
    started = time.perf_counter()
    if processes == 1:
        for path in paths:
            function(path)
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            for _ in pool.imap_unordered(function, paths, chunksize=4):
                pass
    return time.perf_counter() - started


def freeze_twice(folder: Path) -> tuple[float, float]:
    """Seconds of the first night, and of a second one in which nothing changed."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        seconds = []
        ledger: dict[str, Any] = {}
        for key in ("20261101T020000Z", "20261102T020000Z"):
            context = StageContext(key, PRESETS["smoke"], settings, engine=None, log=logging.getLogger("benchmark"))  # type: ignore[arg-type]
            started = time.perf_counter()
            artifact = freeze_sessions(context, sessions_dir=folder, previous=ledger)
            seconds.append(time.perf_counter() - started)
            ledger = {file.file_key: file.next_state for file in load_lock(artifact).files if file.next_state}
    return seconds[0], seconds[1]


def peers(folder: Path) -> dict[str, float]:
    """Seconds of the published exporters on the same folder, by name, where they are installed."""
    found: dict[str, float] = {}
    for name in ("teich", "dataclaw"):
        if importlib.util.find_spec(name) is None:
            print(f"{name}: not installed, left out (pip install {name})")
            continue
        measure = {"teich": _teich, "dataclaw": _dataclaw}[name]
        started = time.perf_counter()
        measure(folder)
        found[name] = time.perf_counter() - started
    return found


def _teich(folder: Path) -> None:
    from teich.converter import convert_traces_to_training_data

    with tempfile.TemporaryDirectory() as output:
        convert_traces_to_training_data(folder, Path(output) / "out.jsonl")


def _dataclaw(folder: Path) -> None:
    from dataclaw.parsers.claude import parse_session_file

    for path in discover(folder):
        parse_session_file(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    arguments = parser.parse_args()
    paths = [str(path) for path in discover(arguments.folder)]
    megabytes = sum(os.path.getsize(path) for path in paths) / 1e6
    best: dict[str, float] = {}
    for _ in range(arguments.repeat):
        for name, function in (("orjson", parse_with_orjson), ("readers", read_with_readers)):
            seconds = timed(function, paths, arguments.processes)
            best[name] = min(seconds, best.get(name, seconds))
    ratio = best["orjson"] / best["readers"]
    first, second = freeze_twice(arguments.folder)
    result: dict[str, Any] = {
        "files": len(paths),
        "megabytes": round(megabytes, 1),
        "processes": arguments.processes,
        "orjson_mb_per_second": round(megabytes / best["orjson"], 1),
        "readers_mb_per_second": round(megabytes / best["readers"], 1),
        "ratio_to_orjson": round(ratio, 3),
        "bar": BAR_OF_ORJSON,
        "freeze_mb_per_second": round(megabytes / first, 1),
        "freeze_unchanged_seconds": round(second, 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "peak_memory_of_a_worker_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
    }
    if arguments.peers:
        for name, seconds in peers(arguments.folder).items():
            result[f"{name}_mb_per_second"] = round(megabytes / seconds, 1)
            result[f"ratio_to_{name}"] = round(seconds * megabytes / (best["readers"] * megabytes), 2)
    print(json.dumps(result, indent=2))
    print("PASS" if ratio >= BAR_OF_ORJSON else "FAIL", f"reading is {ratio:.2f} of orjson, the bar is {BAR_OF_ORJSON}")


if __name__ == "__main__":
    main()

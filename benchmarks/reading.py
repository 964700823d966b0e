"""Reading sessions, with and without redaction, beside orjson and two published exporters, in one run.

    python -m benchmarks.reading FOLDER [--processes 2] [--repeat 3] [--peers PYTHON]

orjson, the readers, and the readers with redaction (what a worker of the store does with a family of files before it links) use
the same number of processes over the same files, in turn; what counts is their CPU time (on a machine that does nothing else the same as time), the
best of the repetitions. Cold means that no ledger is known and the scanner
is loaded, not that the page cache is empty: disks are not compared. `--peers` names an interpreter of an environment of its
own with `pip install dataclaw==0.4 teich==0.3`; each is run as it comes, in one process, over the Claude Code files.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import orjson

from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.redaction import RedactionOptions
from toolcall_pipeline.sessions.discovery import discover, sniff_format
from toolcall_pipeline.sessions.formats import FORMATS
from toolcall_pipeline.sessions.lock import SessionsLock, load_lock
from toolcall_pipeline.sessions.reading import SessionFileReader
from toolcall_pipeline.sessions.stage import freeze_sessions
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store import family_worker
from toolcall_pipeline.store.family_worker import FamilyReader, FamilyTask
from toolcall_pipeline.store.grouping import group_files
from toolcall_pipeline.store.range_nodes import files_to_read

BAR_OF_ORJSON = 0.5
BAR_WITH_REDACTION = 0.25
# Name, whether it redacts (then it is compared with the readers that do), bar.
PEERS = (("dataclaw", True, 10), ("teich", False, 5))


def parse_with_orjson(path: str) -> None:
    with open(path, "rb") as stream:
        for line in stream:
            try:
                orjson.loads(line)
            except ValueError:
                continue


def read_with_readers(path: str) -> None:
    name = sniff_format(Path(path))
    if name in FORMATS:
        for _ in SessionFileReader(Path(path), relative_path=path, format=name):
            pass


_reader: FamilyReader | None = None


def warm_up() -> None:
    global _reader
    _reader = FamilyReader(RedactionOptions())
    _reader.redact_name("warm")


def read_and_redact(lock: SessionsLock) -> None:
    assert _reader is not None
    collector = family_worker._Collector(FamilyTask(0, lock, (), {}), _reader, {})
    for file in lock.files:
        collector.read_file(file)
    collector.judge_prompts()
    collector.flush()


def cpu_seconds(function: Callable[[Any], None], item: Any) -> float:
    started = time.process_time()
    function(item)
    return time.process_time() - started


def timed(function: Callable[[Any], None], items: Sequence[Any], processes: int) -> float:
    """Return the seconds a pool takes, its start left out: the CPU time of its processes, which share the work evenly."""
    with multiprocessing.get_context("fork").Pool(processes, warm_up) as pool:
        return sum(pool.imap_unordered(partial(cpu_seconds, function), items, chunksize=4)) / processes


def freeze_twice(folder: Path) -> tuple[float, float, list[SessionsLock]]:
    """Return the seconds of a first night and of one in which nothing changed, and the first one's lock by family of files."""
    with tempfile.TemporaryDirectory() as home:
        seconds: list[float] = []
        families: list[SessionsLock] = []
        ledger: dict[str, Any] = {}
        for key in ("20261101T020000Z", "20261102T020000Z"):
            log = logging.getLogger("benchmark")
            context = StageContext(key, PRESETS["smoke"], Settings(home=Path(home)), engine=None, log=log)  # type: ignore[arg-type]
            started = time.perf_counter()
            artifact = freeze_sessions(context, sessions_dir=folder, previous=ledger)
            seconds.append(time.perf_counter() - started)
            lock = load_lock(artifact)
            groups = group_files(files_to_read(artifact, lock), (), {})
            families = families or [msgspec.structs.replace(lock, files=group.files) for group in groups]
            ledger = {file.file_key: file.next_state for file in lock.files if file.next_state}
    return seconds[0], seconds[1], families


def peer_speed(python: Path, name: str, paths: list[str]) -> dict[str, Any]:
    """Return what `peer_exporter.py` says of one published exporter."""
    script = Path(__file__).with_name("peer_exporter.py")
    done = subprocess.run([python, script, name], input="\n".join(paths), capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peers", type=Path, metavar="PYTHON")
    arguments = parser.parse_args()
    paths = [str(path) for path in discover(arguments.folder)]
    megabytes = sum(os.path.getsize(path) for path in paths) / 1e6
    first, second, families = freeze_twice(arguments.folder)
    work: dict[str, tuple[Callable[[Any], None], Sequence[Any]]] = {
        "orjson": (parse_with_orjson, paths),
        "readers": (read_with_readers, paths),
        "readers_with_redaction": (read_and_redact, families),
    }
    best: dict[str, float] = {}
    for _ in range(arguments.repeat):
        for name, (function, items) in work.items():
            seconds = timed(function, items, arguments.processes)
            best[name] = min(seconds, best.get(name, seconds))
    result: dict[str, Any] = {
        "files": len(paths),
        "megabytes": round(megabytes, 1),
        "processes": arguments.processes,
        **{f"{name}_mb_per_second": round(megabytes / seconds, 1) for name, seconds in best.items()},
        "freeze_mb_per_second": round(megabytes / first, 1),
        "freeze_unchanged_seconds": round(second, 3),
        "peak_memory_of_a_worker_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
    }
    ratios = [
        ("reading, of orjson", best["orjson"] / best["readers"], BAR_OF_ORJSON),
        ("reading with redaction, of orjson", best["orjson"] / best["readers_with_redaction"], BAR_WITH_REDACTION),
    ]
    claude = [str(lock.root / file.path) for lock in families for file in lock.files if file.format == "claude_code"]
    for name, redacts, bar in PEERS if arguments.peers else ():
        found = peer_speed(arguments.peers, name, claude)
        result[name] = found
        if "problem" not in found:
            ours = megabytes / best["readers_with_redaction" if redacts else "readers"]
            ratios.append((f"times the speed of {name}", ours * found["seconds"] / found["megabytes"], bar))
    print(json.dumps(result, indent=2))
    if not arguments.peers:
        print("dataclaw, teich: not compared (--peers names an interpreter that has them)")
    for name, ratio, bar in ratios:
        print("PASS" if ratio >= bar else "FAIL", f"{name}: {ratio:.2f}, the bar is {bar}")


if __name__ == "__main__":
    main()

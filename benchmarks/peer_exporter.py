"""Time a published exporter on session files; run by `benchmarks.reading` with the interpreter that has it installed.

    python peer_exporter.py dataclaw|teich < paths, one a line

Prints JSON: seconds and megabytes of the files it got through, and how many made it raise. One process, as it comes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def dataclaw() -> Callable[[str], object]:
    from dataclaw.anonymizer import Anonymizer
    from dataclaw.parsers.claude import parse_session_file
    from dataclaw.secrets import redact_session

    anonymizer = Anonymizer()

    def export(path: str) -> object:
        session = parse_session_file(Path(path), anonymizer)
        return redact_session(session) if session else None

    return export


def teich() -> Callable[[str], object]:
    from teich.converter import convert_traces_to_training_data

    return convert_traces_to_training_data


def main() -> None:
    name = sys.argv[1]
    if importlib.util.find_spec(name) is None:
        print(json.dumps({"problem": "not installed"}))
        return
    export = {"dataclaw": dataclaw, "teich": teich}[name]()
    seconds = megabytes = 0.0
    raised = 0
    for path in sys.stdin.read().splitlines():
        started = time.process_time()
        try:
            export(path)
        except Exception:  # noqa: BLE001 - whatever it raises, it is counted and printed
            raised += 1
            continue
        seconds += time.process_time() - started
        megabytes += os.path.getsize(path) / 1e6
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "files_raised": raised}))


if __name__ == "__main__":
    main()

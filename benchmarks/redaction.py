"""Redaction beside orjson parsing the same bytes, in one process and in one run.

    python benchmarks/redaction.py FOLDER [--megabytes 200] [--repeat 3]

Times are CPU seconds of this process, the best of the repetitions. `read` is orjson plus taking the texts out of the
messages; `read and redact` adds the redactor. The bar is 0.25 of orjson's MB/s, cold: parse and scan in series.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from toolcall_pipeline.redaction import Redactor, scanner
from toolcall_pipeline.redaction.baseline import Baseline
from toolcall_pipeline.redaction.independent_scan import scan

BAR_OF_ORJSON = 0.25


def load_lines(folder: Path, limit_bytes: int) -> list[bytes]:
    lines: list[bytes] = []
    size = 0
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            lines.append(line)
            size += len(line)
        if size > limit_bytes:
            break
    return lines


def parse(lines: list[bytes]) -> int:
    count = 0
    for line in lines:
        try:
            orjson.loads(line)
            count += 1
        except ValueError:
            pass
    return count


def take_texts(lines: list[bytes]) -> list[Any]:
    values: list[Any] = []
    for line in lines:
        try:
            message = orjson.loads(line).get("message")
        except (ValueError, AttributeError):
            continue
        content = message.get("content") if isinstance(message, dict) else None
        for block in [content] if isinstance(content, str) else content if isinstance(content, list) else []:
            if isinstance(block, str):
                values.append(block)
            elif isinstance(block, dict) and block.get("type") != "image":
                values.append({key: block[key] for key in ("text", "input", "content") if key in block})
    return values


def best_seconds(function: Callable[[], object], repeat: int) -> float:
    results = []
    for _ in range(repeat):
        started = time.process_time()
        function()
        results.append(time.process_time() - started)
    return min(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    lines = load_lines(arguments.folder, arguments.megabytes * 1_000_000)
    megabytes = sum(map(len, lines)) / 1e6
    started = time.process_time()
    scanner.warm_up()
    start_seconds = time.process_time() - started
    orjson_seconds = best_seconds(lambda: parse(lines), arguments.repeat)
    read_seconds = best_seconds(lambda: take_texts(lines), arguments.repeat)
    values = take_texts(lines)
    # A new one each time: a redactor remembers what it found clean.
    redact_seconds = best_seconds(lambda: Redactor().redact_jsons(values, "s"), arguments.repeat)
    redactor = Redactor()
    redacted = redactor.redact_jsons(values, "s")
    texts = [json.dumps(value, ensure_ascii=False) for value in redacted]
    scan_started = time.process_time()
    second = scan((("row", str(number), text) for number, text in enumerate(texts)), Baseline())
    scan_seconds = time.process_time() - scan_started
    ratio = orjson_seconds / (read_seconds + redact_seconds)
    print(
        json.dumps(
            {
                "megabytes": round(megabytes, 1),
                "orjson_mb_per_second": round(megabytes / orjson_seconds, 1),
                "read_mb_per_second": round(megabytes / read_seconds, 1),
                "read_and_redact_mb_per_second": round(megabytes / (read_seconds + redact_seconds), 1),
                "ratio_to_orjson": round(ratio, 3),
                "bar": BAR_OF_ORJSON,
                "scanner_start_seconds": round(start_seconds, 2),
                "second_scan_text_mb_per_second": round(second.characters_count / 1e6 / scan_seconds, 1),
                "second_scan_findings": second.new_count,
                "replacements_by_rule": redactor.report(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()

"""A training process of three steps: the same words to Dagster and on standard output as the real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(job_file: str) -> int:
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    print("a library says something of its own")
    for step in range(1, 4):
        event = {"event": "step", "step": step, "total": 3, "loss": 3.0 / step, "tokens_per_second": 100.0}
        print(json.dumps(event), flush=True)
    print(json.dumps({"event": "evaluation", "step": 3, "total": 3, "eval_loss": 0.9}), flush=True)
    return int(job["exit_code"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

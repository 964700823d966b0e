"""Orchestration: the finished chain of a partition made and judged again by Dagster, against the same functions called bare.

    python -m benchmarks.orchestration [--partition 20260101T000000Z-sample]

Run it after `make run`, in the same state folder. Every stage finds its artifact and every gate is judged anew in both ways,
so that what is left between them is Dagster: definitions, run, steps, events in PostgreSQL, guards that hash every file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from toolcall_pipeline import chain
from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.gates.registry import judge_asset
from toolcall_pipeline.settings import load_settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store.engine import open_store
from toolcall_pipeline.store.runs import get_run

BAR_SECONDS = 15.0


def call_functions(partition: str) -> float:
    """Find and judge every asset of a finished partition by calling the functions; return the seconds it took."""
    started = time.monotonic()
    settings = load_settings()
    engine = open_store(settings)
    run = get_run(engine, partition)
    assert run is not None
    context = StageContext(partition, run.configuration, settings, engine)
    for asset in chain.ASSETS:
        chain.materialise(asset, context)
        judge_asset(engine, context.artifacts, partition, asset, run.configuration)
    engine.dispose()
    return time.monotonic() - started


def run_job(partition: str) -> float:
    """Do the same as one Dagster run of the job `full_chain`; return the seconds it took, imports included."""
    started = time.monotonic()
    from toolcall_pipeline.definitions import defs
    from toolcall_pipeline.defs.instance import project_instance

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with project_instance(load_settings(), in_process=True) as instance:
        job = defs.resolve_job_def("full_chain")
        result = job.execute_in_process(instance=instance, partition_key=partition, run_config=quiet)
    assert result.success
    return time.monotonic() - started


def main() -> int:
    """Print both times and their difference; exit 1 above the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partition")
    partition = parser.parse_args().partition or chain.latest_partition(ArtifactStore(load_settings().artifacts_dir))
    if partition is None:
        print("Nothing was made yet. Run `make run` first.", file=sys.stderr)
        return 2
    call_functions(partition)  # libraries are imported and files read once, for both
    functions, orchestrated = call_functions(partition), run_job(partition)
    extra = orchestrated - functions
    report = {
        "partition": partition,
        "functions_seconds": round(functions, 2),
        "dagster_seconds": round(orchestrated, 2),
        "extra_seconds": round(extra, 2),
        "bar_seconds": BAR_SECONDS,
    }
    print(json.dumps(report, indent=2))
    return 0 if extra <= BAR_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())

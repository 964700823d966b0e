"""`python -m toolcall_pipeline.training JOB.json`: train in a process of its own, here or behind Dagster Pipes.

Standard output carries one JSON object a line (`event`: step, evaluation, done, stopped, error). Exit codes: 0 done,
2 refused, 3 broke, 75 stopped with a checkpoint. With `training.process_count` above 1 it starts itself again under
accelerate, one process a GPU, weights sharded with FSDP.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from toolcall_pipeline.artifacts import write_atomically
from toolcall_pipeline.errors import ToolcallPipelineError, TrainingError
from toolcall_pipeline.training.callbacks import ProgressSink, StopRequest, print_json_line
from toolcall_pipeline.training.job import (
    ERROR_NAME,
    EXIT_BROKE,
    EXIT_DONE,
    EXIT_NAME,
    EXIT_REFUSED,
    SUMMARY_NAME,
    TrainingJob,
    load_job,
)

_PIPES_VARIABLE = "DAGSTER_PIPES_CONTEXT"
_RANK_VARIABLE = "RANK"
_LOCK_NAME = "training.lock"
_LOCK_SECONDS = 300


def main(arguments: list[str]) -> int:
    """Run the job of the command line and return the exit code."""
    if len(arguments) != 1:
        print_json_line({"event": "error", "message": "usage: python -m toolcall_pipeline.training JOB.json"})
        return EXIT_REFUSED
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    stop = StopRequest()
    stop.install()
    job: TrainingJob | None = None
    try:
        job = load_job(Path(arguments[0]))
        if _RANK_VARIABLE in os.environ:
            with _sinks() as sinks:
                return _run(job, sinks, stop)
        with _only_training_in(job.work_dir):
            if job.training.process_count > 1:
                return _run_distributed(job, Path(arguments[0]))
            (job.work_dir / ERROR_NAME).unlink(missing_ok=True)
            with _sinks() as sinks:
                return _run(job, sinks, stop)
    except ToolcallPipelineError as error:
        return _report(job, error, EXIT_REFUSED if error.exit_code == EXIT_REFUSED else EXIT_BROKE)
    except (RuntimeError, OSError, ValueError, MemoryError) as error:
        logging.getLogger("toolcall_pipeline.training").exception("training broke")
        return _report(job, error, EXIT_BROKE)


@contextlib.contextmanager
def _only_training_in(work_dir: Path) -> Iterator[None]:
    """Wait for a training that was left behind in this folder; it ends after its step, with a checkpoint to go on from."""
    lock = FileLock(work_dir / _LOCK_NAME)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise TrainingError(
            f"Another process has been training in {work_dir} for {_LOCK_SECONDS} s and does not end. Stop it, then "
            "materialise lora_adapter again: it goes on from its last checkpoint."
        ) from None
    try:
        yield
    finally:
        lock.release()


def accelerate_command(process_count: int, job_file: Path) -> list[str]:
    """Return the command that trains one job with several processes on this host, sharded with FSDP.

    Port 0 takes a free one: with accelerate's own, a second training on the host would not start.
    """
    return [
        sys.executable, "-m", "accelerate.commands.launch",
        "--num_processes", str(process_count), "--num_machines", "1", "--mixed_precision", "no",
        "--dynamo_backend", "no", "--main_process_port", "0",
        "--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP",
        "--fsdp_state_dict_type", "FULL_STATE_DICT", "--fsdp_cpu_ram_efficient_loading", "false",
        "-m", "toolcall_pipeline.training", str(job_file),
    ]  # fmt: skip


def _run_distributed(job: TrainingJob, job_file: Path) -> int:
    """Start one process a GPU and return what the first of them ended with: the launcher itself only says 0 or 1."""
    for name in (EXIT_NAME, ERROR_NAME):
        (job.work_dir / name).unlink(missing_ok=True)
    # A session of its own: the launcher would kill its processes 30 s after a Ctrl-C, checkpoint written or not.
    process = subprocess.Popen(accelerate_command(job.training.process_count, job_file), start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: _ask_to_stop(process.pid))
    code = process.wait()
    exit_file = job.work_dir / EXIT_NAME
    return int(exit_file.read_text(encoding="utf-8")) if exit_file.is_file() else code


def _ask_to_stop(launcher_pid: int) -> None:
    """Ask every training process for a checkpoint, past the launcher that started them."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(launcher_pid).children():
            process.terminate()


def _run(job: TrainingJob, sinks: list[ProgressSink], stop: StopRequest) -> int:
    if job.training.process_count == 1:
        _see_one_gpu()
    from toolcall_pipeline.training.process import run

    code = run(job, sinks, stop)
    if _rank() == 0:
        summary = job.work_dir / SUMMARY_NAME
        done = json.loads(summary.read_text(encoding="utf-8")) if code == EXIT_DONE else {}
        write_atomically(job.work_dir / EXIT_NAME, f"{code}\n")
        for sink in sinks:
            sink({"event": "done" if code == EXIT_DONE else "stopped", **done})
    return code


@contextlib.contextmanager
def _sinks() -> Iterator[list[ProgressSink]]:
    """Give the sinks of progress: standard output, and Dagster where it started this process."""
    if _PIPES_VARIABLE not in os.environ or _rank():
        yield [print_json_line]
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:

        def to_dagster(event: dict[str, Any]) -> None:
            if event["event"] != "step" or _is_due(event):
                pipes.log.info(progress_sentence(event))

        yield [print_json_line, to_dagster]


def _is_due(event: dict[str, Any]) -> bool:
    """Thin out step lines to about fifty a run."""
    step, total = int(event["step"]), max(1, int(event["total"]))
    return step == 1 or step == total or step % max(1, total // 50) == 0


def progress_sentence(event: dict[str, Any]) -> str:
    """Return a progress record as a line for a person."""
    if event["event"] in ("done", "stopped"):
        return f"training {event['event']}" + (f" after {event['steps_count']} steps" if "steps_count" in event else "")
    parts = [f"step {event['step']}/{event['total']}"]
    for key, text in (("loss", "loss {:.4f}"), ("eval_loss", "eval loss {:.4f}"), ("learning_rate", "lr {:.2e}")):
        if key in event:
            parts.append(text.format(event[key]))
    if "tokens_per_second" in event:
        parts.append(f"{event['tokens_per_second']:,.0f} tokens/s, {event['eta_seconds']:,.0f} s left")
    return ", ".join(parts)


def _see_one_gpu() -> None:
    """Hide all GPUs but the first from this process: transformers would spread one process over all it sees."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    os.environ["CUDA_VISIBLE_DEVICES"] = first


def _rank() -> int:
    return int(os.environ.get(_RANK_VARIABLE, "0"))


def _report(job: TrainingJob | None, error: BaseException, code: int) -> int:
    """Tell what went wrong; of several processes the first to fail is right, the others only lost it."""
    message = str(error) if isinstance(error, ToolcallPipelineError) else f"{type(error).__name__}: {error}"[:2000]
    if job is not None and job.work_dir.is_dir() and not (job.work_dir / ERROR_NAME).exists():
        write_atomically(job.work_dir / EXIT_NAME, f"{code}\n")
        write_atomically(job.work_dir / ERROR_NAME, json.dumps({"code": code, "message": message}) + "\n")
    print_json_line({"event": "error", "code": code, "message": message})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

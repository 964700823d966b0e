"""Training as a process of its own, behind Dagster Pipes, with its figures live in Dagster."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from toolcall_pipeline.defs.wiring import Wiring
from toolcall_pipeline.settings import load_settings
from toolcall_pipeline.training.job import LOG_NAME
from toolcall_pipeline.training.stage import training_command

TRAINER_KEY = "trainer"
_TERMINATION_SECONDS = 120
_OBSERVATIONS = 20
_NOT_FIGURES = ("step", "total", "code")

OnEvent = Callable[[dict[str, Any]], None]


class Trainer:
    """Runs a training command with the job file appended, in a process of its own.

    A remote GPU is another command (`TOOLCALL_PIPELINE_TRAINING_COMMAND`): it hands on the lines and the exit code.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    def run(self, context: dg.AssetExecutionContext, job_file: Path, on_event: OnEvent) -> int:
        """Run one training in a Pipes session and return its exit code.

        Its log lines reach Dagster through Pipes, its figures as JSON lines on standard output, what libraries say goes
        to `training.log` beside the job. When the run is stopped, the process is asked to leave a checkpoint.
        """
        command = [*self._command, str(job_file)]
        with (
            _without_dagsters_own_warnings(),
            dg.open_pipes_session(
                context=context,
                context_injector=dg.PipesTempFileContextInjector(),
                message_reader=dg.PipesTempFileMessageReader(),
            ) as session,
            (job_file.parent / LOG_NAME).open("ab") as log,
        ):
            environment = {**os.environ, **session.get_bootstrap_env_vars()}
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8"
            ) as process:
                try:
                    assert process.stdout is not None
                    for line in process.stdout:
                        event = read_event(line)
                        if event is not None:
                            on_event(event)
                    return process.wait()
                finally:
                    _stop(context, process)


@contextmanager
def _without_dagsters_own_warnings() -> Iterator[None]:
    """Leave out what Dagster 1.13.27's own Pipes code warns about itself; nothing here can be done about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*run_id is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*PipesMessageReader.expected_writer_count")
        yield


def read_event(line: str) -> dict[str, Any] | None:
    """Return a line of the process as an event, or None where a library said something of its own."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


@dg.resource(
    description="Where training runs: a process on this machine behind Dagster Pipes, or what "
    "TOOLCALL_PIPELINE_TRAINING_COMMAND names."
)
def trainer(context: dg.InitResourceContext) -> Trainer:
    """Return the trainer that the settings name."""
    return Trainer(training_command(load_settings()))


def launcher(context: dg.AssetExecutionContext, wiring: Wiring) -> Callable[[Path], int]:
    """Return what `training.stage.train_adapter` takes to start a training: a job file to an exit code."""
    chosen: Trainer = getattr(context.resources, TRAINER_KEY)

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] not in ("step", "evaluation"):
            return
        step, total = int(event["step"]), int(event["total"])
        loss = event.get("loss", event.get("eval_loss"))
        wiring.progress("lora_adapter", step, total, "steps", "" if loss is None else f"loss {loss:.3f}")
        if event["event"] == "evaluation" or is_observed(step, total):
            context.log_event(
                dg.AssetObservation(
                    asset_key="lora_adapter", partition=context.partition_key, metadata=figures_of(event)
                )
            )

    return lambda job_file: chosen.run(context, job_file, on_event)


def is_observed(step: int, total: int) -> bool:
    """Return whether a step's figures become an observation: about twenty a run, the first and the last among them."""
    return step in (1, total) or step % max(1, total // _OBSERVATIONS) == 0


def figures_of(event: dict[str, Any]) -> dict[str, float | int]:
    """Return the numbers of an event under the names Dagster plots."""
    figures: dict[str, float | int] = {"training_step": int(event["step"])}
    for name, value in event.items():
        if name not in _NOT_FIGURES and isinstance(value, int | float) and not isinstance(value, bool):
            figures[f"training_{name}"] = float(value)
    return figures


def _stop(context: dg.AssetExecutionContext, process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    context.log.warning("The training process is asked to leave a checkpoint and stop.")
    process.terminate()
    try:
        process.wait(timeout=_TERMINATION_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Training as a process of its own, behind Dagster Pipes, with its figures live in Dagster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

TRAINER_KEY = "trainer"
_TERMINATION_SECONDS = 120


class Trainer:
    """Runs `python -m toolcall_pipeline.training CONFIG.json` here.

    A remote GPU is another resource under the same key: `run` has to return the process's exit code.
    """

    def run(self, context: dg.AssetExecutionContext, config_path: Path) -> int:
        """Run one training in a Pipes session, forward termination, and return its exit code."""
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
        ) as session:
            command = [sys.executable, "-m", "toolcall_pipeline.training", str(config_path)]
            process = subprocess.Popen(command, env={**os.environ, **session.get_bootstrap_env_vars()})
            try:
                code = process.wait()
            except (DagsterExecutionInterruptedError, KeyboardInterrupt):
                context.log.warning("Training is asked to leave a checkpoint and stop.")
                process.terminate()
                process.wait(timeout=_TERMINATION_SECONDS)
                raise
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        observe_metrics(context, session.get_custom_messages())
        return code


@dg.resource(description="Where training runs: a process on this machine, behind Dagster Pipes.")
def local_trainer(context: dg.InitResourceContext) -> Trainer:
    """Return the trainer of this machine."""
    return Trainer()


def launcher(context: dg.AssetExecutionContext) -> Callable[[Path], int]:
    """Return what `training.stage.train_adapter` takes to start a training."""
    trainer: Trainer = getattr(context.resources, TRAINER_KEY)
    return lambda config_path: trainer.run(context, config_path)


def observe_metrics(context: dg.AssetExecutionContext, messages: Any) -> None:
    """Record the figures that the process reported as observations, which Dagster plots."""
    for message in messages:
        if isinstance(message, Mapping):
            figures = {name: float(value) for name, value in message.items() if isinstance(value, int | float)}
            context.log_event(
                dg.AssetObservation(asset_key=context.asset_key, partition=context.partition_key, metadata=figures)
            )

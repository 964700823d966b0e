"""`lora_adapter`: start the training process, follow it, keep what it made."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import Artifact, ArtifactBuild, write_atomically
from toolcall_pipeline.dataset.files import ENCODED_TRAIN, ENCODED_VALID
from toolcall_pipeline.errors import ConfigurationError, TrainingError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.training.base_model import BaseModelInfo, resolve_base
from toolcall_pipeline.training.curve import draw_loss_curve
from toolcall_pipeline.training.job import (
    ADAPTER_NAME,
    ERROR_NAME,
    EXIT_DONE,
    EXIT_REFUSED,
    EXIT_STOPPED,
    JOB_NAME,
    LOG_NAME,
    METRICS_NAME,
    START_NAME,
    SUMMARY_NAME,
    TrainingJob,
)

ASSET = "lora_adapter"
BASE_NAME = "base_model.json"
CURVE_NAME = "loss_curve.png"

_STOP_SECONDS = 120
"""How long a stopped training may take to finish its step and write a checkpoint before it is killed."""
_VERSION = 1

Launch = Callable[[Path], int]


def train_adapter(context: StageContext, dataset: Artifact, *, launch: Launch | None = None) -> Artifact:
    """Train the LoRA adapter of a partition, or return the one that exactly this configuration already made.

    Args:
        context: Partition, configuration, where things are.
        dataset: Its `v2_chat_dataset`.
        launch: Runs `python -m toolcall_pipeline.training JOB.json` some other way and returns its exit code; without
            it a process of this machine is started.

    Raises:
        ConfigurationError: The configuration does not fit this machine or base.
        TrainingError: The process stopped (materialise again to go on), or broke.
    """
    base = resolve_base(context.configuration.base, context.settings.cache_dir)
    recipe = adapter_recipe(context, dataset, base)
    found = context.artifacts.find(ASSET, context.partition, recipe)
    if found is not None:
        return found
    work_dir = context.settings.home_dir / "training" / context.partition
    job_file = _write_job(context, dataset, base, recipe, work_dir)
    code = (launch or (lambda path: run_process(path, context)))(job_file)
    _require_done(code, work_dir)
    with context.artifacts.build(
        ASSET,
        context.partition,
        recipe_of_artifact=recipe,
        parents={"v2_chat_dataset": dataset.sha256},
        seeds={"training": context.configuration.training.seed},
    ) as build:
        _collect(build, work_dir, base, context)
    shutil.rmtree(work_dir)
    return context.artifacts.require(ASSET, context.partition)


def adapter_recipe(context: StageContext, dataset: Artifact, base: BaseModelInfo) -> dict[str, Any]:
    """Return everything that decides the adapter."""
    training = context.configuration.training.model_dump(mode="json")
    return {
        "asset": ASSET,
        "version": _VERSION,
        "dataset_sha256": dataset.sha256,
        "base_sha256": base.sha256,
        "base": context.configuration.base.model,
        "max_row_tokens": context.configuration.dataset.max_row_tokens,
        "training": training,
    }


def training_command(settings: Settings) -> list[str]:
    """Return the command that trains a job, without the job file: this Python here, or what the settings name."""
    return shlex.split(settings.training_command or "") or [sys.executable, "-m", "toolcall_pipeline.training"]


def run_process(job_file: Path, context: StageContext) -> int:
    """Train in a process of its own, show its progress, and take it along when this one is stopped.

    Returns:
        The exit code; see `training/job.py`.
    """
    command = [*training_command(context.settings), str(job_file)]
    with (
        (job_file.parent / LOG_NAME).open("ab") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8") as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                _show(line, context)
            return process.wait()
        finally:
            _stop(process)


def _show(line: str, context: StageContext) -> None:
    from toolcall_pipeline.training.__main__ import progress_sentence

    try:
        event = json.loads(line)
    except ValueError:
        return  # a library's own words; they are in no report
    if not isinstance(event, dict):
        return
    if event.get("event") in ("step", "evaluation"):
        context.progress(int(event["step"]), int(event["total"]), "step", progress_sentence(event))


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_job(
    context: StageContext, dataset: Artifact, base: BaseModelInfo, recipe: dict[str, Any], work_dir: Path
) -> Path:
    """Write the job and link what it needs beside it: the folder, copied with its links followed, trains anywhere."""
    needs = {"base": base.path, ENCODED_TRAIN: dataset.path(ENCODED_TRAIN), ENCODED_VALID: dataset.path(ENCODED_VALID)}
    work_dir.mkdir(parents=True, exist_ok=True)
    for name, target in needs.items():
        (work_dir / name).unlink(missing_ok=True)
        (work_dir / name).symlink_to(target.absolute())
    job = TrainingJob(
        work_dir=Path(),
        base_dir=Path("base"),
        base_source=base.source,
        train_file=Path(ENCODED_TRAIN),
        valid_file=Path(ENCODED_VALID),
        training=context.configuration.training,
        max_row_tokens=context.configuration.dataset.max_row_tokens,
        identity=recipe,
    )
    write_atomically(work_dir / JOB_NAME, job.model_dump_json(indent=2) + "\n")
    return work_dir / JOB_NAME


def _require_done(code: int, work_dir: Path) -> None:
    if code == EXIT_DONE:
        return
    if code == EXIT_STOPPED:
        raise TrainingError(
            f"Training was stopped and left a checkpoint in {work_dir}. Materialise {ASSET} again: it goes on from there."
        )
    error_file = work_dir / ERROR_NAME
    message = (
        json.loads(error_file.read_text(encoding="utf-8"))["message"]
        if error_file.is_file()
        else f"it left no message; the end of {work_dir / LOG_NAME} says more"
    )
    if code == EXIT_REFUSED:
        raise ConfigurationError(message)
    raise TrainingError(f"The training process ended with code {code}: {message}")


def _collect(build: ArtifactBuild, work_dir: Path, base: BaseModelInfo, context: StageContext) -> None:
    """Copy what decides the result into the artifact; rates and times go to the manifest, outside every hash."""
    from toolcall_pipeline.training.process import read_metrics

    shutil.copytree(work_dir / ADAPTER_NAME, build.directory / ADAPTER_NAME)
    for name in (METRICS_NAME, START_NAME):
        shutil.copyfile(work_dir / name, build.directory / name)
    write_atomically(build.directory / BASE_NAME, json.dumps(base.to_json(), indent=2, sort_keys=True) + "\n")
    draw_loss_curve(read_metrics(work_dir / METRICS_NAME), build.directory / CURVE_NAME)
    write_atomically(build.directory / "README.md", adapter_card(base, context))
    summary = json.loads((work_dir / SUMMARY_NAME).read_text(encoding="utf-8"))
    build.metadata.update(summary)
    build.metadata["base_model"] = base.source
    build.metadata["base_licence"] = base.licence


def adapter_card(base: BaseModelInfo, context: StageContext) -> str:
    """Return the model card of an adapter: what it is made from and under which licence its base is."""
    training = context.configuration.training
    dequantised = (
        f"\nThe base's weights come from {base.dequantised_from}, a quantised file: they are no better than it.\n"
        if base.dequantised_from
        else ""
    )
    return (
        f"---\nlicense: {base.licence}\nbase_model: {base.source}\nlibrary_name: peft\n"
        f"tags: [lora, tool-calling]\n---\n\n# LoRA adapter of {context.partition}\n\n"
        f"Rank {training.lora_rank}, alpha {training.lora_alpha}, on {', '.join(training.target_modules)}; recipe "
        f"{context.configuration.dataset.recipe}. Base: {base.source} (revision {base.revision or 'local folder'}, "
        f"{base.parameter_count:,} parameters, licence {base.licence}).\n{dequantised}"
    )

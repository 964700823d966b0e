"""One training run from job to adapter: what `python -m toolcall_pipeline.training` does."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.artifacts import package_versions, write_atomically
from toolcall_pipeline.errors import TrainingError
from toolcall_pipeline.training.callbacks import ProgressSink, StopRequest, make_callback
from toolcall_pipeline.training.checkpoints import begin_from, checkpoint_step, checkpoint_to_resume
from toolcall_pipeline.training.encoded import EncodedRows, read_encoded_rows
from toolcall_pipeline.training.job import (
    ADAPTER_NAME,
    EXIT_DONE,
    EXIT_STOPPED,
    METRICS_NAME,
    PROGRESS_NAME,
    START_NAME,
    SUMMARY_NAME,
    TrainingJob,
)
from toolcall_pipeline.training.tensor_hash import tensor_sha256
from toolcall_pipeline.training.trainer import Setup, build_trainer, decide, quiet_libraries

if TYPE_CHECKING:
    from trl import SFTTrainer

_LOG = logging.getLogger("toolcall_pipeline.training")


def run(job: TrainingJob, sinks: list[ProgressSink], stop: StopRequest) -> int:
    """Train, or go on training, until done or asked to stop.

    Args:
        job: What to train.
        sinks: Called with every progress record.
        stop: Asked between steps.

    Returns:
        `EXIT_DONE` with the adapter on disk, or `EXIT_STOPPED` with a checkpoint to go on from.

    Raises:
        ConfigurationError: The configuration does not fit this machine.
        TrainingError: The data does not fit, another run's checkpoint is in the way, or the loss broke.
    """
    job.work_dir.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    train = read_encoded_rows(job.train_file, max_tokens=job.max_row_tokens)
    if not train.lengths_tokens:
        raise TrainingError(
            f"{job.train_file} holds no rows, so there is nothing to train on. Look at the dataset's drop reasons."
        )
    valid = _validation_rows(job, train)
    setup = decide(job, max(*train.lengths_tokens, *valid.lengths_tokens))
    checkpoint = checkpoint_to_resume(job)
    with quiet_libraries():
        trainer = build_trainer(job, setup, train, valid, evaluate_first=checkpoint is None)
        is_main = trainer.is_world_process_zero()
        if is_main:
            begin_from(job, checkpoint)
        trainer.add_callback(
            make_callback(
                work_dir=job.work_dir,
                stop=stop,
                sinks=sinks if is_main else [],
                real_tokens_ratio=_real_tokens_ratio(trainer, setup, train),
                is_main_process=is_main,
            )
        )
        _remember_start(job, trainer, fresh=checkpoint is None)
        _LOG.info("training %s from step %d", job.base_source, checkpoint_step(checkpoint) if checkpoint else 0)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.obeyed and trainer.state.global_step < trainer.state.max_steps:
            return EXIT_STOPPED
        if not _was_just_evaluated(trainer):
            trainer.evaluate()
        _save_adapter(job, trainer)
    if is_main:
        _write_summary(job, setup, trainer, train, time.monotonic() - started)
    return EXIT_DONE


def _was_just_evaluated(trainer: SFTTrainer) -> bool:
    """Return whether the last step was evaluated; from memory, where every process finds the same."""
    return any("eval_loss" in log and log["step"] == trainer.state.global_step for log in trainer.state.log_history)


def _validation_rows(job: TrainingJob, train: EncodedRows) -> EncodedRows:
    """Return the rows the loss is compared on; a dataset too small to have any lends its first training rows."""
    limit = job.training.evaluation_rows
    valid = read_encoded_rows(job.valid_file, max_tokens=job.max_row_tokens, limit=limit)
    return (
        valid if valid.lengths_tokens else read_encoded_rows(job.train_file, max_tokens=job.max_row_tokens, limit=limit)
    )


def _real_tokens_ratio(trainer: SFTTrainer, setup: Setup, train: EncodedRows) -> float:
    """Return the share of trained tokens that are rows and not padding."""
    step = setup.batches.pad_to_multiple_of
    if step is None:
        return 1.0
    sequences: Any = trainer.train_dataset
    return train.tokens / (len(sequences) * -(-setup.batches.packed_tokens // step) * step)


def trainable_state(model: Any) -> dict[str, Any]:
    """Return the adapter's tensors under the names they are saved with."""
    from peft import get_peft_model_state_dict

    return dict(sorted(get_peft_model_state_dict(model).items()))


def _remember_start(job: TrainingJob, trainer: SFTTrainer, *, fresh: bool) -> None:
    """Hash every trainable tensor before the first step, so that a gate can say which of them never moved."""
    path = job.work_dir / START_NAME
    if fresh and trainer.is_world_process_zero():
        hashes = {name: tensor_sha256(tensor) for name, tensor in trainable_state(trainer.model).items()}
        write_atomically(path, json.dumps(hashes, indent=1) + "\n")


def _save_adapter(job: TrainingJob, trainer: SFTTrainer) -> None:
    """Write the adapter without what differs between machines or runs of the same job."""
    folder = job.work_dir / ADAPTER_NAME
    if trainer.is_world_process_zero() and folder.exists():
        shutil.rmtree(folder)
    trainer.save_model(str(folder))
    if not trainer.is_world_process_zero():
        return
    for path in folder.iterdir():
        if path.name not in ("adapter_config.json", "adapter_model.safetensors"):
            path.unlink()
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = job.base_source
    config["target_modules"] = sorted(config["target_modules"])
    write_atomically(config_file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of `metrics.jsonl` in order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write_summary(job: TrainingJob, setup: Setup, trainer: SFTTrainer, train: EncodedRows, seconds: float) -> None:
    metrics = read_metrics(job.work_dir / METRICS_NAME)
    losses = [record["loss"] for record in metrics if "loss" in record]
    evaluations = [record["eval_loss"] for record in metrics if "eval_loss" in record]
    trainable = sum(tensor.numel() for tensor in trainable_state(trainer.model).values())
    summary = {
        "steps_count": trainer.state.global_step,
        "train_rows_count": len(train.lengths_tokens),
        "train_tokens_count": train.tokens,
        "train_supervised_tokens_count": train.supervised_tokens,
        "trainable_parameters_count": trainable,
        "train_loss_first": losses[0],
        "train_loss_last": losses[-1],
        "eval_loss_before": evaluations[0],
        "eval_loss_after": evaluations[-1],
        "device": setup.device,
        "precision": setup.precision,
        "attention": setup.attention,
        "packed_tokens": setup.batches.packed_tokens,
        "gradient_accumulation": setup.batches.gradient_accumulation,
        "process_count": trainer.args.world_size,
        "training_machine": _machine(setup),
        "training_versions": ", ".join(f"{name} {version}" for name, version in package_versions().items()),
        "seconds": round(seconds, 1),
        **_rates(job),
    }
    write_atomically(job.work_dir / SUMMARY_NAME, json.dumps(summary, indent=2, sort_keys=True) + "\n")


def _machine(setup: Setup) -> str:
    """Return what trained: it may be another machine than the one that keeps the artifact."""
    import torch

    if setup.device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} cores, {setup.device}"


def _rates(job: TrainingJob) -> dict[str, float]:
    """Return the last rates that were reported, and the memory peak of a GPU."""
    import torch

    rates: dict[str, float] = {}
    for line in (job.work_dir / PROGRESS_NAME).read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            rates.update({key: event[key] for key in ("tokens_per_second", "seconds_per_step") if key in event})
    if torch.cuda.is_available():
        rates["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    return rates

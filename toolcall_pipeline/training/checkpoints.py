"""Checkpoints that can be trusted: complete ones only, of the same data and configuration only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import write_atomically
from toolcall_pipeline.errors import TrainingError
from toolcall_pipeline.training.job import IDENTITY_NAME, METRICS_NAME, TrainingJob

COMPLETE_NAME = "COMPLETE"
"""Written into a checkpoint after everything else; a killed process leaves none in the one it was writing."""


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint below a folder, None where there is none."""
    found = [
        (int(match.group(1)), path)
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and (path / COMPLETE_NAME).is_file()
    ]
    return max(found)[1] if found else None


def checkpoint_step(checkpoint: Path) -> int:
    """Return the optimiser step a checkpoint was taken after."""
    return int(checkpoint.name.rpartition("-")[2])


def mark_complete(checkpoint: Path) -> None:
    """Say that everything of a checkpoint is on disk."""
    write_atomically(checkpoint / COMPLETE_NAME, f"{checkpoint_step(checkpoint)}\n")


def checkpoint_to_resume(job: TrainingJob) -> Path | None:
    """Return the checkpoint to go on from, None for a fresh start, and refuse one of another run.

    Raises:
        TrainingError: There is one, but data or configuration changed since; the message names every difference.
    """
    checkpoint = latest_checkpoint(job.checkpoints_dir)
    identity_file = job.work_dir / IDENTITY_NAME
    if checkpoint is not None and identity_file.is_file():
        stored = json.loads(identity_file.read_text(encoding="utf-8"))
        changes = differences(stored, json.loads(json.dumps(job.identity)))
        if changes:
            raise TrainingError(
                f"{checkpoint} was trained with other data or another configuration, so going on from it would mix "
                f"two runs: {'; '.join(changes)}. Put the old values back to go on, or delete {job.work_dir} to start "
                "anew."
            )
    return checkpoint


def begin_from(job: TrainingJob, checkpoint: Path | None) -> None:
    """Remember what this run is, and forget what was logged after the checkpoint it goes on from."""
    write_atomically(job.work_dir / IDENTITY_NAME, json.dumps(job.identity, indent=2, sort_keys=True) + "\n")
    _keep_metrics_until(job.work_dir / METRICS_NAME, checkpoint_step(checkpoint) if checkpoint else -1)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return every difference of two JSON values as `path: old -> new`, in path order."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted(old.keys() | new.keys())
            for change in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def _keep_metrics_until(path: Path, step: int) -> None:
    """Drop what a killed process logged after its last checkpoint: those steps are made again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a half-written last line of a killed process
        if record["step"] <= step:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept))

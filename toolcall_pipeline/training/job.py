"""What the training process is told, and what it answers with its exit code.

The stage writes a `TrainingJob` as JSON into a folder that holds everything the job needs, by paths relative to it;
`python -m toolcall_pipeline.training JOB.json` reads it, there or where that folder was copied to. Nothing else passes
between the two but files in that folder and lines of JSON on standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolcall_pipeline.errors import ConfigurationError
from toolcall_pipeline.presets import TrainingConfiguration

EXIT_DONE = 0
EXIT_REFUSED = 2
EXIT_BROKE = 3
EXIT_STOPPED = 75
"""Stopped on request with a checkpoint; the same command goes on from it (EX_TEMPFAIL of sysexits.h)."""

JOB_NAME = "job.json"
IDENTITY_NAME = "identity.json"
METRICS_NAME = "metrics.jsonl"
PROGRESS_NAME = "progress.jsonl"
SUMMARY_NAME = "summary.json"
ERROR_NAME = "error.json"
EXIT_NAME = "exit_code"
LOG_NAME = "training.log"
START_NAME = "trainable_start.json"
ADAPTER_NAME = "adapter"
CHECKPOINTS_NAME = "checkpoints"

_PATHS = ("work_dir", "base_dir", "train_file", "valid_file")


class TrainingJob(BaseModel):
    """One training run; relative paths are taken from the job file's folder.

    Attributes:
        work_dir: Where checkpoints, metrics and the adapter go; a second start with the same job resumes there.
        base_dir: Hugging Face folder of the base model.
        base_source: How the base is named in the adapter's configuration.
        train_file, valid_file: Parquet with `row_id`, `input_ids`, `labels`.
        training: How to train.
        max_row_tokens: Longest row the dataset promised.
        identity: Everything that decides the result, by name; compared before resuming.
        random_weights: Only the base's configuration is read and weights are drawn by seed: throughput measurements.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    work_dir: Path
    base_dir: Path
    base_source: str
    train_file: Path
    valid_file: Path
    training: TrainingConfiguration
    max_row_tokens: int
    identity: dict[str, Any] = Field(default_factory=dict)
    random_weights: bool = False

    @property
    def checkpoints_dir(self) -> Path:
        """Return the folder of the checkpoints."""
        return self.work_dir / CHECKPOINTS_NAME


def load_job(path: Path) -> TrainingJob:
    """Read a job, its paths made absolute.

    Raises:
        ConfigurationError: The file is not there or is no training job.
    """
    try:
        job = TrainingJob.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{path} is no training job: {error}") from error
    folder = path.absolute().parent
    return job.model_copy(update={name: folder / getattr(job, name) for name in _PATHS})

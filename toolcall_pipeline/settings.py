"""Where this installation keeps its state and which server it talks to.

What a run does (recipe, training, evaluation) is not here but in `presets.py`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from toolcall_pipeline.errors import ConfigurationError

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Read settings from the environment: `TOOLCALL_PIPELINE_` and the name in capitals, or `DATABASE_URL`."""

    model_config = SettingsConfigDict(env_prefix="TOOLCALL_PIPELINE_", env_ignore_empty=True, extra="ignore")

    home: Path = Field(
        Path(".toolcall_pipeline"),
        description="State directory: embedded PostgreSQL, artifacts, caches. By default in the current folder",
    )
    database_url: str | None = Field(
        None,
        validation_alias="DATABASE_URL",
        description="A PostgreSQL server of your own, `postgresql://user:password@host:port/database`, in place of the "
        "embedded one",
    )
    sessions_dir: Path | None = Field(
        None, description="Folder with session files (`**/*.jsonl`); without it the shipped sample sessions are read"
    )
    timezone: str = Field("UTC", description="In which the nightly schedules tick, such as `Europe/Berlin`")
    training_command: str | None = Field(
        None,
        description="What trains in place of `python -m toolcall_pipeline.training`, such as a script that copies the job's "
        "folder to a GPU machine and back; the job file is appended",
    )
    keep_models_days: int | None = Field(
        None,
        ge=1,
        description="Before each training, remove merged models and GGUF files older than this that neither production, "
        "its predecessors nor a report refers to; without it nothing is removed",
    )

    @cached_property
    def home_dir(self) -> Path:
        """Return the state directory as an absolute path (created on first use by whoever writes)."""
        return self.home.expanduser().absolute()

    @property
    def artifacts_dir(self) -> Path:
        """Return the folder below which every asset leaves its artifacts."""
        return self.home_dir / "artifacts"

    @property
    def postgres_dir(self) -> Path:
        """Return the data folder of the embedded server."""
        return self.home_dir / "postgres"

    @property
    def cache_dir(self) -> Path:
        """Return the folder for what can be made again: base models as GGUF, incremental dataset pieces, baselines."""
        return self.home_dir / "cache"


def load_settings() -> Settings:
    """Return the settings of this process, read from the environment.

    Raises:
        ConfigurationError: A variable has a value that does not fit; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        variable = name if name == "DATABASE_URL" else f"TOOLCALL_PIPELINE_{name.upper()}"
        raise ConfigurationError(f"{variable}={problem['input']!r}: {problem['msg']}.") from error

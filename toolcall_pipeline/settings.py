"""Where this installation keeps its state and which server it talks to.

What a run does (recipe, training, evaluation) is not here but in `presets.py`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Read settings from the environment (`TOOLCALL_PIPELINE_*`, `DATABASE_URL`).

    Attributes:
        home: State directory: embedded PostgreSQL, artifacts, caches. Environment `TOOLCALL_PIPELINE_HOME`; by default
            `.toolcall_pipeline` in the current directory.
        database_url: A real PostgreSQL server (`postgresql://user:password@host:port/database`). Without it the
            embedded server under `home` is used. Environment `DATABASE_URL`.
        sessions_dir: Folder with session files (`**/*.jsonl`). Without it the shipped sample sessions are used.
        timezone: In which the nightly schedules tick, such as `Europe/Berlin`. Environment `TOOLCALL_PIPELINE_TIMEZONE`.
        training_command: What trains in place of `python -m toolcall_pipeline.training`, such as a script that copies the
            job's folder to a GPU machine and back; the job file is appended. Environment
            `TOOLCALL_PIPELINE_TRAINING_COMMAND`.
    """

    model_config = SettingsConfigDict(env_prefix="TOOLCALL_PIPELINE_", extra="ignore")

    home: Path = Path(".toolcall_pipeline")
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    sessions_dir: Path | None = None
    timezone: str = "UTC"
    training_command: str | None = None

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
    """Return the settings of this process, read from the environment."""
    return Settings()

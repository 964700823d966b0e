"""Dagster's own storage on the project's PostgreSQL, and the instance that commands use.

`dagster.yaml` names `PipelinePostgresStorage`, which finds the server the way every other part of the project does
(`DATABASE_URL`, or the embedded server below `TOOLCALL_PIPELINE_HOME`). So plain `dagster dev` needs no environment
variable, and no file and no command line ever holds a password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._config.config_schema import UserConfigSchema
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import ConfigurableClassData
from dagster._utils.env import environ
from dagster_postgres import DagsterPostgresStorage

from toolcall_pipeline.artifacts import write_atomically
from toolcall_pipeline.errors import StoreError
from toolcall_pipeline.settings import REPOSITORY_ROOT, Settings, load_settings

DAGSTER_YAML = REPOSITORY_ROOT / "dagster.yaml"
_NO_CAPTURE = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}


class PipelinePostgresStorage(DagsterPostgresStorage):
    """Dagster's run, event and schedule storage on the server of this installation."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Take no configuration: everything comes from the settings."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> PipelinePostgresStorage:
        """Connect to the `dagster` database of the running server.

        Raises:
            StoreError: The server is not running.
        """
        return cls(postgres_url=dagster_url(load_settings()), inst_data=inst_data)


def dagster_url(settings: Settings) -> str:
    """Return the psycopg2 URL of Dagster's database.

    Raises:
        StoreError: The embedded server is not running.
    """
    from toolcall_pipeline.store import server

    urls = server.find(settings)
    if urls is None:
        raise StoreError(
            f"Dagster's storage is on PostgreSQL, and no server runs for {settings.home_dir}. Run `toolcall-pipeline db "
            "start` from the same folder (or with the same TOOLCALL_PIPELINE_HOME), or set DATABASE_URL."
        )
    return urls.dagster_url


def dagster_home(settings: Settings) -> Path:
    """Return `<home>/dagster`, with the repository's `dagster.yaml` in it."""
    home = settings.home_dir / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    wanted = DAGSTER_YAML.read_text(encoding="utf-8")
    target = home / "dagster.yaml"
    if not target.is_file() or target.read_text(encoding="utf-8") != wanted:
        write_atomically(target, wanted)
    return home


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables by which a process of Dagster's finds this installation."""
    variables = {"TOOLCALL_PIPELINE_HOME": str(settings.home_dir), "DAGSTER_HOME": str(dagster_home(settings))}
    if settings.database_url:
        variables["DATABASE_URL"] = settings.database_url
    if settings.sessions_dir:
        variables["TOOLCALL_PIPELINE_SESSIONS_DIR"] = str(settings.sessions_dir.expanduser().absolute())
    return variables


@contextmanager
def project_instance(settings: Settings, *, in_process: bool = False) -> Iterator[dg.DagsterInstance]:
    """Give the persistent Dagster instance of this installation; the server must be up.

    Args:
        settings: Where state and server are.
        in_process: The run is this process: its output stays on the terminal and is not captured.
    """
    variables = settings_environment(settings)
    overrides = {"compute_logs": _NO_CAPTURE} if in_process else {}
    with environ(variables):
        reference = InstanceRef.from_dir(variables["DAGSTER_HOME"], overrides=overrides)
        with dg.DagsterInstance.from_ref(reference) as instance:
            yield instance

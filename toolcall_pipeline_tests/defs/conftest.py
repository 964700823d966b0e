"""A small chain of stand-ins under the real Dagster floor."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from toolcall_pipeline.defs.partitions import add_partition
from toolcall_pipeline.settings import Settings
from toolcall_pipeline_tests.defs.floor import Floor


@pytest.fixture
def floor(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Floor]:
    """Give the stand-in chain with one partition, on an instance in memory."""
    monkeypatch.setenv("TOOLCALL_PIPELINE_HOME", str(settings.home_dir))
    monkeypatch.setenv("DATABASE_URL", settings.database_url or "")
    with dg.DagsterInstance.ephemeral() as instance:
        add_partition(instance, Floor.PARTITION)
        yield Floor(settings, instance)

"""What assets and checks are given: the store's engine, and where this installation keeps its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dagster as dg
from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.settings import Settings, load_settings

STORE_KEY = "store"


@dataclass(frozen=True)
class Store:
    """PostgreSQL and the artifact folders of this installation."""

    settings: Settings
    engine: Engine

    @property
    def artifacts(self) -> ArtifactStore:
        """Return the artifacts of this installation."""
        return ArtifactStore(self.settings.artifacts_dir)


def store_resource(open_engine: Callable[[Settings], Engine]) -> dg.ResourceDefinition:
    """Return the resource that opens the store, migrated, for one run and closes it afterwards."""

    @dg.resource(description="PostgreSQL (embedded, or DATABASE_URL) and the artifact folders.")
    def store(context: dg.InitResourceContext) -> Iterator[Store]:
        settings = load_settings()
        engine = open_engine(settings)
        try:
            yield Store(settings, engine)
        finally:
            engine.dispose()

    return store

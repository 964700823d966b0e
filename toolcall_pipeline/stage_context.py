"""What every stage function is given: where artifacts and tables are, which partition, and where progress goes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.presets import Configuration
from toolcall_pipeline.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

ProgressCallback = Callable[[int, int | None, str, str], None]
"""Called with (done, total or None, unit, message)."""


def _ignore_progress(done: int, total: int | None, unit: str, message: str) -> None:
    pass


@dataclass(frozen=True)
class StageContext:
    """The surroundings of one stage's run.

    Attributes:
        partition: The `backfill_run_id`.
        configuration: What the partition is made with.
        settings: Where this installation keeps its state.
        engine: SQLAlchemy engine (psycopg) of the store's PostgreSQL.
        log: Where lines for a person go.
        progress: Called with (done, total or None, unit, message).
        overridden_gates: Overrides inherited from above, recorded in the artifact's manifest.
    """

    partition: str
    configuration: Configuration
    settings: Settings
    engine: Engine
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("toolcall_pipeline"))
    progress: ProgressCallback = _ignore_progress
    overridden_gates: tuple[str, ...] = ()

    @property
    def artifacts(self) -> ArtifactStore:
        """Return the artifacts of this installation; what is made here carries the overrides from above."""
        return ArtifactStore(self.settings.artifacts_dir, self.overridden_gates)

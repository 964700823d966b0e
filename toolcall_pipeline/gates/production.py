"""Which model is in production, read from the history of shipping."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import Engine


@dataclass(frozen=True)
class ProductionModel:
    """The model in production.

    Attributes:
        gguf_sha256: Of the file.
        path: Where it was copied to.
        name: As people call it.
        partition: The `backfill_run_id` it came from, None for a model adopted from before this pipeline.
        adopted: Whether it was adopted: it never counts as passed.
    """

    gguf_sha256: str
    path: str
    name: str
    partition: str | None
    adopted: bool


def current_production(engine: Engine) -> ProductionModel | None:
    """Return the model in production, or None where nothing is.

    The newest row of `production_history` decides: after `ship`, `adopt` and `rollback` its own file, after `retract`
    the file before it.
    """
    with engine.connect() as connection:
        last = connection.execute(
            text("SELECT action, gguf_sha256, previous_gguf_sha256 FROM production_history ORDER BY id DESC LIMIT 1")
        ).one_or_none()
        if last is None:
            return None
        sha256 = last.previous_gguf_sha256 if last.action == "retract" else last.gguf_sha256
        if sha256 is None:
            return None
        row = connection.execute(
            text(
                "SELECT gguf_sha256, path, name, partition, action FROM production_history "
                "WHERE gguf_sha256 = :sha256 AND action IN ('ship', 'adopt') ORDER BY id DESC LIMIT 1"
            ),
            {"sha256": sha256},
        ).one_or_none()
    if row is None:
        return None
    return ProductionModel(row.gguf_sha256, row.path, row.name, row.partition, row.action == "adopt")

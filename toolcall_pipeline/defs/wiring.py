"""Where the Dagster floor meets the rooms below: the stage functions, the gates and the guard.

Definitions are built from a `Wiring`, so that tests can put small stages and gates of their own under the same assets,
checks and jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from toolcall_pipeline.gates.verdict import Gate

AssetProgress = Callable[[str, int, int | None, str, str], None]
"""Called with (asset, done, total or None, unit, message)."""


def _silent(asset: str, done: int, total: int | None, unit: str, message: str) -> None:
    pass


@dataclass(frozen=True)
class Wiring:
    """The functions that definitions call.

    Attributes:
        gate_questions: Asset to gate name to the question it asks; known without importing the gates.
        materialise: `(asset, context, **options) -> Artifact`.
        find_gate: `(asset, gate name) -> Gate`.
        open_engine: Opens the store, migrated.
        backup: `(settings) -> counts` of a database backup.
        progress: Where a terminal hears of progress, besides Dagster's log.
    """

    gate_questions: Mapping[str, Mapping[str, str]]
    materialise: Callable[..., Artifact]
    find_gate: Callable[[str, str], Gate]
    open_engine: Callable[[Settings], Engine]
    backup: Callable[[Settings], Mapping[str, Any]]
    progress: AssetProgress = field(default=_silent)


def production_wiring() -> Wiring:
    """Return the wiring of the real stages and gates."""
    from toolcall_pipeline import chain
    from toolcall_pipeline.gates.profiles import all_rules

    questions: dict[str, dict[str, str]] = {asset: {} for asset in chain.ASSETS}
    for rule in all_rules("ship"):
        questions[rule.asset][rule.gate] = rule.question

    return Wiring(
        gate_questions=questions,
        materialise=chain.materialise,
        find_gate=_find_gate,
        open_engine=_open_engine,
        backup=_backup,
    )


def _find_gate(asset: str, name: str) -> Gate:
    from toolcall_pipeline.gates import registry

    return registry.gate(asset, name)


def _open_engine(settings: Settings) -> Engine:
    from toolcall_pipeline.store.engine import open_store

    return open_store(settings)


def _backup(settings: Settings) -> Mapping[str, Any]:
    from toolcall_pipeline.store import backups, server

    return backups.backup(settings, server.start(settings).store_url).as_dict()

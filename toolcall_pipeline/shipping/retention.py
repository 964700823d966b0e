"""Pruning of old models: a training of a 3B base leaves about 15 GB, most of it in the merged model and the GGUF files.

Only `merged_model` and `gguf_q6k` are pruned; they can be made again from the adapter, which stays. Never pruned: what was
ever in production, what any report refers to, and what is newer than the retention setting.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import MANIFEST_NAME, Artifact, ArtifactStore, load_artifact

PRUNED_ASSETS = ("merged_model", "gguf_q6k")
_RESULTS_NAME = "results.json"


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        directories: Folders that are gone.
        freed_bytes: Size of their files.
    """

    directories: tuple[Path, ...]
    freed_bytes: int


def prune_models(engine: Engine, store: ArtifactStore, *, keep_days: int, now: datetime | None = None) -> Pruned:
    """Remove models older than `keep_days` that neither production nor a report refers to.

    Args:
        engine: Of the store.
        store: All artifacts.
        keep_days: Younger ones stay.
        now: When it is; the clock's time by default.

    Raises:
        ArtifactError: A manifest cannot be read: what it protects is unknown, so nothing is removed.
    """
    oldest = (now or datetime.now(UTC)) - timedelta(days=keep_days)
    shipped = _shipped_files(engine)
    reported = _reported_artifacts(store)
    doomed = [
        artifact
        for asset in PRUNED_ASSETS
        for artifact in _finished(store, asset)
        if artifact.manifest.created_at < oldest
        and artifact.sha256 not in reported
        and not shipped.intersection(record.sha256 for record in artifact.manifest.files.values())
    ]
    for artifact in doomed:
        _remove(store, artifact)
    freed = sum(record.bytes for artifact in doomed for record in artifact.manifest.files.values())
    return Pruned(tuple(artifact.directory for artifact in doomed), freed)


def _shipped_files(engine: Engine) -> set[str]:
    """Return the SHA-256 of every file that ever was in production: the one that is, and all before it."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT gguf_sha256, previous_gguf_sha256 FROM production_history"))
        return {sha256 for row in rows for sha256 in row if sha256 is not None}


def _reported_artifacts(store: ArtifactStore) -> set[str]:
    """Return the hashes of the artifacts that reports name as what they are about."""
    reported: set[str] = set()
    for report in _finished(store, "eval_reports"):
        reported.update(report.manifest.parents.values())
        if _RESULTS_NAME in report.manifest.files:
            results = json.loads(report.path(_RESULTS_NAME).read_text(encoding="utf-8"))
            reported.update(results["provenance"]["artifacts"].values())
    return reported


def _finished(store: ArtifactStore, asset: str) -> Iterator[Artifact]:
    for manifest in sorted((store.root / asset).glob(f"*/*/{MANIFEST_NAME}")):
        yield load_artifact(manifest.parent)


def _remove(store: ArtifactStore, artifact: Artifact) -> None:
    """Take the pointer and the manifest first: a removal that is cut short leaves nothing that counts."""
    store.forget(artifact)
    (artifact.directory / MANIFEST_NAME).unlink()
    shutil.rmtree(artifact.directory)

"""Old models go; what production or a report refers to stays, whatever its age."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.errors import ArtifactError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.shipping.retention import PRUNED_ASSETS, prune_models

PARTITION = "20261123T020000Z-manual"
LATER = datetime.now(UTC) + timedelta(days=31)


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return ArtifactStore(settings.artifacts_dir)


def make(store: ArtifactStore, asset: str, content: str = "weights", partition: str = PARTITION) -> Artifact:
    with store.build(asset, partition, recipe_of_artifact={"content": content}) as build:
        (build.directory / "model").mkdir()
        (build.directory / "model" / "file.bin").write_text(content)
    return store.require(asset, partition)


def report_on(store: ArtifactStore, *artifacts: Artifact) -> None:
    named = {artifact.manifest.asset: artifact.sha256 for artifact in artifacts}
    with store.build("eval_reports", PARTITION, recipe_of_artifact=named) as build:
        (build.directory / "results.json").write_text(json.dumps({"provenance": {"artifacts": named}}))


def put_in_production(engine: Engine, artifact: Artifact, previous: Artifact | None = None) -> None:
    sha256, before = (a and next(iter(a.manifest.files.values())).sha256 for a in (artifact, previous))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO production_history (gguf_sha256, action, partition, path, name, previous_gguf_sha256) "
                "VALUES (:sha256, 'ship', :partition, '/models/a.gguf', 'a', :before)"
            ),
            {"sha256": sha256, "partition": PARTITION, "before": before},
        )


@pytest.mark.parametrize("asset", PRUNED_ASSETS)
def test_an_old_model_that_nothing_refers_to_goes_and_leaves_no_pointer(
    engine: Engine, store: ArtifactStore, asset: str
) -> None:
    artifact = make(store, asset)
    pruned = prune_models(engine, store, keep_days=30, now=LATER)
    assert (pruned.directories, pruned.freed_bytes) == ((artifact.directory,), len("weights"))
    assert not artifact.directory.exists()
    assert store.current(asset, PARTITION) is None
    make(store, asset)


def test_a_younger_one_stays(engine: Engine, store: ArtifactStore) -> None:
    artifact = make(store, "merged_model")
    assert prune_models(engine, store, keep_days=32, now=LATER).directories == ()
    artifact.verify()


@pytest.mark.parametrize("asset", ["jsonl_sessions", "v2_chat_dataset", "baseline_reports", "lora_adapter"])
def test_what_is_not_a_big_model_is_never_pruned(engine: Engine, store: ArtifactStore, asset: str) -> None:
    make(store, asset)
    assert prune_models(engine, store, keep_days=30, now=LATER).directories == ()


def test_what_a_report_refers_to_stays_and_what_was_superseded_goes(engine: Engine, store: ArtifactStore) -> None:
    superseded = make(store, "gguf_q6k", "first")
    merged, gguf = make(store, "merged_model"), make(store, "gguf_q6k", "second")
    report_on(store, merged, gguf)
    assert prune_models(engine, store, keep_days=30, now=LATER).directories == (superseded.directory,)
    assert store.require("gguf_q6k", PARTITION).sha256 == gguf.sha256


def test_production_and_what_was_before_it_stay(engine: Engine, store: ArtifactStore) -> None:
    before, now = make(store, "gguf_q6k", "before", "20261122T020000Z-manual"), make(store, "gguf_q6k", "now")
    put_in_production(engine, now, before)
    assert prune_models(engine, store, keep_days=30, now=LATER).directories == ()


def test_a_report_that_cannot_be_read_keeps_everything(engine: Engine, store: ArtifactStore) -> None:
    artifact = make(store, "merged_model")
    report_on(store, artifact)
    (store.require("eval_reports", PARTITION).directory / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError):
        prune_models(engine, store, keep_days=30, now=LATER)
    artifact.verify()

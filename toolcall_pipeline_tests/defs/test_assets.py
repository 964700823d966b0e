"""Assets as the UI shows them: keys refused, metadata, groups, owners, notes on what is not due."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from toolcall_pipeline import chain
from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.defs.checks import safe_error
from toolcall_pipeline.defs.describing import GROUPS
from toolcall_pipeline.defs.metadata import artifact_metadata, plain_metadata
from toolcall_pipeline.defs.not_due import NOT_DUE, NOT_DUE_TAG
from toolcall_pipeline.defs.partitions import add_partition
from toolcall_pipeline.defs.stage import progress_line
from toolcall_pipeline.errors import DatasetError
from toolcall_pipeline_tests.defs.floor import Floor, failure_of, made

ASSETS = [*chain.ASSETS, "database_backup"]


@pytest.mark.parametrize("key", ["tonight", "2026-11-23", "20261323T020000Z", "20261123T020000Z-Nightly", "a,b"])
def test_a_malformed_partition_key_is_refused_with_the_accepted_form(floor: Floor, key: str) -> None:
    if "," not in key:
        add_partition(floor.instance, key)
        result = floor.run_assets(["jsonl_sessions"], checks_of=[], partition=key)
        assert made(result) == []
        assert "20261123T020000Z-nightly" in failure_of(result, "jsonl_sessions")
    else:
        from toolcall_pipeline.defs.sessions.assets import refuse_malformed

        with pytest.raises(dg.Failure, match="Expected 20261123T020000Z-nightly"):
            refuse_malformed(key)


def test_the_bare_key_of_the_source_design_is_accepted(floor: Floor) -> None:
    add_partition(floor.instance, "20260514T043555Z")
    result = floor.run_assets(["jsonl_sessions"], checks_of=[], partition="20260514T043555Z")
    assert made(result) == ["jsonl_sessions"]


def test_every_asset_has_group_owner_kind_and_says_what_protects_it_and_how_to_run_it_again(floor: Floor) -> None:
    graph = floor.definitions.resolve_asset_graph()
    for asset in ASSETS:
        node = graph.get(dg.AssetKey(asset))
        assert node.group_name in GROUPS
        assert all(owner.startswith("team:") for owner in node.owners)
        assert node.kinds
        assert "**Run it again.**" in (node.description or "")
        if asset in chain.ASSETS:
            assert "**What protects it.**" in (node.description or "")
    assert {graph.get(dg.AssetKey(asset)).group_name for asset in ASSETS} == set(GROUPS)


def test_groups_flow_from_left_to_right(floor: Floor) -> None:
    graph = floor.definitions.resolve_asset_graph()
    place = {asset: GROUPS.index(graph.get(dg.AssetKey(asset)).group_name or "") for asset in chain.ASSETS}
    for asset, upstream in chain.UPSTREAM.items():
        assert all(place[name] <= place[asset] for name in upstream)


def test_there_is_a_job_for_the_chain_for_its_data_half_and_to_resume_at_every_later_asset(floor: Floor) -> None:
    names = {job.name for job in floor.definitions.get_repository_def().get_all_jobs() if not job.name.startswith("__")}
    resume = {f"resume_from_{asset}" for asset in chain.ASSETS[1:]}
    assert names == {"full_chain", "data_half", "backup"} | resume


@pytest.mark.parametrize("asset", chain.ASSETS[1:])
def test_a_resume_job_judges_what_it_starts_from_again(floor: Floor, asset: str) -> None:
    layer = floor.definitions.resolve_job_def(f"resume_from_{asset}").asset_layer
    judged = {key.asset_key.to_user_string() for key in layer.asset_graph.asset_check_keys}
    assert set(chain.UPSTREAM[asset]) <= judged
    executed = {key.to_user_string() for key in layer.executable_asset_keys}
    assert executed == set(chain.ASSETS[chain.ASSETS.index(asset) :])


def test_a_night_that_stops_at_the_dataset_says_so_on_every_later_asset(floor: Floor) -> None:
    job = floor.definitions.resolve_job_def("data_half")
    job.execute_in_process(
        instance=floor.instance,
        partition_key=Floor.PARTITION,
        tags={NOT_DUE_TAG: NOT_DUE},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    for asset in chain.ASSETS[3:]:
        (record,) = floor.instance.fetch_observations(dg.AssetKey(asset), limit=5).records
        assert record.partition_key == Floor.PARTITION
        observation = record.asset_observation
        assert observation is not None
        assert observation.metadata["state"].value == "not_due"
        assert "resume_from_baseline_reports" in observation.metadata["why"].value


def test_the_backup_is_an_asset_of_its_own(floor: Floor) -> None:
    result = floor.definitions.resolve_job_def("backup").execute_in_process(instance=floor.instance)
    assert made(result) == ["database_backup"]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    store = ArtifactStore(tmp_path, overridden_gates=("x:y",))
    with store.build("v2_chat_dataset", Floor.PARTITION, recipe_of_artifact={"a": 1}) as build:
        (build.directory / "loss_curve.png").write_bytes(b"\x89PNG")
        (build.directory / "report.html").write_text("<p>", encoding="utf-8")
        (build.directory / "report.md").write_text("# HOLD", encoding="utf-8")
        build.metadata.update(
            rows_count=3, share_ratio=0.5, drops={"cut": 2}, tools=[{"tool": "Bash", "calls_count": 4}]
        )
    return store.require("v2_chat_dataset", Floor.PARTITION)


def test_a_materialisation_carries_counts_tables_pictures_and_the_report(artifact: Artifact) -> None:
    shown = artifact_metadata(artifact)
    assert (shown["rows_count"], shown["share_ratio"]) == (3, 0.5)
    assert isinstance(shown["drops"], dg.TableMetadataValue)
    assert isinstance(shown["tools"], dg.TableMetadataValue)
    assert shown["loss_curve"].value.startswith("![loss_curve](data:image/png;base64,")
    assert shown["report_link"].value == (artifact.directory / "report.html").as_uri()
    assert shown["report"].value == "# HOLD"
    assert "Never shippable" in shown["overridden_gates"].value
    assert shown["artifact_sha256"] == artifact.sha256
    dg.MaterializeResult(metadata=shown)


def test_metadata_of_any_shape_becomes_something_dagster_takes() -> None:
    values = {
        "none": None,
        "empty": [],
        "nested": {"a": {"b": 1}},
        "mixed": [1, "x"],
        "flag": True,
        "words": "x" * 9000,
    }
    shown = plain_metadata(values)
    assert "none" not in shown
    assert shown["flag"] is True
    assert len(shown["words"]) == 4000
    dg.MaterializeResult(metadata=shown)


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (40, 100, 4.0, "reading: 40/100 rows, 10.0 rows/s, 6 s left"),
        (100, 100, 4.0, "reading: 100/100 rows, 25.0 rows/s"),
        (1500, None, 1.0, "reading: 1,500 rows, 1,500.0 rows/s"),
        (0, 10, 0.0, "reading: 0/10 rows"),
    ],
)
def test_progress_is_one_line_with_rate_and_time_left(done: int, total: int | None, seconds: float, line: str) -> None:
    assert progress_line(done, total, "rows", "reading", seconds) == line


def test_an_error_of_ours_is_shown_whole_and_any_other_only_by_kind_and_place() -> None:
    assert safe_error(DatasetError("row 3 is cut")) == "DatasetError: row 3 is cut"
    with pytest.raises(ValueError, match="sk-secret") as raised:
        int("sk-secret")
    assert safe_error(raised.value).startswith("ValueError at test_assets.py:")
    assert "secret" not in safe_error(raised.value)


def test_definitions_load_without_heavy_libraries() -> None:
    import subprocess
    import sys

    code = (
        "import sys, toolcall_pipeline.definitions; "
        "print([name for name in ('torch', 'transformers', 'llama_cpp', 'datasets', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

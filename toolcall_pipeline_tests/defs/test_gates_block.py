"""Gates block, in every way a run can be started: one test per row of the table in the specification."""

from __future__ import annotations

import json
import shutil
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from toolcall_pipeline import chain, definitions
from toolcall_pipeline.defs.checks import PREVIEW_WARNING
from toolcall_pipeline.defs.partitions import BACKFILL_RUNS, add_partition
from toolcall_pipeline_tests.defs.floor import Floor, evaluations, failure_of, made, override
from toolcall_pipeline_tests.defs.standin import standin_wiring

DATA = ["jsonl_sessions", "linked_tool_calls", "v2_chat_dataset"]
HEAD = DATA[:2]
"""The shortest chain with a gate in its middle: `linkage` on `linked_tool_calls`, then `v2_chat_dataset`."""


def test_a_chain_whose_gates_pass_runs_to_its_end(floor: Floor) -> None:
    result = floor.run("full_chain")
    assert result.success
    assert made(result) == list(chain.ASSETS)


@pytest.mark.parametrize(
    ("asset", "verdict"),
    [("jsonl_sessions", "fail"), ("linked_tool_calls", "inconclusive"), ("v2_chat_dataset", "raise")],
)
def test_in_the_same_run_nothing_behind_a_held_gate_is_made(floor: Floor, asset: str, verdict: str) -> None:
    floor.set_gate(asset, verdict)
    result = floor.run("full_chain")
    assert not result.success
    assert made(result) == list(chain.ASSETS[: chain.ASSETS.index(asset) + 1])


def test_in_the_same_run_a_warning_lets_through(floor: Floor) -> None:
    floor.set_gate("linked_tool_calls", "fail")
    result = floor.run_assets(DATA, **override("linked_tool_calls", "looked at by hand"))
    assert result.success
    assert made(result) == DATA


def test_a_check_that_yields_nothing_holds(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    real = definitions.gate_checks

    def silent(wiring: Any, asset: str) -> dg.AssetChecksDefinition:
        if asset != "linked_tool_calls":
            return real(wiring, asset)
        specs = list(real(wiring, asset).check_specs)

        @dg.multi_asset_check(name="linked_tool_calls_gates", specs=specs, can_subset=True)
        def says_nothing():
            yield from ()

        return says_nothing

    monkeypatch.setattr(definitions, "gate_checks", silent)
    floor.definitions = definitions.build_defs(standin_wiring())
    result = floor.run("data_half")
    assert made(result) == HEAD
    assert "linkage on linked_tool_calls: missing" in failure_of(result, "v2_chat_dataset")


def test_a_deselected_check_holds(floor: Floor) -> None:
    result = floor.run_assets(DATA, checks_of=["jsonl_sessions"])
    assert made(result) == HEAD
    assert "never judged" in failure_of(result, "v2_chat_dataset")


def test_one_deselected_gate_of_many_holds(floor: Floor) -> None:
    result = floor.run_assets(DATA, checks_of=HEAD, without_gates=["linkage"])
    assert made(result) == HEAD
    assert "linkage on linked_tool_calls: missing" in failure_of(result, "v2_chat_dataset")


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "raise"])
def test_a_later_run_of_the_downstream_alone_is_held(floor: Floor, verdict: str) -> None:
    floor.set_gate("linked_tool_calls", verdict)
    floor.run_assets(HEAD)
    result = floor.run_assets(["v2_chat_dataset"])
    assert made(result) == []
    assert "linkage on linked_tool_calls" in failure_of(result, "v2_chat_dataset")


def test_a_later_run_of_the_downstream_alone_goes_on_where_all_passed(floor: Floor) -> None:
    floor.run_assets(HEAD)
    assert made(floor.run_assets(["v2_chat_dataset"])) == ["v2_chat_dataset"]


def test_a_later_run_with_the_upstreams_checks_is_held_and_goes_on_once_mended(floor: Floor) -> None:
    floor.set_gate("v2_chat_dataset", "fail")
    floor.run_assets(DATA)
    assert made(floor.run("resume_from_baseline_reports")) == []
    floor.mend()
    result = floor.run("resume_from_baseline_reports")
    assert result.success
    assert made(result) == list(chain.ASSETS[3:])


def test_a_gate_that_raises_later_takes_its_old_pass_with_it(floor: Floor) -> None:
    floor.run_assets(HEAD)
    floor.set_gate("linked_tool_calls", "raise")
    floor.run_assets(["linked_tool_calls"])
    assert made(floor.run_assets(["v2_chat_dataset"])) == []


def test_the_adapter_is_held_by_either_of_its_two_parents(floor: Floor) -> None:
    floor.run_assets([*DATA, "baseline_reports"])
    floor.set_gate("v2_chat_dataset", "fail")
    floor.run_assets(["v2_chat_dataset"])
    assert made(floor.run_assets(["lora_adapter"])) == []


def test_other_bytes_than_the_judged_ones_are_held(floor: Floor) -> None:
    floor.run_assets(HEAD)
    artifact = floor.artifacts.require("linked_tool_calls", Floor.PARTITION)
    (artifact.directory / "content.json").write_text("{}", encoding="utf-8")
    result = floor.run_assets(["v2_chat_dataset"])
    assert made(result) == []
    assert "changed since it was made" in failure_of(result, "v2_chat_dataset")


def test_an_artifact_made_again_without_its_checks_is_held(floor: Floor) -> None:
    floor.run_assets(DATA)
    changed = {"resources": {"configuration": {"config": {"dataset": {"seed": 43}}}}}
    floor.run_assets(["v2_chat_dataset"], checks_of=[], **changed)
    result = floor.run_assets(["baseline_reports"])
    assert made(result) == []
    assert "other bytes" in failure_of(result, "baseline_reports")


def test_another_rule_than_the_judged_one_is_held(floor: Floor) -> None:
    floor.run_assets(HEAD)
    stricter = {"resources": {"configuration": {"config": {"evaluation": {"profile": "ship"}}}}}
    result = floor.run_assets(["v2_chat_dataset"], **stricter)
    assert made(result) == []
    assert "another rule" in failure_of(result, "v2_chat_dataset")


def test_a_gate_that_fails_later_holds_far_behind_it_as_well(floor: Floor) -> None:
    floor.run_assets([*DATA, "baseline_reports", "lora_adapter"])
    floor.set_gate("linked_tool_calls", "fail")
    floor.run_assets([], checks_of=["linked_tool_calls"])
    result = floor.run_assets(["merged_model"])
    assert made(result) == []
    assert "linkage on linked_tool_calls: fail" in failure_of(result, "merged_model")


def test_what_was_made_from_other_bytes_than_those_judged_now_is_held(floor: Floor) -> None:
    floor.run_assets([*DATA, "baseline_reports", "lora_adapter"])
    changed = {"resources": {"configuration": {"config": {"dataset": {"seed": 43}}}}}
    assert made(floor.run_assets(["v2_chat_dataset"], **changed)) == ["v2_chat_dataset"]
    result = floor.run_assets(["merged_model"])
    assert made(result) == []
    assert "made from other bytes of v2_chat_dataset" in failure_of(result, "merged_model")


@pytest.mark.parametrize("edit", ["record", "pointer", "folder"])
def test_an_artifact_that_was_tampered_with_is_held(floor: Floor, edit: str) -> None:
    other = "20261124T020000Z-nightly"
    add_partition(floor.instance, other)
    floor.run_assets(HEAD, partition=other)
    floor.set_gate("linked_tool_calls", "fail")
    floor.run_assets(HEAD)
    floor.mend()
    artifact = floor.artifacts.require("linked_tool_calls", Floor.PARTITION)
    passed = floor.artifacts.require("linked_tool_calls", other)
    if edit == "record":
        manifest = json.loads((artifact.directory / "manifest.json").read_text(encoding="utf-8"))
        manifest["artifact_sha256"] = passed.sha256
        (artifact.directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    elif edit == "pointer":
        pointer = artifact.directory.parent / "current"
        pointer.write_text(f"../{other}/{passed.directory.name}", encoding="utf-8")
    else:
        shutil.rmtree(artifact.directory)
        artifact.directory.symlink_to(passed.directory)
    result = floor.run_assets(["v2_chat_dataset"])
    assert made(result) == []
    assert "not what its gates judged" in failure_of(result, "v2_chat_dataset")


def test_rows_changed_in_the_database_since_they_were_judged_are_held(floor: Floor) -> None:
    floor.run_assets(HEAD)
    with floor.engine() as engine, engine.begin() as connection:
        connection.execute(
            text("INSERT INTO mem_session_families (session_id, family_id, backfill_run_id) VALUES ('s', 'f', :run)"),
            {"run": Floor.PARTITION},
        )
    result = floor.run_assets(["v2_chat_dataset"])
    assert made(result) == []
    assert "changed in PostgreSQL" in failure_of(result, "v2_chat_dataset")


def test_a_wiped_verdict_is_held(floor: Floor) -> None:
    floor.run_assets(HEAD)
    with floor.engine() as engine, engine.begin() as connection:
        connection.execute(text("DELETE FROM gate_verdicts WHERE gate = 'linkage'"))
    result = floor.run_assets(["v2_chat_dataset"])
    assert made(result) == []
    assert "linkage on linked_tool_calls: missing" in failure_of(result, "v2_chat_dataset")


def test_a_wiped_check_history_changes_nothing(floor: Floor) -> None:
    floor.set_gate("linked_tool_calls", "fail")
    floor.run_assets(HEAD)
    floor.instance.wipe_assets([dg.AssetKey("linked_tool_calls")])
    assert made(floor.run_assets(["v2_chat_dataset"])) == []


def test_a_resume_under_another_profile_judges_everything_above_under_it_first(floor: Floor) -> None:
    floor.run("data_half")
    shipping = {"resources": {"configuration": {"config": {"evaluation": {"profile": "ship"}}}}}
    result = floor.run("resume_from_baseline_reports", **shipping)
    assert made(result) == list(chain.ASSETS[3:])


def test_a_reported_materialisation_does_not_open_the_way(floor: Floor) -> None:
    floor.run_assets(HEAD[:1])
    floor.instance.report_runless_asset_event(
        dg.AssetMaterialization("linked_tool_calls", partition=Floor.PARTITION, metadata={"reported": True})
    )
    result = floor.run_assets(["v2_chat_dataset"])
    assert made(result) == []
    assert "never made" in failure_of(result, "v2_chat_dataset")


def test_a_reported_check_result_does_not_open_the_way(floor: Floor) -> None:
    floor.set_gate("linked_tool_calls", "fail")
    floor.run_assets(HEAD)
    floor.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("linked_tool_calls"), check_name="linkage", passed=True, partition=Floor.PARTITION
        )
    )
    assert made(floor.run_assets(["v2_chat_dataset"])) == []


def test_one_held_partition_does_not_stop_the_other(floor: Floor) -> None:
    other = "20261124T020000Z-nightly"
    add_partition(floor.instance, other)
    floor.set_gate("linked_tool_calls", "fail")
    assert made(floor.run("data_half")) == HEAD
    floor.mend()
    assert made(floor.run("data_half", partition=other)) == DATA
    assert made(floor.run_assets(["v2_chat_dataset"])) == []


@pytest.mark.parametrize(
    ("held_asset", "verdict", "is_left_out"),
    [
        ("jsonl_sessions", "fail", True),
        ("linked_tool_calls", "inconclusive", True),
        ("v2_chat_dataset", "raise", False),  # its data passed: only its own dataset is held
    ],
)
def test_a_held_night_does_not_reach_the_next_nights_dataset(
    floor: Floor, held_asset: str, verdict: str, is_left_out: bool
) -> None:
    next_night = "20261124T020000Z-nightly"
    add_partition(floor.instance, next_night)
    floor.set_gate(held_asset, verdict)
    floor.run("data_half")
    floor.mend()
    assert floor.run("data_half", partition=next_night).success
    dataset = floor.artifacts.require("v2_chat_dataset", next_night)
    assert (Floor.PARTITION in dataset.manifest.recipe_of_artifact["left_out"]) is is_left_out
    assert (Floor.PARTITION in dataset.manifest.recipe_of_artifact["runs"]) is not is_left_out


def test_a_gate_shows_what_was_measured_and_what_to_do(floor: Floor) -> None:
    floor.set_gate("linked_tool_calls", "fail")
    evaluation = evaluations(floor.run_assets(HEAD), "linked_tool_calls")["linkage"]
    shown = {name: value.value for name, value in evaluation.metadata.items()}
    assert shown["verdict"] == "fail"
    assert (shown["measured"], shown["comparison"], shown["threshold"], shown["n"]) == (3.0, "==", "0", 7)
    assert shown["how_to_fix"] == "Set the gate to pass in control.json."
    assert evaluation.severity is dg.AssetCheckSeverity.ERROR
    assert evaluation.partition == Floor.PARTITION


def test_a_gate_that_raises_shows_kind_and_place_and_the_others_are_judged(floor: Floor) -> None:
    floor.set_gate("linked_tool_calls", "raise")
    judged = evaluations(floor.run_assets(HEAD), "linked_tool_calls")
    assert judged["linkage"].description.startswith("ZeroDivisionError at standin.py:")
    assert "must not be shown" not in repr(judged["linkage"])
    assert set(judged) == set(standin_wiring().gate_questions["linked_tool_calls"])
    assert [name for name, evaluation in judged.items() if not evaluation.passed] == ["linkage"]


def test_an_override_is_amber_recorded_and_inherited(floor: Floor) -> None:
    floor.set_gate("v2_chat_dataset", "fail")
    result = floor.run("full_chain", **override("v2_chat_dataset", "looked at by hand"))
    evaluation = evaluations(result, "v2_chat_dataset")["mask_proof"]
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert evaluation.metadata["verdict"].value == "overridden"
    assert evaluation.metadata["overridden_reason"].value == "looked at by hand"
    for asset in chain.ASSETS[3:]:
        manifest = floor.artifacts.require(asset, Floor.PARTITION).manifest
        assert manifest.overridden_gates == ["v2_chat_dataset:mask_proof"]


@pytest.mark.parametrize(("gate", "reason"), [("linkage", "  "), ("no_such_gate", "because")])
def test_an_override_needs_a_gate_of_the_asset_and_a_reason(floor: Floor, gate: str, reason: str) -> None:
    config = {"ops": {"linked_tool_calls_gates": {"config": {"overrides": {gate: reason}}}}}
    result = floor.run_assets(DATA, **config)
    assert not result.success
    assert made(result) == HEAD


def test_every_asset_and_every_check_shares_the_one_partitions_definition(floor: Floor) -> None:
    graph = floor.definitions.resolve_asset_graph()
    for asset in chain.ASSETS:
        assert graph.get(dg.AssetKey(asset)).partitions_def is BACKFILL_RUNS
    keys = graph.asset_check_keys
    assert len(keys) == sum(len(gates) for gates in standin_wiring().gate_questions.values())
    for key in keys:
        spec = graph.get_check_spec(key)
        assert spec.blocking
        assert spec.partitions_def is BACKFILL_RUNS


def test_only_the_preview_warning_of_partitioned_checks_is_allowed() -> None:
    with pytest.warns(Warning, match=PREVIEW_WARNING):
        dg.AssetCheckSpec(name="x", asset="y", partitions_def=BACKFILL_RUNS)

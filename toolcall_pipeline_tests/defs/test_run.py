"""The chain from the command line: what it makes, skips, holds and breaks on, on the persistent Dagster storage."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from toolcall_pipeline import chain
from toolcall_pipeline.defs.instance import project_instance
from toolcall_pipeline.defs.run import RunOutcome, run_chain
from toolcall_pipeline.defs.state import PROCESS_TAG, asset_states, mark_abandoned_runs
from toolcall_pipeline.errors import DatasetError, UsageError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import server
from toolcall_pipeline_tests.defs.standin import materialise, set_gates, standin_wiring

PARTITION = "20261123T020000Z-manual"
DATA = list(chain.DATA_ASSETS)


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url or "")
    monkeypatch.setenv("TOOLCALL_PIPELINE_HOME", str(settings.home_dir))
    server.start(settings)


def run(settings: Settings, **options: Any) -> RunOutcome:
    options = {"partition": PARTITION, "until": "v2_chat_dataset", "wiring": standin_wiring(), **options}
    return run_chain(settings, **options)


def test_a_second_run_starts_no_dagster_run_and_a_changed_field_makes_what_changed(settings: Settings) -> None:
    heard: list[tuple[str, str]] = []
    first = run(settings, preset="smoke", progress=lambda asset, state, *rest: heard.append((asset, state)))
    assert (first.made, first.skipped, first.exit_code) == (DATA, [], 0)
    assert [asset for asset, state in heard if state == "started"] == DATA
    assert [asset for asset, state in heard if state == "done"] == DATA

    second = run(settings)
    assert (second.dagster_run_id, second.made, second.skipped, second.exit_code) == (None, [], DATA, 0)
    assert asset_states(settings, PARTITION) == dict.fromkeys(DATA, "done")

    with project_instance(settings, in_process=True) as instance:
        stored = instance.get_run_by_id(first.dagster_run_id or "")
        assert stored is not None
        assert stored.status is dg.DagsterRunStatus.SUCCESS
        assert stored.tags["dagster/partition"] == PARTITION

    third = run(settings, overrides={"dataset": {"seed": 43}})
    assert third.made == DATA


def test_a_held_gate_is_exit_code_one_and_goes_on_once_mended(settings: Settings) -> None:
    set_gates(settings, **{"linked_tool_calls:linkage": "fail"})
    held = run(settings)
    assert (held.made, held.exit_code) == (DATA[:2], 1)
    assert held.held == {"v2_chat_dataset": "held by linkage on linked_tool_calls"}
    assert list(held.gates_held) == ["linkage on linked_tool_calls"]
    assert asset_states(settings, PARTITION) == dict.fromkeys(DATA[:2], "done")

    set_gates(settings)
    mended = run(settings)
    assert (mended.skipped, mended.made, mended.exit_code) == (DATA[:1], DATA[1:], 0)


def test_an_override_lets_through_and_is_still_no_pass(settings: Settings) -> None:
    set_gates(settings, **{"linked_tool_calls:linkage": "fail"})
    outcome = run(settings, gate_overrides={"linkage": "looked at by hand"})
    assert (outcome.made, outcome.held, outcome.exit_code) == (DATA, {}, 1)


def test_what_breaks_is_exit_code_three_with_our_own_words_and_none_of_anyone_elses(settings: Settings) -> None:
    def breaks(asset: str, *arguments: Any, **options: Any) -> Any:
        if asset == "v2_chat_dataset":
            raise DatasetError("row 3 is cut")
        return materialise(asset, *arguments, **options)

    outcome = run(settings, wiring=replace(standin_wiring(), materialise=breaks))
    assert (outcome.failed, outcome.exit_code) == ({"v2_chat_dataset": "DatasetError: row 3 is cut"}, 3)
    assert asset_states(settings, PARTITION)["v2_chat_dataset"] == "failed"


@pytest.mark.parametrize(
    "wrong",
    [{"partition": "tonight"}, {"until": "no_such_asset"}, {"preset": "huge"}, {"overrides": {"dataset": {"x": 1}}},
     {"gate_overrides": {"no_such_gate": "why"}}],
)  # fmt: skip
def test_wrong_usage_is_refused_before_anything_runs(settings: Settings, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        run(settings, **wrong)


def test_a_run_whose_command_was_killed_does_not_look_alive_for_ever(settings: Settings) -> None:
    with project_instance(settings, in_process=True) as instance:
        gone = instance.add_run(
            dg.DagsterRun(job_name="full_chain", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: "999999999"})
        )
        alive = instance.add_run(
            dg.DagsterRun(
                job_name="full_chain", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: str(os.getpid())}
            )
        )
        assert mark_abandoned_runs(instance) == [gone.run_id]
        assert instance.get_run_by_id(gone.run_id).status is dg.DagsterRunStatus.FAILURE
        assert instance.get_run_by_id(alive.run_id).status is dg.DagsterRunStatus.STARTED

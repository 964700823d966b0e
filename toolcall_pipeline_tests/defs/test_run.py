"""The chain from the command line: what it makes, skips, holds and breaks on, on the persistent Dagster storage."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from dagster_postgres.utils import DagsterPostgresException

from toolcall_pipeline import chain
from toolcall_pipeline.defs import run as defs_run
from toolcall_pipeline.defs.instance import project_instance
from toolcall_pipeline.defs.run import RunOutcome, run_chain
from toolcall_pipeline.defs.state import PROCESS_TAG, asset_states, mark_abandoned_runs, process_identity
from toolcall_pipeline.errors import DatasetError, RunInProgressError, StoreError, UsageError
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
    assert (first.made, first.skipped) == (DATA, [])
    assert [asset for asset, state in heard if state == "started"] == DATA
    assert [asset for asset, state in heard if state == "done"] == DATA

    second = run(settings)
    assert (second.dagster_run_id, second.made, second.skipped) == (None, [], DATA)
    assert asset_states(settings, PARTITION) == dict.fromkeys(DATA, "done")

    with project_instance(settings, in_process=True) as instance:
        stored = instance.get_run_by_id(first.dagster_run_id or "")
        assert stored is not None
        assert stored.status is dg.DagsterRunStatus.SUCCESS
        assert stored.tags["dagster/partition"] == PARTITION

    third = run(settings, overrides={"dataset": {"seed": 43}})
    assert third.made == DATA


def test_a_held_gate_holds_and_goes_on_once_mended(settings: Settings) -> None:
    set_gates(settings, **{"linked_tool_calls:linkage": "fail"})
    held = run(settings)
    assert held.made == DATA[:2]
    assert held.held == {"v2_chat_dataset": "held by linkage on linked_tool_calls"}
    assert list(held.gates_held) == ["linkage on linked_tool_calls"]
    assert asset_states(settings, PARTITION) == dict.fromkeys(DATA[:2], "done")

    set_gates(settings)
    mended = run(settings)
    assert (mended.skipped, mended.made) == (DATA[:1], DATA[1:])


def test_what_breaks_is_told_in_our_own_words_and_none_of_anyone_elses(settings: Settings) -> None:
    def breaks(asset: str, *arguments: Any, **options: Any) -> Any:
        if asset == "v2_chat_dataset":
            raise DatasetError("row 3 is cut")
        return materialise(asset, *arguments, **options)

    outcome = run(settings, wiring=replace(standin_wiring(), materialise=breaks))
    assert outcome.failed == {"v2_chat_dataset": "DatasetError: row 3 is cut"}
    assert (asset_states(settings, PARTITION) or {})["v2_chat_dataset"] == "failed"
    assert run(settings).made == ["v2_chat_dataset"]


def test_what_broke_when_it_was_made_anew_is_not_taken_for_done(settings: Settings) -> None:
    def breaks(asset: str, *arguments: Any, **options: Any) -> Any:
        if asset == "v2_chat_dataset":
            raise DatasetError("row 3 is cut")
        return materialise(asset, *arguments, **options)

    run(settings)
    run(settings, overrides={"dataset": {"seed": 43}}, wiring=replace(standin_wiring(), materialise=breaks))
    again = run(settings)
    assert (again.skipped, again.made) == (DATA[:2], DATA[2:])


def test_a_second_run_of_the_same_partition_is_refused_and_one_of_another_is_not(settings: Settings) -> None:
    other = "20261124T020000Z-manual"
    refusals: list[str] = []

    def meanwhile(asset: str, *arguments: Any, **options: Any) -> Any:
        context = arguments[0]
        if asset == "linked_tool_calls" and context.partition == PARTITION:
            with pytest.raises(RunInProgressError, match="is being made by another") as refused:
                run(settings)
            refusals.append(str(refused.value))
            assert run(settings, partition=other).made == DATA
        return materialise(asset, *arguments, **options)

    assert run(settings, wiring=replace(standin_wiring(), materialise=meanwhile)).made == DATA
    assert len(refusals) == 1
    assert "it goes on where that one stopped" in refusals[0]


def test_a_server_that_goes_away_is_told_in_our_words(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise DagsterPostgresException("too many retries for DB connection")

    monkeypatch.setattr(defs_run, "_execute", gone)
    with pytest.raises(StoreError, match="run this again: it goes on from there"):
        run(settings)


def test_a_run_that_is_stopped_is_no_failure_of_its_own_and_goes_on(settings: Settings) -> None:
    def stopped(asset: str, *arguments: Any, **options: Any) -> Any:
        if asset == "v2_chat_dataset":
            os.kill(os.getpid(), signal.SIGINT)
        return materialise(asset, *arguments, **options)

    with pytest.raises(KeyboardInterrupt):
        run(settings, wiring=replace(standin_wiring(), materialise=stopped))
    assert run(settings).made == ["v2_chat_dataset"]


def test_gates_that_cannot_be_judged_at_all_are_a_failure(settings: Settings) -> None:
    def nowhere(asset: str, name: str) -> Any:
        raise SystemExit(1)

    outcome = run(settings, wiring=replace(standin_wiring(), find_gate=nowhere))
    assert list(outcome.failed) == ["jsonl_sessions_gates"]


def test_a_run_is_refused_while_the_ui_runs_the_partition(settings: Settings) -> None:
    with project_instance(settings, in_process=True) as instance:
        going_on = instance.add_run(
            dg.DagsterRun(
                job_name="data_half", status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": PARTITION}
            )
        )
    with pytest.raises(RunInProgressError, match=going_on.run_id):
        run(settings)


@pytest.mark.parametrize(
    "wrong",
    [{"partition": "tonight"}, {"until": "no_such_asset"}, {"preset": "huge"}, {"overrides": {"dataset": {"x": 1}}}],
)  # fmt: skip
def test_wrong_usage_is_refused_before_anything_runs(settings: Settings, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        run(settings, **wrong)


def test_a_run_whose_command_was_killed_does_not_look_alive_for_ever(settings: Settings) -> None:
    host = socket.gethostname()
    with project_instance(settings, in_process=True) as instance:
        gone = instance.add_run(
            dg.DagsterRun(
                job_name="full_chain", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: f"{host} 999999999 0"}
            )
        )
        alive = instance.add_run(
            dg.DagsterRun(
                job_name="full_chain", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: process_identity()}
            )
        )
        number_reused = instance.add_run(
            dg.DagsterRun(
                job_name="full_chain",
                status=dg.DagsterRunStatus.STARTED,
                tags={PROCESS_TAG: f"{host} {os.getpid()} 1000000"},
            )
        )
        elsewhere = instance.add_run(
            dg.DagsterRun(
                job_name="full_chain", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: "another-host 1 0"}
            )
        )
        assert set(mark_abandoned_runs(instance)) == {gone.run_id, number_reused.run_id}
        assert instance.get_run_by_id(elsewhere.run_id).status is dg.DagsterRunStatus.STARTED
        assert instance.get_run_by_id(gone.run_id).status is dg.DagsterRunStatus.FAILURE
        assert instance.get_run_by_id(alive.run_id).status is dg.DagsterRunStatus.STARTED

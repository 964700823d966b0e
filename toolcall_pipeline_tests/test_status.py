"""`run` and `status --json` on a small chain: the interface that others script against, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from toolcall_pipeline import chain, cli
from toolcall_pipeline.commands.status import collect_status
from toolcall_pipeline.defs import run as defs_run
from toolcall_pipeline.defs.instance import project_instance
from toolcall_pipeline.defs.partitions import add_partition
from toolcall_pipeline.errors import DatasetError, UsageError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import server
from toolcall_pipeline_tests.defs.floor import override
from toolcall_pipeline_tests.defs.standin import materialise, set_gates, standin_wiring

PARTITION = "20261123T020000Z-manual"
NIGHT = "20261123T020000Z-nightly"
STATES = {"missing", "running", "done", "failed", "held", "not_due"}
GATE_KEYS = {
    "gate", "asset", "verdict", "measured", "comparison", "threshold", "unit", "n", "interval", "artifact_sha256",
    "how_to_fix",
}  # fmt: skip


@pytest.fixture(autouse=True)
def standins(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url or "")
    monkeypatch.setenv("TOOLCALL_PIPELINE_HOME", str(settings.home_dir))
    monkeypatch.setattr(defs_run, "production_wiring", standin_wiring)
    server.start(settings)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def run(*options: str, partition: str = PARTITION) -> int:
    return command("run", "--partition", partition, *options).exit_code


def status(partition: str = PARTITION) -> dict[str, Any]:
    result = command("status", partition, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def states(partition: str = PARTITION) -> list[str]:
    return [value["state"] for value in status(partition)["assets"].values()]


def verdict_of(gate: str) -> str:
    return next(row["verdict"] for row in status()["gates"] if row["gate"] == gate)


def break_at(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def breaks(asset: str, *arguments: Any, **options: Any) -> Any:
        if asset == broken:
            raise DatasetError("row 3 is cut")
        return materialise(asset, *arguments, **options)

    monkeypatch.setattr(defs_run, "production_wiring", lambda: replace(standin_wiring(), materialise=breaks))


def test_the_whole_chain_done_has_every_key_with_its_type() -> None:
    assert run() == 0
    report = status()
    assert set(report) == {"partition", "profile", "shippable", "verdict", "assets", "gates"}
    assert (report["partition"], report["profile"], report["shippable"]) == (PARTITION, "smoke", False)
    assert report["verdict"] == "PASSED_NOT_SHIPPABLE"
    assert list(report["assets"]) == list(chain.ASSETS)
    assert all(value["state"] == "done" for value in report["assets"].values())
    assert all(value["metadata"]["rows_count"] == 7 for value in report["assets"].values())
    for row in report["gates"]:
        assert set(row) == GATE_KEYS
        assert row["verdict"] == "pass"
        assert isinstance(row["measured"], float)
        assert isinstance(row["n"], int)
        bounds = row["threshold"] if isinstance(row["threshold"], list) else [row["threshold"]]
        assert all(isinstance(bound, int | float) for bound in bounds)
        assert len(row["artifact_sha256"]) == 64


def test_a_run_that_stops_early_leaves_the_rest_missing_and_the_verdict_open() -> None:
    assert run("--until", "linked_tool_calls") == 0
    assert states() == ["done"] * 2 + ["missing"] * 6
    assert status()["verdict"] == "PENDING"


def test_a_held_gate_holds_what_is_behind_it_and_is_exit_code_one(settings: Settings) -> None:
    set_gates(settings, **{"v2_chat_dataset:mask_proof": "fail", "linked_tool_calls:linkage": "pass"})
    assert run() == 1
    assert states() == ["done"] * 3 + ["held"] * 5
    assert (status()["verdict"], verdict_of("mask_proof")) == ("HOLD", "fail")
    assert run() == 1
    set_gates(settings)
    assert run() == 0
    assert states() == ["done"] * 8


def test_an_inconclusive_gate_holds_as_well(settings: Settings) -> None:
    set_gates(settings, **{"jsonl_sessions:files_accounted": "inconclusive"})
    assert run() == 1
    assert (status()["verdict"], states()) == ("INCONCLUSIVE", ["done"] + ["held"] * 7)


def test_what_breaks_is_exit_code_three_and_what_follows_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(monkeypatch, "v2_chat_dataset")
    assert run() == 3
    assert states() == ["done"] * 2 + ["failed"] + ["missing"] * 5
    assert status()["verdict"] == "PENDING"


def test_what_breaks_at_the_very_start_is_failed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(monkeypatch, "jsonl_sessions")
    assert run() == 3
    assert states() == ["failed"] + ["missing"] * 7


def test_what_breaks_when_it_is_made_anew_is_failed_and_its_old_verdicts_are_void(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run() == 0
    break_at(monkeypatch, "v2_chat_dataset")
    assert run("--set", "dataset.seed=43") == 3
    assert states() == ["done"] * 2 + ["failed"] + ["missing"] * 5
    assert status()["verdict"] == "PENDING"


def test_what_was_made_from_other_bytes_than_those_in_use_is_not_done() -> None:
    assert run() == 0
    assert run("--set", "dataset.seed=43", "--until", "v2_chat_dataset") == 0
    assert states()[:3] == ["done"] * 3
    assert states()[4] == "missing"
    assert status()["verdict"] == "PENDING"


def test_while_a_run_goes_on_one_asset_is_running(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    seen: list[dict[str, Any]] = []

    def looks(asset: str, *arguments: Any, **options: Any) -> Any:
        if asset == "v2_chat_dataset":
            seen.append(collect_status(settings, PARTITION))
        return materialise(asset, *arguments, **options)

    monkeypatch.setattr(defs_run, "production_wiring", lambda: replace(standin_wiring(), materialise=looks))
    assert run() == 0
    (report,) = seen
    assert [value["state"] for value in report["assets"].values()] == ["done"] * 2 + ["running"] + ["missing"] * 5
    assert report["verdict"] == "PENDING"


def test_an_override_is_shown_and_is_no_pass(settings: Settings) -> None:
    from toolcall_pipeline.definitions import build_defs

    set_gates(settings, **{"v2_chat_dataset:mask_proof": "fail"})
    job = build_defs(standin_wiring()).resolve_job_def("full_chain")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with project_instance(settings, in_process=True) as instance:
        add_partition(instance, PARTITION)
        config = {**quiet, **override("v2_chat_dataset", "looked at by hand")}
        assert job.execute_in_process(instance=instance, partition_key=PARTITION, run_config=config).success
    assert states() == ["done"] * 8
    assert (status()["verdict"], verdict_of("mask_proof")) == ("HOLD", "overridden")
    assert run() == 1


def test_a_night_that_stopped_at_its_dataset_is_not_due_further_on() -> None:
    assert run("--until", "v2_chat_dataset", partition=NIGHT) == 0
    assert states(NIGHT) == ["done"] * 3 + ["not_due"] * 5


def test_a_partition_that_was_added_and_never_run_is_missing_everything(settings: Settings) -> None:
    with project_instance(settings, in_process=True) as instance:
        add_partition(instance, PARTITION)
    report = status()
    assert states() == ["missing"] * 8
    assert (report["verdict"], report["profile"]) == ("PENDING", "smoke")
    assert {row["verdict"] for row in report["gates"]} == {"missing"}
    assert {row["n"] for row in report["gates"]} == {0}


def test_a_partition_that_was_never_added_is_bad_usage() -> None:
    result = command("status", "20200101T000000Z-none", "--json")
    assert isinstance(result.exception, UsageError)
    assert result.stdout == ""


def test_every_state_is_one_of_the_interface(settings: Settings) -> None:
    set_gates(settings, **{"linked_tool_calls:linkage": "fail"})
    run(partition=NIGHT)
    assert set(states(NIGHT)) <= STATES

"""Against a real daemon and web server on PostgreSQL: a backfill of two partitions, one of them held, then mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolcall_pipeline import chain
from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import server
from toolcall_pipeline_tests.defs.services import running_services
from toolcall_pipeline_tests.defs.standin import set_gates

HELD, FREE = "20261123T020000Z-nightly", "20261124T020000Z-nightly"


def test_a_backfill_of_two_partitions_stops_the_held_one_only_and_goes_on_from_the_failure_once_mended(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", settings.database_url or "")
    monkeypatch.setenv("TOOLCALL_PIPELINE_HOME", str(settings.home_dir))
    server.start(settings)
    set_gates(settings, **{f"linked_tool_calls:linkage@{HELD}": "fail"})
    store = ArtifactStore(settings.artifacts_dir)
    with running_services(settings, tmp_path) as services:
        services.add_partition(HELD)
        services.add_partition(FREE)
        services.launch_backfill(list(chain.DATA_ASSETS), [HELD, FREE])
        free = services.wait("the free partition's run", lambda: services.run_of(FREE))
        held = services.wait("the held partition's run", lambda: services.run_of(HELD))
        assert (free["status"], held["status"]) == ("SUCCESS", "FAILURE")
        assert store.current("v2_chat_dataset", FREE) is not None
        assert store.current("linked_tool_calls", HELD) is not None
        assert store.current("v2_chat_dataset", HELD) is None

        still_held = services.reexecute_from_failure(held["runId"])
        services.wait("the re-execution", lambda: services.runs()[still_held]["status"] == "FAILURE")
        assert store.current("v2_chat_dataset", HELD) is None

        services.report_materialisation("linked_tool_calls", HELD)
        services.report_passed_check("linked_tool_calls", "linkage")
        past_the_report = services.launch_assets(["v2_chat_dataset"], HELD)
        services.wait("the run after the report", lambda: services.runs()[past_the_report]["status"] == "FAILURE")
        services.report_materialisation("v2_chat_dataset", HELD)
        further_down = services.launch_assets(["baseline_reports", "lora_adapter"], HELD)
        services.wait("the run further down", lambda: services.runs()[further_down]["status"] == "FAILURE")
        assert [store.current(asset, HELD) for asset in chain.ASSETS[2:]] == [None] * 6

        set_gates(settings)
        resumed = services.reexecute_from_failure(held["runId"])
        services.wait("the resumed run", lambda: services.runs()[resumed]["status"] == "SUCCESS")
        assert store.current("v2_chat_dataset", HELD) is not None

"""The whole graph on one page: what `workspace.yaml` loads."""

from __future__ import annotations

import dagster as dg

from toolcall_pipeline import chain
from toolcall_pipeline.defs.checks import gate_checks
from toolcall_pipeline.defs.configuration import CONFIGURATION_KEY, configuration_resource
from toolcall_pipeline.defs.dataset.assets import v2_chat_dataset
from toolcall_pipeline.defs.evaluation.assets import baseline_reports, eval_reports
from toolcall_pipeline.defs.export.assets import gguf_q6k
from toolcall_pipeline.defs.jobs import all_jobs
from toolcall_pipeline.defs.resources import STORE_KEY, store_resource
from toolcall_pipeline.defs.schedules import nightly_backfill, nightly_backup
from toolcall_pipeline.defs.sessions.assets import jsonl_sessions
from toolcall_pipeline.defs.store.assets import database_backup, linked_tool_calls
from toolcall_pipeline.defs.training.assets import lora_adapter, merged_model
from toolcall_pipeline.defs.training.pipes import TRAINER_KEY, trainer
from toolcall_pipeline.defs.wiring import Wiring, production_wiring


def build_defs(wiring: Wiring | None = None) -> dg.Definitions:
    """Return every asset, check, job, schedule and resource.

    Args:
        wiring: The stages and gates below; the real ones by default.
    """
    wiring = wiring or production_wiring()
    return dg.Definitions(
        assets=[
            jsonl_sessions(wiring),
            linked_tool_calls(wiring),
            v2_chat_dataset(wiring),
            baseline_reports(wiring),
            lora_adapter(wiring),
            merged_model(wiring),
            gguf_q6k(wiring),
            eval_reports(wiring),
            database_backup(wiring),
        ],
        asset_checks=[gate_checks(wiring, asset) for asset in chain.ASSETS],
        jobs=all_jobs(),
        schedules=[nightly_backfill, nightly_backup],
        resources={
            STORE_KEY: store_resource(wiring.open_engine),
            CONFIGURATION_KEY: configuration_resource,
            TRAINER_KEY: trainer,
        },
        # A step process per asset costs seconds of imports each and gives nothing here; training is its own process.
        executor=dg.in_process_executor,
    )


defs = build_defs()

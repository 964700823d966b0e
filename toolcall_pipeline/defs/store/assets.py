"""`linked_tool_calls`, the rows of a run in PostgreSQL, and `database_backup`."""

import dagster as dg

from toolcall_pipeline.defs.describing import asset_arguments
from toolcall_pipeline.defs.metadata import plain_metadata
from toolcall_pipeline.defs.resources import STORE_KEY, Store
from toolcall_pipeline.defs.stage import run_stage
from toolcall_pipeline.defs.wiring import Wiring

_COLUMNS = (
    ("event_id", "string", "Identity of the call: one call is one row, however many files carry it"),
    ("session_id", "string", "The session it happened in"),
    ("tool_name", "string", "As the agent named it"),
    ("tool_input", "json", "Redacted arguments; over 16 KiB cut, see truncated_at_bytes"),
    ("response", "string", "Redacted result, null where none came"),
    ("prev_user_prompt_id", "int", "The prompt above it in the event graph, null for an orphan"),
    ("turn_index", "int", "Number of the prompt on the active branch"),
    ("turn_subindex", "int", "Number of the call within its turn, from 0"),
    ("backfill_run_id", "string", "The run that brought it in"),
    ("retention_class", "string", "live or backfill_jsonl"),
    ("truncated_at_bytes", "int", "Where the stored input was cut; such a call is never trained on"),
)


def linked_tool_calls(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        **asset_arguments(
            wiring,
            "linked_tool_calls",
            group="store",
            owner="data-platform",
            kinds={"postgres", "table"},
            what="Redacted prompts, calls, results and answers of this run, linked by the event graph, in the `mem_*` "
            "tables. What a later night learns about an earlier call is a row of that later night.",
            rerun="Running it again inserts nothing that is there and completes what a crash left out. "
            "`toolcall-pipeline backfill rollback RUN_ID` removes exactly this run's rows.",
            columns=_COLUMNS,
            metadata={"dagster/table_name": "mem_tool_calls"},
        )
    )
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return run_stage(context, wiring, "linked_tool_calls")

    return definition


def database_backup(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        name="database_backup",
        group_name="store",
        owners=["team:data-platform"],
        kinds={"postgres", "file"},
        required_resource_keys={STORE_KEY},
        description="A dump of the store, nightly at 03:14 by the schedule `nightly_backup`. The three newest dailies are "
        "kept, files under other names are never touched, a dump under 1 KB is refused.\n\n**Run it again.** Each run "
        "writes a new file. `toolcall-pipeline db restore FILE` brings one back.",
    )
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        store: Store = getattr(context.resources, STORE_KEY)
        return dg.MaterializeResult(metadata=plain_metadata(wiring.backup(store.settings)))

    return definition

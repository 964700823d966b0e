"""`jsonl_sessions`: the session files of a run, frozen and accounted for."""

from pathlib import Path

import dagster as dg

from toolcall_pipeline.defs.describing import asset_arguments
from toolcall_pipeline.defs.resources import STORE_KEY, Store
from toolcall_pipeline.defs.stage import run_stage
from toolcall_pipeline.defs.wiring import Wiring
from toolcall_pipeline.errors import PartitionKeyError
from toolcall_pipeline.partition_key import parse_partition_key

_COLUMNS = (
    ("path", "string", "The file, relative to the sessions folder"),
    ("format", "string", "claude_code, codex, or unknown"),
    ("size_bytes", "int", "Size when it was frozen"),
    ("sha256", "string", "SHA-256 of the frozen bytes"),
    ("start_byte", "int", "Where this run begins to read: what an earlier run stored is not read again"),
)


def jsonl_sessions(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        **asset_arguments(
            wiring,
            "jsonl_sessions",
            group="sessions",
            owner="data-platform",
            kinds={"json", "file"},
            what="The agent session files of this run, frozen: path, size and hash of every file, identity, place and hash "
            "of every event. No text, since nothing is redacted yet. A night with nothing new has zero rows and is "
            "no failure.",
            rerun="Inputs are frozen at the first materialisation; making it again gives the same bytes. New sessions "
            "belong to a new partition. The folder is set under `ops: jsonl_sessions: config: sessions_dir`, or by "
            "`TOOLCALL_PIPELINE_SESSIONS_DIR`; without one the shipped sample sessions are read.",
            columns=_COLUMNS,
        ),
        config_schema={
            "sessions_dir": dg.Field(
                dg.Noneable(str),
                default_value=None,
                description="Folder with session files, such as ~/.claude/projects. Empty: the settings' folder, or the "
                "shipped sample sessions.",
            )
        },
    )
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        refuse_malformed(context.partition_key)
        store: Store = getattr(context.resources, STORE_KEY)
        given = context.op_execution_context.op_config["sessions_dir"]
        sessions_dir = Path(given).expanduser().absolute() if given else store.settings.sessions_dir
        return run_stage(context, wiring, "jsonl_sessions", sessions_dir=sessions_dir)

    return definition


def refuse_malformed(partition: str) -> None:
    """Refuse a partition key of another form; Dagster's "add partition" dialog takes any text.

    Raises:
        dagster.Failure: The key is no `backfill_run_id`; the accepted form is in the message.
    """
    try:
        parse_partition_key(partition)
    except PartitionKeyError as error:
        raise dg.Failure(
            description=f"{error} Delete this partition and add one of the accepted form.", allow_retries=False
        ) from error

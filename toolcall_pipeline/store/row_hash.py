"""The hash of a run's rows in canonical order: what the verdicts on `linked_tool_calls` are about."""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from toolcall_pipeline.artifacts import Artifact, sha256_json
from toolcall_pipeline.errors import StoreError

ROWS_ASSET = "linked_tool_calls"

_PLACE = "event_id, node_id, session_id, agent_id, position, occurred_at, source_file, source_line, has_image"
# What a run brought in, without what depends on the order of inserts (numbers of rows) or may be consolidated later
# (projects). Links are told by event id.
_TABLES = {
    "mem_user_prompts": (
        ("event_id",),
        f"{_PLACE}, prompt_number, turn_index, prompt_text, content_hash, agent_name, agent_version, is_sub_agent, "
        "spawned_by_event_id, subkind, cwd, git_branch",
    ),
    "mem_tool_calls": (
        ("event_id",),
        f"{_PLACE}, prompt_event_id, turn_index, turn_subindex, is_direct, message_id, is_nested, tool_name, tool_input, "
        "tool_input_ordered, truncated_at_bytes, content_hash, response, is_error, is_rejected, model, cwd, git_branch",
    ),
    "mem_assistant_texts": (
        ("event_id",),
        "event_id, node_id, session_id, agent_id, position, occurred_at, source_file, source_line, prompt_event_id, "
        "turn_index, turn_subindex, is_direct, message_id, model, text, content_hash",
    ),
    "mem_late_results": (
        ("event_id",),
        "event_id, call_event_id, node_id, session_id, response, is_error, is_rejected, has_image, occurred_at, "
        "source_file, source_line",
    ),
    "mem_interruptions": (("event_id",), "event_id, node_id, session_id, prompt_event_id, source_file, source_line"),
    "mem_supersessions": (("event_id",), "event_id, node_id, reason, is_superseded"),
    "mem_offered_tools": (
        ("session_id", "agent_id", "content_hash"),
        "session_id, agent_id, content_hash, tools, system_prompt",
    ),
    "mem_copied_nodes": (("node_id",), "node_id, first_node_id"),
    "mem_session_families": (("session_id",), "session_id, family_id"),
}


def hash_run_rows(engine: Engine, partition: str) -> dict[str, dict[str, int | str]]:
    """Return, per table, the number of a run's rows and the SHA-256 over the hashes of the rows in key order."""
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL TimeZone = 'UTC'"))
        connection.execute(text("SET LOCAL extra_float_digits = 1"))
        return {table: _hash_table(connection, table, partition) for table in _TABLES}


def combined_sha256(tables: dict[str, dict[str, int | str]]) -> str:
    """Return one hash of all tables."""
    return sha256_json(tables)


def require_rows_unchanged(engine: Engine, artifact: Artifact) -> None:
    """Compare the rows of a run with what its `linked_tool_calls` artifact tells of them, byte for byte.

    Raises:
        StoreError: Rows were removed, added or changed since they were linked.
    """
    run = artifact.manifest.partition
    told, found = read_rows_file(artifact), hash_run_rows(engine, run)
    changed = {name: (told[name]["rows"], found[name]["rows"]) for name in told if told[name] != found.get(name)}
    if changed:
        raise StoreError(
            f"Rows of run {run} were removed or changed in PostgreSQL since they were linked; tables with their number of "
            f"rows then and now: {changed}. The run is no longer reproducible. Restore a backup, roll the run back and link "
            "it again, or take a later partition."
        )


def _hash_table(connection: Connection, table: str, partition: str) -> dict[str, int | str]:
    key, columns = _TABLES[table]
    # Rows are hashed by the server: a digest travels, not the text.
    order = ", ".join(f'{name} COLLATE "C"' for name in key)
    statement = text(
        f"SELECT sha256(convert_to(ROW({columns})::text, 'UTF8')) FROM {table} "
        f"WHERE backfill_run_id = :run ORDER BY {order}"
    )
    digest = hashlib.sha256()
    count = 0
    result = connection.execution_options(stream_results=True, yield_per=10_000).execute(statement, {"run": partition})
    for (row_digest,) in result:
        digest.update(row_digest)
        count += 1
    return {"rows": count, "sha256": digest.hexdigest()}


def read_rows_file(artifact: Artifact) -> dict[str, dict[str, int | str]]:
    """Return what a `linked_tool_calls` artifact says of its rows."""
    value: dict[str, dict[str, int | str]] = json.loads(artifact.path("rows.json").read_text(encoding="utf-8"))
    return value

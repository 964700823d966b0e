"""Load families into PostgreSQL: COPY into staging tables, one insert per table and batch, one transaction per batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from toolcall_pipeline.store.family_worker import TAKEN_ID, FamilyRows
from toolcall_pipeline.store.ledger import record_states
from toolcall_pipeline.store.projects import ensure_projects
from toolcall_pipeline.store.rows import COLUMNS, RETENTION_CLASS, Row

_WITH_PROMPT_ID = frozenset({"mem_tool_calls", "mem_assistant_texts"})
_WITH_RETENTION = frozenset({"mem_user_prompts", "mem_tool_calls", "mem_assistant_texts"})
_CONFLICT = {
    "mem_sessions": "(session_id)",
    "mem_user_prompts": "(event_id)",
    "mem_tool_calls": "(event_id)",
    "mem_assistant_texts": "(event_id)",
    "mem_late_results": "(event_id)",
    "mem_interruptions": "(event_id)",
    "mem_offered_tools": "(session_id, agent_id, content_hash)",
    "mem_graph_nodes": "(node_id, session_id, parent_node_id)",
    "mem_copied_nodes": "(node_id)",
    "mem_session_families": "(session_id, backfill_run_id)",
    "mem_parked_events": "(event_id)",
    "mem_quarantine": None,
}


def prepare_staging(connection: Connection) -> None:
    """Create the staging tables of this connection; each transaction finds them empty.

    Rows are joined to prompts and projects by unique keys. Staging tables have no statistics, and a hash join would read
    all prompts ever stored for every batch, so the planner is told to look keys up. The connection leaves its pool: these
    settings, and commits that do not wait for the disk, are nobody else's.
    """
    connection.detach()
    for table, columns in COLUMNS.items():
        listed = ", ".join(f"{name} {kind}" for name, kind in columns)
        connection.execute(text(f"CREATE TEMP TABLE IF NOT EXISTS staging_{table} ({listed}) ON COMMIT DELETE ROWS"))
    for setting in ("enable_hashjoin", "enable_mergejoin", "jit"):
        connection.execute(text(f"SET {setting} = off"))
    connection.execute(text("SET synchronous_commit = off"))
    connection.commit()


def clear_staging(connection: Connection) -> None:
    """Empty the staging tables inside a transaction that goes on."""
    connection.execute(text("TRUNCATE " + ", ".join(f"staging_{table}" for table in COLUMNS)))


def load_batch(connection: Connection, partition: str, families: Sequence[FamilyRows]) -> Counter[str]:
    """Store a batch of whole families in the connection's transaction; the caller commits.

    Args:
        connection: A connection that `prepare_staging` prepared.
        partition: The `backfill_run_id`.
        families: The batch.

    Returns:
        Rows inserted per table, and `<table>_skipped` for those that were there already.
    """
    ensure_projects(connection, [context for family in families for context in family.projects])
    inserted: Counter[str] = Counter()
    for family in families:
        if family.unparked:  # first: new calls may answer a prompt that was parked
            _unpark(connection, partition, family.unparked)
    for table in COLUMNS:
        copies = [family.copies[table] for family in families if table in family.copies]
        if not copies:
            continue
        _copy(connection, table, copies)
        stored = connection.execute(text(_insert_statement(table)), {"run": partition}).rowcount
        inserted[table] += stored
        inserted[f"{table}_skipped"] += sum(family.row_counts.get(table, 0) for family in families) - stored
    if inserted["mem_tool_calls_skipped"]:
        inserted["taken_ids"] = _quarantine_taken_ids(connection, partition)
    for family in families:
        _change_states(connection, partition, family)
    record_states(connection, partition, [state for family in families for state in family.states])
    _record_counts(connection, partition, families, inserted)
    return inserted


def _copy(connection: Connection, table: str, copies: Sequence[bytes]) -> None:
    driver: Any = connection.connection.dbapi_connection
    names = ", ".join(name for name, _ in COLUMNS[table])
    with driver.cursor() as cursor, cursor.copy(f"COPY staging_{table} ({names}) FROM STDIN") as copy:
        for data in copies:
            copy.write(data)


def _insert_statement(table: str, source: str | None = None) -> str:
    names = [name for name, _ in COLUMNS[table] if name != "project_path"]
    values = [f"s.{name}" for name in names]
    joins = ""
    if any(name == "project_path" for name, _ in COLUMNS[table]):
        names.append("project_id")
        values.append("project.id")
        joins += " LEFT JOIN mem_projects project ON project.full_path = s.project_path"
    if table in _WITH_PROMPT_ID:
        names.append("prev_user_prompt_id")
        values.append("prompt.id")
        joins += " LEFT JOIN mem_user_prompts prompt ON prompt.event_id = s.prompt_event_id"
    if table in _WITH_RETENTION:
        names.append("retention_class")
        values.append(f"'{RETENTION_CLASS}'")
    names.append("backfill_run_id")
    values.append(":run")
    where = ""
    if table == "mem_late_results":
        where = (
            " WHERE NOT EXISTS (SELECT 1 FROM mem_tool_calls c WHERE c.event_id = s.call_event_id"
            " AND c.response IS NOT NULL)"
        )
    target = _CONFLICT[table]
    conflict = f" ON CONFLICT {target} DO NOTHING" if target else ""
    return (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
        f"FROM {source or f'staging_{table}'} s{joins}{where}{conflict}"
    )


def _quarantine_taken_ids(connection: Connection, partition: str) -> int:
    """Put staged calls into quarantine whose id another call of their session has since an earlier night."""
    statement = """
        INSERT INTO mem_quarantine (source_file, source_line, byte_offset, reason, length_bytes, backfill_run_id)
        SELECT s.source_file, s.source_line, 0, :reason, 0, :run
        FROM staging_mem_tool_calls s JOIN mem_tool_calls c USING (event_id)
        WHERE c.backfill_run_id <> :run AND c.session_id = s.session_id AND c.content_hash <> s.content_hash
    """
    return connection.execute(text(statement), {"run": partition, "reason": TAKEN_ID}).rowcount


def _change_states(connection: Connection, partition: str, family: FamilyRows) -> None:
    """Write what this run says about rows of earlier runs."""
    told = [(node, reason, True) for node, reason in family.superseded.items()]
    told += [(node, "restored", False) for node in family.restored]
    if told:
        connection.execute(
            text(
                """
                INSERT INTO mem_supersessions (event_id, node_id, backfill_run_id, reason, is_superseded)
                SELECT stored.event_id, told.node_id, :run, told.reason, told.is_superseded
                FROM unnest(CAST(:nodes AS text[]), CAST(:reasons AS text[]), CAST(:states AS boolean[]))
                    AS told (node_id, reason, is_superseded)
                JOIN LATERAL (
                    SELECT event_id FROM mem_user_prompts WHERE node_id = told.node_id
                    UNION ALL SELECT event_id FROM mem_tool_calls WHERE node_id = told.node_id
                    UNION ALL SELECT event_id FROM mem_assistant_texts WHERE node_id = told.node_id
                ) stored ON true
                ON CONFLICT (event_id, backfill_run_id) DO NOTHING
                """
            ),
            {
                "run": partition,
                "nodes": [node for node, _, _ in told],
                "reasons": [reason for _, reason, _ in told],
                "states": [state for _, _, state in told],
            },
        )


def _unpark(connection: Connection, partition: str, nodes: Mapping[str, Mapping[str, Row]]) -> None:
    """Bring parked events back as rows of this run."""
    places = {event_id: place for events in nodes.values() for event_id, place in events.items()}
    values = {"run": partition, "nodes": list(nodes), "places": json.dumps(places)}
    for table in ("mem_user_prompts", "mem_tool_calls", "mem_assistant_texts"):
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS[table])
        source = (
            "(SELECT r.* FROM mem_parked_events e, "
            "jsonb_to_record(e.row_data || coalesce(CAST(:places AS jsonb) -> e.event_id, '{}')) "
            f"AS r({columns}) WHERE e.node_id = ANY(CAST(:nodes AS text[])) AND e.table_name = '{table}' "
            "AND e.restored_by_run_id IS NULL)"
        )
        connection.execute(text(_insert_statement(table, source)), values)
    connection.execute(
        text(
            "UPDATE mem_parked_events SET restored_by_run_id = :run "
            "WHERE node_id = ANY(CAST(:nodes AS text[])) AND restored_by_run_id IS NULL"
        ),
        {"run": partition, "nodes": list(nodes)},
    )


def _record_counts(
    connection: Connection, partition: str, families: Sequence[FamilyRows], inserted: Mapping[str, int]
) -> None:
    counts: Counter[str] = Counter()
    redactions: Counter[str] = Counter()
    for family in families:
        counts.update(family.counts)
        redactions.update(family.redactions)
    for table in ("mem_user_prompts", "mem_tool_calls", "mem_assistant_texts", "mem_late_results"):
        counts["duplicates_skipped"] += inserted.get(f"{table}_skipped", 0)
    counts["duplicates_skipped"] -= inserted.get("taken_ids", 0)
    counts["quarantined_lines"] += inserted.get("taken_ids", 0)
    value = {"counts": dict(sorted(counts.items())), "redactions": dict(sorted(redactions.items()))}
    connection.execute(
        text("INSERT INTO backfill_batches (backfill_run_id, counts) VALUES (:run, CAST(:counts AS jsonb))"),
        {"run": partition, "counts": json.dumps(value)},
    )


def sum_batches(connection: Connection, partition: str) -> dict[str, Any]:
    """Return a run's counts over all its batches: `{"counts": {...}, "redactions": {...}}`."""
    counts: Counter[str] = Counter()
    redactions: Counter[str] = Counter()
    rows = connection.execute(
        text("SELECT counts FROM backfill_batches WHERE backfill_run_id = :run"), {"run": partition}
    )
    for (value,) in rows:
        counts.update(value["counts"])
        redactions.update(value["redactions"])
    return {"counts": dict(counts), "redactions": dict(redactions)}


def count_stored(connection: Connection, partition: str) -> dict[str, int]:
    """Return what a run stored, by name."""
    row = connection.execute(
        text(
            """
            SELECT
                (SELECT count(*) FROM mem_sessions WHERE backfill_run_id = :run) AS sessions,
                (SELECT count(*) FROM mem_user_prompts WHERE backfill_run_id = :run AND NOT is_sub_agent) AS prompts,
                (SELECT count(*) FROM mem_user_prompts WHERE backfill_run_id = :run AND is_sub_agent)
                    AS sub_agent_prompts,
                calls.*,
                (SELECT count(*) FROM mem_assistant_texts WHERE backfill_run_id = :run) AS assistant_texts,
                (SELECT count(*) FROM mem_late_results WHERE backfill_run_id = :run) AS late_results,
                (SELECT count(*) FROM mem_supersessions WHERE backfill_run_id = :run AND is_superseded) AS superseded
            FROM (
                SELECT count(*) AS tool_calls,
                    count(*) FILTER (WHERE is_nested) AS tool_calls_nested,
                    count(*) FILTER (WHERE prompt_event_id IS NULL) AS orphans,
                    count(*) FILTER (WHERE response IS NULL) AS calls_without_result,
                    count(*) FILTER (WHERE truncated_at_bytes IS NOT NULL) AS truncated
                FROM mem_tool_calls WHERE backfill_run_id = :run
            ) calls
            """
        ),
        {"run": partition},
    ).mappings()
    return {name: int(value) for name, value in row.one().items()}

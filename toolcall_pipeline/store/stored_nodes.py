"""What earlier runs stored of a family's event graph: all that a later night asks of them, no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import text
from sqlalchemy.engine import Connection

from toolcall_pipeline.sessions.events import GraphNode, NodeRole

StoredState = Literal["active", "superseded", "parked"]


@dataclass(frozen=True, slots=True)
class StoredNode:
    """A node that an earlier run stored.

    Attributes:
        node: As it was then.
        state: `active` where its rows count, `superseded` where a later run said they no longer do, `parked` where its
            events were on an abandoned branch from the start.
        said: Event id and content hash of each prompt and answer that is stored of it.
        first_node_id: The prompt's node that this one is a copy of, None where it is none.
    """

    node: GraphNode
    state: StoredState
    said: tuple[tuple[str, str], ...] = ()
    first_node_id: str | None = None


# The nodes are gathered first, and looked up as a list: a plain join, and `min` without groups, which goes through the
# index of event ids, would read all prompts ever stored, for every family.
_STORED_NODES = text(
    """
    WITH node AS MATERIALIZED (
        SELECT * FROM mem_graph_nodes WHERE session_id = ANY(CAST(:sessions AS text[])) AND backfill_run_id <> :run
    ), told AS (
        SELECT DISTINCT ON (node_id) node_id, is_superseded
        FROM mem_supersessions JOIN backfill_runs USING (backfill_run_id)
        WHERE backfill_run_id <> :run AND node_id = ANY(ARRAY(SELECT node_id FROM node))
        ORDER BY node_id, freeze_number DESC
    ), parked AS (
        SELECT node_id, event_id, table_name, row_data->>'content_hash' AS content_hash FROM mem_parked_events
        WHERE session_id = ANY(CAST(:sessions AS text[])) AND backfill_run_id <> :run
          AND (restored_by_run_id IS NULL OR restored_by_run_id = :run)
    ), said AS (
        SELECT node_id, array_agg(event_id ORDER BY event_id) AS event_ids,
            array_agg(content_hash ORDER BY event_id) AS content_hashes
        FROM (
            SELECT node_id, event_id, content_hash FROM mem_user_prompts
            WHERE backfill_run_id <> :run
              AND node_id = ANY(ARRAY(SELECT node_id FROM node WHERE role IN ('prompt', 'tool_result')))
            UNION ALL SELECT node_id, event_id, content_hash FROM mem_assistant_texts
            WHERE backfill_run_id <> :run AND node_id = ANY(ARRAY(SELECT node_id FROM node WHERE role = 'assistant'))
            UNION ALL SELECT node_id, event_id, content_hash FROM parked
            WHERE table_name IN ('mem_user_prompts', 'mem_assistant_texts')
        ) AS every
        GROUP BY node_id
    )
    SELECT n.node_id, n.parent_node_id, n.session_id, n.role, n.source_file, n.source_line, n.occurred_at, n.message_id,
        n.agent_id, n.spawned_by_tool_use_id, n.started_agent_id, n.tool_use_ids,
        CASE WHEN n.node_id IN (SELECT node_id FROM parked) THEN 'parked' WHEN told.is_superseded THEN 'superseded'
            ELSE 'active' END AS state,
        said.event_ids, said.content_hashes, copied.first_node_id
    FROM node n
    LEFT JOIN told ON told.node_id = n.node_id
    LEFT JOIN said ON said.node_id = n.node_id
    LEFT JOIN mem_copied_nodes copied ON copied.node_id = n.node_id AND copied.backfill_run_id <> :run
    ORDER BY n.session_id, n.source_file, n.source_line, n.node_id
    """
)


def load_stored_nodes(
    connection: Connection, families: Sequence[frozenset[str]], but_run: str
) -> list[tuple[StoredNode, ...]]:
    """Return every node that runs other than `but_run` stored, family by family, in a fixed order.

    Args:
        connection: Of the store.
        families: The sessions of each; they share none.
        but_run: The run whose nodes do not count.
    """
    owner = {session_id: number for number, sessions in enumerate(families) for session_id in sessions}
    found: list[list[StoredNode]] = [[] for _ in families]
    if owner:
        for row in connection.execute(_STORED_NODES, {"sessions": sorted(owner), "run": but_run}):
            stored = _stored_node(*row)
            found[owner[stored.node.session_id]].append(stored)
    return [tuple(nodes) for nodes in found]


_ROLES = {role.value: role for role in NodeRole}


def _stored_node(
    node_id: str,
    parent_node_id: str | None,
    session_id: str,
    role: str,
    file: str,
    line: int,
    timestamp: str | None,
    message_id: str | None,
    agent_id: str | None,
    spawned_by_tool_use_id: str | None,
    started_agent_id: str | None,
    tool_use_ids: list[str],
    state: StoredState,
    event_ids: list[str] | None,
    content_hashes: list[str] | None,
    first_node_id: str | None,
) -> StoredNode:
    node = GraphNode(
        node_id,
        parent_node_id,
        session_id,
        _ROLES[role],
        file,
        line,
        timestamp,
        message_id,
        agent_id,
        spawned_by_tool_use_id,
        started_agent_id,
        tuple(tool_use_ids),
    )
    return StoredNode(node, state, tuple(zip(event_ids or (), content_hashes or (), strict=True)), first_node_id)

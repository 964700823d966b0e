"""The nodes of a family as rows, and what a night says about those of earlier runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from toolcall_pipeline.sessions.events import GraphNode
from toolcall_pipeline.sessions.graph import Resolution
from toolcall_pipeline.store.copied_history import COPIED, Carriers
from toolcall_pipeline.store.rows import Row
from toolcall_pipeline.store.stored_nodes import StoredNode


class Standing:
    """Tells whether a stored node's events are on the active branch: by itself, or by a copy of what it carries."""

    def __init__(self, resolution: Resolution, nodes: Sequence[GraphNode]) -> None:
        self._active = resolution.active
        self._nodes = nodes
        self._carriers: Carriers | None = None

    def is_active(self, node: GraphNode) -> bool:
        """Tell whether what a node carries counts."""
        if node.node_id in self._active:
            return True
        if self._carriers is None:
            self._carriers = Carriers(other for other in self._nodes if other.node_id in self._active)
        return self._carriers.carry(node)


def node_rows(nodes: Iterable[GraphNode], stored: Sequence[StoredNode]) -> list[Row]:
    """Return the rows of the nodes that are not stored yet.

    Copies of a node may name different parents (a queued prompt came between): each is kept, a later night needs all.
    """
    seen = {(item.node.node_id, item.node.session_id, item.node.parent_node_id) for item in stored}
    rows: list[Row] = []
    for node in nodes:
        key = (node.node_id, node.session_id, node.parent_node_id)
        if key in seen:
            continue
        seen.add(key)
        rows.append(
            {
                "node_id": node.node_id,
                "session_id": node.session_id,
                "parent_node_id": node.parent_node_id,
                "role": node.role.value,
                "source_file": node.file,
                "source_line": node.line,
                "occurred_at": node.timestamp,
                "message_id": node.message_id,
                "agent_id": node.agent_id,
                "spawned_by_tool_use_id": node.spawned_by_tool_use_id,
                "started_agent_id": node.started_agent_id,
                "tool_use_ids": node.tool_use_ids,
            }
        )
    return rows


def compare_states(
    resolution: Resolution, stored: Sequence[StoredNode], copied: Mapping[str, str], standing: Standing
) -> tuple[dict[str, str], list[str]]:
    """Return the stored nodes whose rows no longer count, with the reason, and those whose rows count again.

    Args:
        resolution: The family's graph, old and new.
        stored: What earlier runs stored of it.
        copied: Nodes of prompts that are copies, with the node of the first.
        standing: Of the nodes, by themselves or by what carries the same.
    """
    superseded: dict[str, str] = {}
    restored: list[str] = []
    for node_id, item in {item.node.node_id: item for item in stored}.items():
        if node_id in copied:
            # What was stored of it before it was found out is no prompt of its own.
            if item.first_node_id is None and item.state == "active":
                superseded[node_id] = COPIED
            continue
        is_active = standing.is_active(item.node)
        if item.state == "active" and not is_active:
            superseded[node_id] = resolution.superseded.get(node_id, "abandoned")
        elif item.state == "superseded" and is_active:
            restored.append(node_id)
    return superseded, restored

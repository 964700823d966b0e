"""The event graph of a session family: which branch is active, which prompt stands above a node, who belongs together.

Pure and without text, so that the store can call it again with the nodes of former nights and the new ones. A session is a
graph, not a list: a rewind leaves a branch behind, parallel tool results fork without one, compaction starts a new root,
resuming and forking copy history into other sessions. What counts as a rewind: docs/reference/sessions.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from toolcall_pipeline.sessions.branches import add_sub_agents, superseded_nodes
from toolcall_pipeline.sessions.events import GraphNode, NodeRole

_STARTS = frozenset({NodeRole.TRIGGER, NodeRole.COMPACTION})


@dataclass(frozen=True)
class Resolution:
    """What the graph says.

    Attributes:
        parents: Every node's parent as it was taken: of several copies' the first recorded, behind a compaction what it goes
            on from, None at a root (also where the parent it names is in no file).
        active: Nodes of conversations that were not abandoned.
        superseded: Abandoned nodes and why: `rewind` (the person went back and typed something else) or `regenerated`
            (the agent's answer was made again).
        prompt_above: Every node's prompt: the nearest PROMPT up the parents, itself for a prompt, None for an orphan.
        is_direct: Whether nothing else (slash command, notification, compaction) started the turn between the two.
        turn_index: Number of that prompt on its branch, from 0; -1 before the first.
        order: All nodes, parents before children, then by time, file and line.
        families: Session to the smallest session id of its family (shared history, forks, sub-agents).
        spawned_by: Sub-agent to the event id of the call that started it.
        primary_session: Node to the session it counts for: the one that recorded it first.
    """

    parents: Mapping[str, str | None]
    active: frozenset[str]
    superseded: Mapping[str, str]
    prompt_above: Mapping[str, str | None]
    is_direct: Mapping[str, bool]
    turn_index: Mapping[str, int]
    order: tuple[str, ...]
    families: Mapping[str, str]
    spawned_by: Mapping[str, str]
    primary_session: Mapping[str, str]


def resolve(nodes: Iterable[GraphNode]) -> Resolution:
    """Decide everything the graph decides.

    Args:
        nodes: All nodes of whole families, in any order, copies included.

    Returns:
        The resolution; the same nodes in another order give the same one.
    """
    records = list(nodes)
    merged, sessions_of = _merge(records)
    parents = _acyclic_parents(merged)
    order = _topological(merged, parents)
    superseded = superseded_nodes(merged, parents, order, sessions_of)
    spawned_by = _spawned_by(records)
    if superseded and spawned_by:
        superseded = add_sub_agents(superseded, merged, spawned_by)
    prompt_above, is_direct = _prompts(merged, parents, order)
    return Resolution(
        parents=parents,
        active=frozenset(node_id for node_id in merged if node_id not in superseded),
        superseded=superseded,
        prompt_above=prompt_above,
        is_direct=is_direct,
        turn_index=_turns(merged, parents, order, superseded),
        order=order,
        families=_families(records, merged),
        spawned_by=spawned_by,
        primary_session={node_id: node.session_id for node_id, node in merged.items()},
    )


def _merge(records: list[GraphNode]) -> tuple[dict[str, GraphNode], dict[str, frozenset[str]]]:
    """Return each node once, as first recorded, with the sessions that carry it; in order of time, file and line.

    Time stamps run backwards in real files (results of parallel calls); inside a file the line order holds, so a line
    counts as late as the latest line before it.
    """
    latest: dict[str, str] = {}
    keyed: list[tuple[str, str, int, int, GraphNode]] = []
    for index, node in sorted(enumerate(records), key=lambda item: (item[1].file, item[1].line, item[0])):
        latest[node.file] = max(latest.get(node.file, ""), node.timestamp or "")
        keyed.append((latest[node.file], node.file, node.line, index, node))
    merged: dict[str, GraphNode] = {}
    sessions: defaultdict[str, set[str]] = defaultdict(set)
    better_parent: dict[str, GraphNode] = {}
    for *_, node in sorted(keyed, key=lambda item: item[:4]):
        sessions[node.node_id].add(node.session_id)
        first = merged.setdefault(node.node_id, node)
        if first is not node and _says_more(node, better_parent.get(node.node_id, first)):
            better_parent[node.node_id] = node
    for node_id, node in better_parent.items():
        merged[node_id] = msgspec.structs.replace(merged[node_id], parent_node_id=node.parent_node_id)
    return merged, {node_id: frozenset(found) for node_id, found in sessions.items()}


def _says_more(node: GraphNode, than: GraphNode) -> bool:
    """Tell whether a copy knows a parent that the record taken so far does not (copied history may start cut)."""
    if node.parent_node_id is None:
        return False
    is_queued = node.parent_node_id.startswith("queued:")
    return than.parent_node_id is None or (is_queued and not than.parent_node_id.startswith("queued:"))


def _acyclic_parents(merged: Mapping[str, GraphNode]) -> dict[str, str | None]:
    """Return each node's parent that exists, None at a root; an edge that closes a circle is cut at its earliest node."""
    parents = {
        node_id: node.parent_node_id if node.parent_node_id in merged else None for node_id, node in merged.items()
    }
    rank = {node_id: index for index, node_id in enumerate(merged)}
    done: set[str] = set()
    for start in merged:
        path: list[str] = []
        on_path: set[str] = set()
        node: str | None = start
        while node is not None and node not in done and node not in on_path:
            path.append(node)
            on_path.add(node)
            node = parents[node]
        if node is not None and node in on_path:
            circle = path[path.index(node) :]
            parents[min(circle, key=rank.__getitem__)] = None
        done.update(path)
    return parents


def _topological(merged: Mapping[str, GraphNode], parents: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the nodes in recorded order, moved behind their parents where a file holds a child first."""
    order: list[str] = []
    placed: set[str] = set()
    for start in merged:
        chain: list[str] = []
        node: str | None = start
        while node is not None and node not in placed:
            chain.append(node)
            placed.add(node)
            node = parents[node]
        order.extend(reversed(chain))
    return tuple(order)


def _prompts(
    merged: Mapping[str, GraphNode], parents: Mapping[str, str | None], order: tuple[str, ...]
) -> tuple[dict[str, str | None], dict[str, bool]]:
    above: dict[str, str | None] = {}
    direct: dict[str, bool] = {}
    for node_id in order:
        parent = parents[node_id]
        role = merged[node_id].role
        if role is NodeRole.PROMPT:
            above[node_id], direct[node_id] = node_id, True
            continue
        above[node_id] = above[parent] if parent is not None else None
        direct[node_id] = parent is not None and direct[parent] and role not in _STARTS
    return above, direct


def _turns(
    merged: Mapping[str, GraphNode],
    parents: Mapping[str, str | None],
    order: tuple[str, ...],
    superseded: Mapping[str, str],
) -> dict[str, int]:
    """Count prompts along the branch; a root whose history is not at hand goes on after the last turn of its session."""
    turns: dict[str, int] = {}
    last_turn: dict[tuple[str, str | None], int] = {}
    for node_id in order:
        node = merged[node_id]
        conversation = (node.session_id, node.agent_id)
        parent = parents[node_id]
        before = turns[parent] if parent is not None else last_turn.get(conversation, -1)
        turns[node_id] = before + (1 if node.role is NodeRole.PROMPT else 0)
        if node_id not in superseded:
            last_turn[conversation] = max(last_turn.get(conversation, -1), turns[node_id])
    return turns


def _families(records: list[GraphNode], merged: Mapping[str, GraphNode]) -> dict[str, str]:
    leader: dict[str, str] = {}

    def find(session: str) -> str:
        leader.setdefault(session, session)
        while leader[session] != session:
            leader[session] = leader[leader[session]]
            session = leader[session]
        return session

    def join(one: str, other: str) -> None:
        first, second = sorted((find(one), find(other)))
        leader[second] = first

    agents: dict[str, str] = {}
    pairs: set[tuple[str, str]] = set()
    for node in records:
        pairs.add((node.session_id, merged[node.node_id].session_id))
        parent = merged.get(node.parent_node_id or "")
        if parent is not None:
            pairs.add((node.session_id, parent.session_id))
        if node.agent_id is not None:
            agents.setdefault(f"{node.session_id}\0{node.agent_id}", node.session_id)
            agents.setdefault(node.agent_id, node.session_id)
    for one, other in pairs:
        join(one, other)
    for node in records:
        started = node.started_agent_id
        if started is not None and f"{node.session_id}\0{started}" not in agents and started in agents:
            join(node.session_id, agents[started])
    return {session: find(session) for session in sorted(leader)}


def _spawned_by(records: list[GraphNode]) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in records:
        if node.agent_id is not None and node.spawned_by_tool_use_id is not None:
            found.setdefault(node.agent_id, node.spawned_by_tool_use_id)
    for node in records:
        if node.started_agent_id is not None and node.tool_use_ids:
            found.setdefault(node.started_agent_id, node.tool_use_ids[0])
    return found

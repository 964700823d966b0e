"""Abandoned branches: where a session's graph forks, which side the conversation left.

Most forks are none: parallel calls and their results, progress, hooks. What counts is decided on the nodes that speak
(PASSIVE nodes only carry edges), inside one session: a fork whose sides belong to different sessions is a resume or a
`fork`, and both sides happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

from toolcall_pipeline.sessions.events import GraphNode, NodeRole

REWIND = "rewind"
REGENERATED = "regenerated"
_OPENERS = frozenset({NodeRole.PROMPT, NodeRole.TRIGGER, NodeRole.ROLLBACK})


class _Sessions(Protocol):
    def __getitem__(self, node_id: str) -> frozenset[str]: ...


def superseded_nodes(
    merged: Mapping[str, GraphNode],
    parents: Mapping[str, str | None],
    order: tuple[str, ...],
    sessions_of: _Sessions,
) -> dict[str, str]:
    """Return the abandoned nodes with the reason.

    Args:
        merged: Nodes by id.
        parents: Parent of each, free of circles.
        order: All nodes, parents first, then in recorded order.
        sessions_of: Sessions that carry a node; it is abandoned only where all of them abandoned it.
    """
    speaking_parent = _speaking_parents(merged, parents, order)
    by_session: defaultdict[str, list[str]] = defaultdict(list)
    for node_id in order:
        for session in sessions_of[node_id]:
            by_session[session].append(node_id)
    abandoned_in: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for session, members in by_session.items():
        for node_id, reason in _abandoned_in_session(members, merged, parents, speaking_parent).items():
            abandoned_in[node_id][session] = reason
    result = {
        node_id: sorted(reasons.values())[-1]
        for node_id, reasons in abandoned_in.items()
        if len(reasons) == len(sessions_of[node_id])
    }
    _revive_history_of_forks(result, merged, parents, sessions_of)
    return result


def _speaking_parents(
    merged: Mapping[str, GraphNode], parents: Mapping[str, str | None], order: tuple[str, ...]
) -> dict[str, str | None]:
    """Return for each node the nearest node above it that speaks, else the root it stands below; None for a root."""
    found: dict[str, str | None] = {}
    for node_id in order:
        parent = parents[node_id]
        if parent is None or merged[parent].role is not NodeRole.PASSIVE:
            found[node_id] = parent
        else:
            found[node_id] = found[parent] or parent
    return found


def _abandoned_in_session(
    members: list[str],
    merged: Mapping[str, GraphNode],
    parents: Mapping[str, str | None],
    speaking_parent: Mapping[str, str | None],
) -> dict[str, str]:
    inside = set(members)
    rank = {node_id: index for index, node_id in enumerate(members)}
    children: defaultdict[str, list[str]] = defaultdict(list)
    for node_id in members:
        above = speaking_parent[node_id]
        if above is None or above not in inside or merged[node_id].role is NodeRole.PASSIVE:
            continue
        if merged[above].agent_id == merged[node_id].agent_id:
            children[above].append(node_id)
    last_rank = dict(rank)
    answered: set[str] = set()
    for node_id in reversed(members):
        above = speaking_parent[node_id]
        if above not in inside or above is None or merged[node_id].role is NodeRole.PASSIVE:
            continue
        last_rank[above] = max(last_rank[above], last_rank[node_id])
        if merged[node_id].role is NodeRole.ASSISTANT or node_id in answered:
            answered.add(above)
    ran = {
        call
        for node_id in members
        if merged[node_id].role is NodeRole.TOOL_RESULT
        for call in merged[node_id].tool_use_ids
    }
    roots: dict[str, str] = {}
    starts: defaultdict[str, list[str]] = defaultdict(list)
    for node_id in members:
        if _is_start(merged[node_id]):
            starts[merged[node_id].file].append(node_id)
    forks = [(None, sides) for sides in starts.values()] + [(merged[above], children[above]) for above in members]
    for fork, sides in forks:
        if len(sides) > 1:
            roots.update(_abandoned_children(fork, sides, merged, last_rank, answered, ran))
    return _spread(roots, members, parents)


def _is_start(node: GraphNode) -> bool:
    """Tell whether a prompt begins its session: of several in a file, the person went back to the start.

    Not below the hooks of a start: they run when the context was cleared, and both conversations happened.
    """
    return node.role is NodeRole.PROMPT and node.parent_node_id is None and node.agent_id is None


def _abandoned_children(
    above: GraphNode | None,
    children: list[str],
    merged: Mapping[str, GraphNode],
    last_rank: Mapping[str, int],
    answered: set[str],
    ran: set[str],
) -> dict[str, str]:
    """Return the children of one fork (None: the session's start) that the conversation left, with the reason.

    A command without an answer (`/exit`, `/status`) goes nowhere, and a text beside a tool result opens nothing.
    """
    going_on = [child for child in children if _goes_on(merged[child], child in answered)]
    if len(going_on) < 2:
        return {}
    winner = max(going_on, key=last_rank.__getitem__)
    if any(_opens_turn(merged[child]) for child in going_on):
        # Going back starts a new turn beside what was there: everything else that went on from here was left behind.
        return {child: REWIND for child in going_on if child != winner and not _is_same_message(merged[child], above)}
    answers = [child for child in going_on if merged[child].role is NodeRole.ASSISTANT]
    answers = [child for child in answers if not _is_same_message(merged[child], above)]
    messages = {merged[child].message_id or child for child in answers}
    if len(messages) < 2:
        return {}
    last = max(answers, key=last_rank.__getitem__)
    drafts = [child for child in answers if child != last and not _is_same_message(merged[child], merged[last])]
    if answered.isdisjoint(drafts) and any(ran.intersection(merged[child].tool_use_ids) for child in drafts):
        return {}  # some programs write all steps of a turn below its prompt
    return dict.fromkeys(drafts, REGENERATED)


def _opens_turn(node: GraphNode) -> bool:
    return node.role in _OPENERS and not node.tool_use_ids


def _goes_on(node: GraphNode, is_answered: bool) -> bool:
    if is_answered or node.role in (NodeRole.ASSISTANT, NodeRole.ROLLBACK):
        return True
    return node.role is NodeRole.PROMPT and not node.tool_use_ids


def _is_same_message(node: GraphNode, above: GraphNode | None) -> bool:
    return above is not None and node.message_id is not None and node.message_id == above.message_id


def _spread(roots: Mapping[str, str], members: list[str], parents: Mapping[str, str | None]) -> dict[str, str]:
    """Return the roots and everything below them inside the session."""
    result: dict[str, str] = {}
    for node_id in members:
        parent = parents[node_id]
        if node_id in roots:
            result[node_id] = roots[node_id]
        elif parent is not None and parent in result:
            result[node_id] = result[parent]
    return result


def add_sub_agents(
    superseded: Mapping[str, str], merged: Mapping[str, GraphNode], spawned_by: Mapping[str, str]
) -> dict[str, str]:
    """Return the abandoned nodes with those of the sub-agents that abandoned calls started, and of theirs."""
    result = dict(superseded)
    callers: defaultdict[str, list[str]] = defaultdict(list)
    conversations: defaultdict[str, list[str]] = defaultdict(list)
    for node_id, node in merged.items():
        if node.role is NodeRole.ASSISTANT:
            for call in node.tool_use_ids:
                callers[call].append(node_id)
        if node.agent_id is not None:
            conversations[node.agent_id].append(node_id)
    waiting = set(conversations) & set(spawned_by)
    while left := {agent for agent in waiting if _are_abandoned(callers[spawned_by[agent]], result)}:
        for agent in left:
            reason = result[callers[spawned_by[agent]][0]]
            result.update(dict.fromkeys(conversations[agent], reason))
        waiting -= left
    return result


def _are_abandoned(node_ids: list[str], superseded: Mapping[str, str]) -> bool:
    return bool(node_ids) and all(node_id in superseded for node_id in node_ids)


def _revive_history_of_forks(
    superseded: dict[str, str],
    merged: Mapping[str, GraphNode],
    parents: Mapping[str, str | None],
    sessions_of: _Sessions,
) -> None:
    """Take back what another session still goes on from: its history is no abandoned branch."""
    for node_id in merged:
        parent = parents[node_id]
        if node_id in superseded or parent is None or sessions_of[parent] & sessions_of[node_id]:
            continue
        while parent is not None and parent in superseded:
            del superseded[parent]
            parent = parents[parent]

"""History that a session copied under new ids: told by what keeps its id (calls, the provider's messages), never by words alone.

The same "ok" said twice is two prompts. A prompt is a copy only where the same words, of the same time, stand above an answer
or a call that is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import xxhash

from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, NodeRole
from toolcall_pipeline.sessions.identity import is_globally_unique

Key = tuple[str, str | None, str, bytes]


def said_key(event: Event) -> Key | None:
    """Return what a copy of a prompt or an answer shares with the first, None where nothing tells it from said again."""
    if event.kind is EventKind.PROMPT:
        origin = event.timestamp
    elif event.kind is EventKind.ASSISTANT_TEXT and event.message_id and is_globally_unique(event.message_id):
        origin = event.message_id
    else:
        return None
    if origin is None:
        return None
    digest = xxhash.xxh3_128_digest((event.text or "").encode("utf-8", "surrogatepass"))
    return event.session_id, event.agent_id, f"{event.kind}:{origin}", digest


def copied_prompts(
    nodes: Iterable[GraphNode], candidates: Sequence[tuple[str, str]], copies: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """Return the prompts' nodes that are copies, with the node of the first.

    Args:
        nodes: Of the family.
        candidates: (node, earlier node) of prompts of one session with the same words and time.
        copies: (node, earlier node) of answers and calls that carry the same id.
    """
    parents: dict[str, str | None] = {}
    prompts: set[str] = set()
    for node in nodes:
        parents.setdefault(node.node_id, node.parent_node_id)
        if node.role is NodeRole.PROMPT:
            prompts.add(node.node_id)
    answered = {
        (_prompt_above(copy, parents, prompts), _prompt_above(first, parents, prompts)) for copy, first in copies
    }
    return {copy: first for copy, first in candidates if (copy, first) in answered}


def with_first_nodes(nodes: Iterable[GraphNode], copied: dict[str, str]) -> list[GraphNode]:
    """Return the nodes with every copied one under the id of the first, also where it is named as a parent."""
    return [
        msgspec.structs.replace(
            node,
            node_id=copied.get(node.node_id, node.node_id),
            parent_node_id=copied.get(node.parent_node_id or "", node.parent_node_id),
        )
        if node.node_id in copied or node.parent_node_id in copied
        else node
        for node in nodes
    ]


def _prompt_above(node_id: str, parents: dict[str, str | None], prompts: set[str]) -> str | None:
    node: str | None = node_id
    seen: set[str] = set()
    while node is not None and node not in prompts and node not in seen:
        seen.add(node)
        node = parents.get(node)
    return node

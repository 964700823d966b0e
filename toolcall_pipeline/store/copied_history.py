"""History that a session, or a fork of it, copied under new ids: told by what keeps its id (calls, the provider's messages), never by words alone.

The same "ok" said twice is two prompts. A prompt is a copy only where the same words, of the same time, stand above an answer
or a call that is one. What earlier nights stored counts as this night's own: of a stored text its redacted words are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import xxhash

from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, NodeRole
from toolcall_pipeline.sessions.identity import is_globally_unique
from toolcall_pipeline.store.rows import content_hash
from toolcall_pipeline.store.stored_nodes import StoredNode

COPIED = "copied"

Origin = tuple[str | None, str]
Key = tuple[Origin, bytes]

# Written out once: to format a member of an enumeration takes longer than all else that is done with a prompt here.
_PROMPT, _ANSWER = f"{EventKind.PROMPT}:", f"{EventKind.ASSISTANT_TEXT}:"


def said_key(event: Event) -> Key | None:
    """Return what a copy of a prompt or an answer shares with the first, None where nothing tells it from said again."""
    if event.kind is EventKind.PROMPT:
        origin = _prompt_origin(event.agent_id, event.timestamp)
    elif event.kind is EventKind.ASSISTANT_TEXT:
        origin = _answer_origin(event.agent_id, event.message_id)
    else:
        return None
    if origin is None:
        return None
    return origin, xxhash.xxh3_128_digest((event.text or "").encode("utf-8", "surrogatepass"))


class StoredHistory:
    """What earlier runs stored of a family, looked up by what a copy shares with it.

    Attributes:
        nodes: Every stored node.
        calls, results: Event id of a call to the first node that makes or answers it.
        copied: Nodes of prompts that are known to be copies, with the node of the first.
    """

    def __init__(self, stored: Sequence[StoredNode]) -> None:
        self._node_ids: set[str] = set()
        self._event_ids: set[str] = set()
        self.calls: dict[str, GraphNode] = {}
        self.results: dict[str, GraphNode] = {}
        self.copied: dict[str, str] = {}
        self.nodes = [item.node for item in stored]
        self._said: defaultdict[Origin, dict[str, tuple[str, GraphNode]]] = defaultdict(dict)
        self._prompts: dict[str, tuple[Origin, str]] = {}
        self._speaking: set[str] = set()
        for item in stored:
            self._add(item)

    def _add(self, item: StoredNode) -> None:
        node = item.node
        self._node_ids.add(node.node_id)
        self._event_ids.update(event_id for event_id, _ in item.said)
        if item.first_node_id is not None:
            self.copied[node.node_id] = item.first_node_id
        by_call = {NodeRole.ASSISTANT: self.calls, NodeRole.TOOL_RESULT: self.results}.get(node.role, {})
        for call_id in node.tool_use_ids:
            by_call.setdefault(call_id, node)
        if node.role is NodeRole.ASSISTANT:
            origin = _answer_origin(node.agent_id, node.message_id)
            if item.said or node.tool_use_ids:
                self._speaking.add(node.node_id)
        else:
            origin = _prompt_origin(node.agent_id, node.timestamp)
        for event_id, words in item.said:
            if origin is not None:
                self._said[origin].setdefault(words, (event_id, node))
                if node.role is NodeRole.PROMPT:
                    self._prompts[node.node_id] = (origin, words)

    def has(self, event: Event) -> bool:
        """Tell whether an event is stored, from the very line that it was read from again or another copy of it."""
        if event.event_id in self._event_ids or event.node_id in self.copied:
            return True
        if event.node_id not in self._node_ids:
            return False
        if event.kind is EventKind.TOOL_CALL:
            return event.event_id in self.calls
        if event.kind is EventKind.TOOL_RESULT:
            return event.event_id.removesuffix(":result") in self.results
        # Sessions of some programs count their lines (`msg-1`): another one's line may have the same id.
        return event.kind not in (EventKind.PROMPT, EventKind.ASSISTANT_TEXT)

    def first_like(self, event: Event, key: Key, redact: Callable[[str, str], str]) -> tuple[str, GraphNode] | None:
        """Return the stored prompt or answer, with its node, that has an event's origin and words."""
        known = self._said.get(key[0], {})
        # A placeholder means something inside its session only.
        for session_id in sorted({node.session_id for _, node in known.values()}):
            found = known.get(content_hash(redact(event.text or "", session_id)))
            if found is not None:
                return found
        return None

    def prompts_found_out(self, pairs: Iterable[tuple[str | None, str | None]], above: _Above) -> dict[str, str]:
        """Return stored prompts that only this night shows to be copies.

        Args:
            pairs: (prompt above a copy, prompt above the first) of this night's copies.
            above: The graph; a prompt that something was answered to of its own stays one.
        """
        suspects = {
            copy: first
            for copy, first in pairs
            if copy is not None and first is not None and copy != first and self._same_words(copy, first)
        }
        answered = {above.prompt(node_id) for node_id in self._speaking} if suspects else set()
        return {copy: first for copy, first in suspects.items() if copy not in answered}

    def _same_words(self, one: str, other: str) -> bool:
        return one in self._prompts and self._prompts[one] == self._prompts.get(other)


class _Above:
    """Walks from a node to the prompt above it."""

    def __init__(self, nodes: Iterable[GraphNode]) -> None:
        self._parents: dict[str, str | None] = {}
        self.prompts: set[str] = set()
        for node in nodes:
            self._parents.setdefault(node.node_id, node.parent_node_id)
            if node.role is NodeRole.PROMPT:
                self.prompts.add(node.node_id)

    def prompt(self, node_id: str) -> str | None:
        node: str | None = node_id
        seen: set[str] = set()
        while node is not None and node not in self.prompts and node not in seen:
            seen.add(node)
            node = self._parents.get(node)
        return node


def copied_prompts(
    nodes: Sequence[GraphNode],
    candidates: Iterable[tuple[str, str]],
    copies: Iterable[tuple[str, str]],
    stored: StoredHistory,
) -> tuple[set[str], dict[str, str]]:
    """Tell which prompts are copies.

    Args:
        nodes: New ones of the family.
        candidates: (node, earlier node) of new prompts with the same origin and words.
        copies: (node, earlier node) of answers, calls and results that carry the same id.
        stored: What earlier runs stored.

    Returns:
        Nodes whose prompt is a copy, and nodes that are nothing but one, stored ones included, with the node of the first.
    """
    copies = set(copies)
    above = _Above(with_first_nodes([*stored.nodes, *nodes], stored.copied))
    answered = {(above.prompt(copy), above.prompt(first)) for copy, first in copies}
    # A text beside a result is a copy with that result, on whose line it stands.
    copied = {copy: first for copy, first in candidates if (copy, first) in answered or (copy, first) in copies}
    renamed = {copy: first for copy, first in copied.items() if copy in above.prompts}
    return set(copied), renamed | stored.prompts_found_out(answered, above)


def with_first_nodes(nodes: Iterable[GraphNode], copied: Mapping[str, str]) -> list[GraphNode]:
    """Return the nodes with every copied one under the id of the first, also where it is named as a parent."""
    return [
        msgspec.structs.replace(
            node,
            node_id=first_of(node.node_id, copied),
            parent_node_id=None if node.parent_node_id is None else first_of(node.parent_node_id, copied),
        )
        if node.node_id in copied or node.parent_node_id in copied
        else node
        for node in nodes
    ]


def first_of(node_id: str, copied: Mapping[str, str]) -> str:
    """Return the node that a node is a copy of, through copies of copies; itself where it is none."""
    seen: set[str] = set()
    while node_id in copied and node_id not in seen:
        seen.add(node_id)
        node_id = copied[node_id]
    return node_id


class Carriers:
    """What the active nodes carry: a stored call or answer counts as long as one node that carries it does."""

    def __init__(self, active: Iterable[GraphNode]) -> None:
        self._calls: set[str] = set()
        self._answers: set[Origin] = set()
        for node in active:
            if node.role is NodeRole.ASSISTANT:
                self._calls.update(node.tool_use_ids)
                origin = _answer_origin(node.agent_id, node.message_id)
                if origin is not None:
                    self._answers.add(origin)

    def carry(self, node: GraphNode) -> bool:
        """Tell whether an abandoned node's calls, or else its message, stand on an active one too."""
        if node.role is not NodeRole.ASSISTANT:
            return False
        if node.tool_use_ids:
            return self._calls.issuperset(node.tool_use_ids)
        return _answer_origin(node.agent_id, node.message_id) in self._answers


def _prompt_origin(agent_id: str | None, timestamp: str | None) -> Origin | None:
    return None if timestamp is None else (agent_id, _PROMPT + timestamp)


def _answer_origin(agent_id: str | None, message_id: str | None) -> Origin | None:
    if message_id is None or not is_globally_unique(message_id):
        return None
    return agent_id, _ANSWER + message_id

"""Lines whose program only counts them (`msg-1`, `u1`): such an id means something inside its session only.

Its session's name goes before it. A copy of a session is told from another session by what the lines hold: a line is the same
where time, role, message, words and the line above it are, and has the id of the first. Real uuids never come here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode
from toolcall_pipeline.store.rows import content_hash
from toolcall_pipeline.store.stored_nodes import StoredNode

_COUNTED_BELOW_CHARACTERS = 20
_SAID = frozenset({EventKind.PROMPT, EventKind.ASSISTANT_TEXT})

# Parent, time, role, message, hashes of the words: the redacted ones where they are compared with what is stored.
_Looks = tuple[str | None, str | None, str, str | None, tuple[str, ...]]


def is_counted(node_id: str) -> bool:
    """Tell whether an id is too short to mean the same in every session."""
    return len(node_id) < _COUNTED_BELOW_CHARACTERS


class CountedIds:
    """The counted ids of a family: which line has which, and under what id it is stored."""

    def __init__(self, stored: Sequence[StoredNode], redact: Callable[[str, str], str]) -> None:
        self._redact = redact
        self._stored: defaultdict[str, dict[_Looks, str]] = defaultdict(dict)
        self._read: defaultdict[str, dict[_Looks, str]] = defaultdict(dict)
        self._in_session: dict[tuple[str, str], str] = {}
        self._in_file: dict[tuple[str, str], str] = {}
        for item in stored:
            counted = item.node.node_id.rpartition(":")[2]
            if is_counted(counted):
                looks = _looks(item.node, item.node.parent_node_id, (words for _, words in item.said))
                self._stored[counted].setdefault(looks, item.node.node_id)
                self._remember(counted, item.node)

    def below(self, node: GraphNode) -> GraphNode:
        """Return a line below the id that the line above it is stored under."""
        above = node.parent_node_id
        return replace(node, parent_node_id=self._above(node)) if above is not None and is_counted(above) else node

    def settle(self, node: GraphNode, events: Sequence[Event]) -> tuple[GraphNode, list[Event]]:
        """Return a line of a counted id, and what is on it, under the id that means it everywhere."""
        counted = node.node_id
        above = self._above(node)
        said = [event for event in events if event.kind in _SAID]
        looks = _looks(node, above, (content_hash(event.text or "") for event in said))
        node_id = self._in_session.get((node.session_id, counted)) or self._read[counted].get(looks)
        if node_id is None and counted in self._stored:
            words = (content_hash(self._redact(event.text or "", event.session_id)) for event in said)
            node_id = self._stored[counted].get(_looks(node, above, words))
        node_id = node_id or f"{node.session_id}:{counted}"
        self._read[counted].setdefault(looks, node_id)
        settled = replace(node, node_id=node_id, parent_node_id=above)
        self._remember(counted, settled)
        return settled, [_on(event, settled, counted) for event in events]

    def _above(self, node: GraphNode) -> str | None:
        above = node.parent_node_id
        if above is None or not is_counted(above):
            return above
        known = self._in_session.get((node.session_id, above)) or self._in_file.get((node.file, above))
        return known or f"{node.session_id}:{above}"

    def _remember(self, counted: str, node: GraphNode) -> None:
        self._in_session.setdefault((node.session_id, counted), node.node_id)
        self._in_file[node.file, counted] = node.node_id


def _looks(node: GraphNode, above: str | None, words: Iterable[str]) -> _Looks:
    return above, node.timestamp, node.role, node.message_id, tuple(sorted(words))


def _on(event: Event, node: GraphNode, counted: str) -> Event:
    event_id = event.event_id
    if event_id == counted or event_id.startswith(f"{counted}#"):
        event_id = node.node_id + event_id.removeprefix(counted)
    return replace(event, event_id=event_id, node_id=node.node_id, parent_node_id=node.parent_node_id)

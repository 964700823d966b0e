"""Claude Code's input queue: prompts typed while the agent was working.

`enqueue` holds the text. `dequeue` gives one to the agent as a turn of its own, normally followed by an ordinary user line.
`remove` puts it beside the next tool results, and older versions write no other line about it. A prompt without a line
exists in the queue's lines only, and the agent's next message answers it. `popAll` gives everything back to the person.
What is left was never delivered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from toolcall_pipeline.sessions.content import blocks_text
from toolcall_pipeline.sessions.decoding import decode_tolerantly
from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, LinePlace, NodeRole, SourceLocation
from toolcall_pipeline.sessions.lines import RawLine
from toolcall_pipeline.sessions.prompts import classify_queued


class _Entry(NamedTuple):
    """A text in the queue; the state of a file keeps everything but the text, which is read again from its place."""

    line: int
    byte_offset: int
    timestamp: str | None
    key: str
    is_typed: bool
    is_told: bool = False


class PromptQueue:
    """The queue over one file."""

    def __init__(self, state: Mapping[str, Any], line_at: Callable[[int], bytes]) -> None:
        self._line_at = line_at
        self._waiting = [_Entry(*entry) for entry in state.get("waiting", [])]
        self._taken = [_Entry(*entry) for entry in state.get("taken", [])]
        self._dequeued: int = state.get("dequeued", 0)
        self._texts: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        """Return what reading on later needs, as JSON without any text."""
        return {
            "waiting": [list(entry) for entry in self._waiting],
            "taken": [list(entry) for entry in self._taken],
            "dequeued": self._dequeued,
        }

    def operate(self, operation: str | None, content: Any, timestamp: str | None, line: RawLine) -> None:
        """Follow one `queue-operation` line."""
        if operation == "enqueue":
            found = classify_queued(blocks_text(content).text)
            entry = _Entry(line.line, line.byte_offset, timestamp, _key(found.text), found.subkind is None)
            self._texts[entry.key] = found.text
            self._waiting.append(entry)
        elif operation == "remove" and self._waiting:
            self._take(self._next_typed() or self._waiting[0])
        elif operation == "dequeue" and self._waiting:
            self._dequeued += 1
        elif operation == "popAll":
            # One line for each entry it gives back; notifications stay in the queue. Older versions name none.
            given_back = _key(classify_queued(blocks_text(content).text).text) if content else None
            self._waiting = [entry for entry in self._waiting if given_back and entry.key != given_back]

    def _next_typed(self) -> _Entry | None:
        return next((entry for entry in self._waiting if entry.is_typed), None)

    def _take(self, entry: _Entry) -> None:
        """Give an entry to the agent; a line of its own may still follow, before the agent's next message."""
        self._waiting.remove(entry)
        if entry.is_typed and not entry.is_told:
            self._taken.append(entry)

    @property
    def has_delivered(self) -> bool:
        """Return whether the agent's next message answers a queued prompt."""
        return bool(self._taken or (self._dequeued and self._next_typed()))

    def seen_as_line(self, text: str) -> None:
        """Note that a text has a line of its own, so that the queue need not tell of it."""
        if not (self._waiting or self._taken):
            return
        key = _key(text)
        taken = next((entry for entry in self._taken if entry.key == key), None)
        waiting = next((entry for entry in self._waiting if entry.key == key and not entry.is_told), None)
        if taken is not None:
            self._taken.remove(taken)
        elif self._dequeued and self._waiting:
            # The line tells which entry was dequeued: restarts and notifications change their order.
            self._dequeued -= 1
            self._waiting.remove(waiting or self._waiting[0])
        elif waiting is not None:
            self._waiting[self._waiting.index(waiting)] = waiting._replace(is_told=True)

    def delivered(self, place: LinePlace) -> list[tuple[GraphNode, Event]]:
        """Return the prompts the agent's next message answers, as a chain above it, and forget them.

        Args:
            place: Where that message stands: what the queue's lines do not record is taken from it.
        """
        if self._dequeued and (entry := self._next_typed()) is not None:
            self._take(entry)
        self._dequeued = 0
        chain: list[tuple[GraphNode, Event]] = []
        parent = place.parent_node_id
        for entry in self._taken:
            node_id = f"queued:{place.session_id}:{entry.timestamp or entry.line}:{entry.key[:8]}"
            own = LinePlace(
                node_id=node_id,
                parent_node_id=parent,
                session_id=place.session_id,
                location=SourceLocation(place.location.file, entry.line, entry.byte_offset),
                timestamp=entry.timestamp,
                cwd=place.cwd,
                git_branch=place.git_branch,
                agent_version=place.agent_version,
            )
            event = own.event(node_id, EventKind.PROMPT, text=self._text(entry), subkind="queued")
            chain.append((own.node(NodeRole.PROMPT), event))
            parent = node_id
        self._taken.clear()
        return chain

    def _text(self, entry: _Entry) -> str:
        if entry.key not in self._texts:
            for value in decode_tolerantly(self._line_at(entry.byte_offset)).objects:
                text = classify_queued(blocks_text(value.get("content")).text).text
                self._texts[_key(text)] = text
        return self._texts.get(entry.key, "")


def _key(text: str) -> str:
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

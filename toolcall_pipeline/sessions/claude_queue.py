"""Claude Code's input queue: prompts typed while the agent was working.

`enqueue` holds the text. `dequeue` is followed by an ordinary user line. `remove` means that the text was put beside the
next tool results, and older versions write no other line about it: such a prompt exists in the queue's lines only, and
the agent's next message answers it. `popAll` gives everything back to the person. What is left was never delivered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolcall_pipeline.sessions.content import blocks_text
from toolcall_pipeline.sessions.decoding import decode_tolerantly
from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, LinePlace, NodeRole, SourceLocation
from toolcall_pipeline.sessions.lines import RawLine
from toolcall_pipeline.sessions.prompts import classify_queued

_SEEN_ENTRIES = 16


@dataclass(frozen=True, slots=True)
class _Entry:
    """A text in the queue; the state of a file keeps everything but the text, which is read again from its place."""

    line: int
    byte_offset: int
    timestamp: str | None
    key: str
    is_typed: bool


class PromptQueue:
    """The queue over one file."""

    def __init__(self, state: Mapping[str, Any], line_at: Callable[[int], bytes]) -> None:
        self._line_at = line_at
        self._waiting = [_Entry(*entry) for entry in state.get("waiting", [])]
        self._taken = [_Entry(*entry) for entry in state.get("taken", [])]
        self._seen: list[str] = list(state.get("seen", []))
        self._texts: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        """Return what reading on later needs, as JSON without any text."""
        return {
            "waiting": [_fields(entry) for entry in self._waiting],
            "taken": [_fields(entry) for entry in self._taken],
            "seen": self._seen,
        }

    def operate(self, operation: str | None, content: Any, timestamp: str | None, line: RawLine) -> None:
        """Follow one `queue-operation` line."""
        if operation == "enqueue":
            found = classify_queued(blocks_text(content).text)
            entry = _Entry(line.line, line.byte_offset, timestamp, _key(found.text), found.subkind is None)
            self._texts[entry.key] = found.text
            self._waiting.append(entry)
        elif operation == "remove" and self._waiting:
            entry = next((entry for entry in self._waiting if entry.is_typed), self._waiting[0])
            self._waiting.remove(entry)
            if entry.is_typed and entry.key not in self._seen:
                self._taken.append(entry)
        elif operation == "dequeue" and self._waiting:
            self._waiting.pop(0)
        elif operation == "popAll":
            self._waiting.clear()

    @property
    def has_delivered(self) -> bool:
        """Return whether the agent's next message answers a queued prompt."""
        return bool(self._taken)

    def seen_as_line(self, text: str) -> None:
        """Note that a text has a line of its own, so that the queue need not tell of it."""
        if not (self._waiting or self._taken):
            return
        key = _key(text.strip())
        self._waiting = [entry for entry in self._waiting if entry.key != key]
        self._taken = [entry for entry in self._taken if entry.key != key]
        self._seen = [*self._seen, key][-_SEEN_ENTRIES:]

    def delivered(self, place: LinePlace) -> list[tuple[GraphNode, Event]]:
        """Return the prompts the agent's next message answers, as a chain above it, and forget them.

        Args:
            place: Where that message stands: what the queue's lines do not record is taken from it.
        """
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


def _fields(entry: _Entry) -> list[Any]:
    return [entry.line, entry.byte_offset, entry.timestamp, entry.key, entry.is_typed]


def _key(text: str) -> str:
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

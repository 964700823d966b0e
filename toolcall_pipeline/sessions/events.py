"""The events every agent format is read into: the contract between readers and everything behind them.

A reader (`claude_code.py`, `codex.py`) is the only place that knows a format. It yields graph nodes, each with the
events that sit on it. Which nodes are on the active branch is decided per session in `graph.py`, over all files that
carry the session.

They are msgspec structs and no dataclasses: making the frozen dataclasses took longer than parsing the lines.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class EventKind(StrEnum):
    """What an event is. Only PROMPT was typed by a person (with `agent_id` set: the task the main agent wrote)."""

    PROMPT = "prompt"
    ASSISTANT_TEXT = "assistant_text"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    INTERRUPTION = "interruption"
    COMPACTION = "compaction"
    OTHER = "other"

    # An enumeration hashes by a function of its own in Python, and kinds are looked up for every event.
    __hash__ = str.__hash__


class SourceLocation(msgspec.Struct, frozen=True, gc=False):
    """Where an event stands: file (relative to the sessions root), line from 1, byte offset of the line's start."""

    file: str
    line: int
    byte_offset: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened in a session, before redaction.

    Attributes:
        event_id: The event's own identity, the same however many files carry it: the tool_use id for calls, that id
            plus `:result` for results, the message uuid (plus `#n` for the n-th text block) for prompts and texts;
            position only where an agent has no ids.
        kind: What it is.
        node_id: The graph node it sits on (Claude Code: the line's uuid).
        parent_node_id: The node above it, None at a root.
        session_id: The session the line says it belongs to.
        agent_id: The sub-agent that did it, None in the main conversation.
        spawned_by_tool_use_id: For a sub-agent's events, the call that started it, where known.
        message_id: The assistant message it is part of (several lines share one), None otherwise.
        location: File, line, offset.
        timestamp: ISO 8601 as recorded, or None.
        text: Prompt, answer or summary text; for results the result as text. None for calls.
        subkind: The reader's finer class (`slash_command`, `local_command_output`, `meta`, `reminder`, ...).
        tool_use_id, tool_name, tool_input: For calls (and `tool_use_id` for results).
        is_error: For results: what the session said; None where it said nothing.
        is_rejected: For results: the user refused the call.
        has_image: An image was part of it.
        cwd, git_branch, agent_version, model: As the line recorded them.
        offered_tools: Tool definitions or names where the session records what the agent was offered.
        started_agent_id: For results: the sub-agent its call started.
    """

    event_id: str
    kind: EventKind
    node_id: str
    parent_node_id: str | None
    session_id: str
    location: SourceLocation
    agent_id: str | None = None
    spawned_by_tool_use_id: str | None = None
    message_id: str | None = None
    timestamp: str | None = None
    text: str | None = None
    subkind: str | None = None
    tool_use_id: str | None = None
    tool_name: str | None = None
    tool_input: Any = None
    is_error: bool | None = None
    is_rejected: bool = False
    has_image: bool = False
    cwd: str | None = None
    git_branch: str | None = None
    agent_version: str | None = None
    model: str | None = None
    offered_tools: tuple[Any, ...] = ()
    started_agent_id: str | None = None


class NodeRole(StrEnum):
    """What a graph node does to the shape of the conversation."""

    PROMPT = "prompt"
    TRIGGER = "trigger"
    ASSISTANT = "assistant"
    TOOL_RESULT = "tool_result"
    COMPACTION = "compaction"
    ROLLBACK = "rollback"
    PASSIVE = "passive"


class GraphNode(msgspec.Struct, frozen=True, gc=False):
    """One vertex of a session's event graph, without any text: what a later night needs of this one.

    Attributes:
        node_id: The line's own identity (Claude Code: uuid).
        parent_node_id: The node above it; behind a compaction boundary the node the conversation continues from.
        session_id: The session the line says it belongs to.
        role: PROMPT and TRIGGER start a turn; nobody typed a TRIGGER as a prompt (slash command, notification). ROLLBACK
            says that the person went back to the node above it. PASSIVE nodes (progress, system, attachments) only
            carry edges.
        file, line: Where it stands.
        timestamp: ISO 8601 as recorded, or None.
        message_id: The assistant message it is a part of.
        agent_id: The sub-agent whose conversation it belongs to.
        spawned_by_tool_use_id: The call that started that sub-agent, where the line says so.
        started_agent_id: For results: the sub-agent the answered call started.
        tool_use_ids: Event ids of the calls made (ASSISTANT) or answered (TOOL_RESULT) here.
    """

    node_id: str
    parent_node_id: str | None
    session_id: str
    role: NodeRole
    file: str
    line: int
    timestamp: str | None = None
    message_id: str | None = None
    agent_id: str | None = None
    spawned_by_tool_use_id: str | None = None
    started_agent_id: str | None = None
    tool_use_ids: tuple[str, ...] = ()


class LinePlace(msgspec.Struct, frozen=True, gc=False):
    """Where a line stands, in its file and in the graph: what its node and its events share.

    Attributes: as in `Event`.
    """

    node_id: str
    parent_node_id: str | None
    session_id: str
    location: SourceLocation
    agent_id: str | None = None
    spawned_by_tool_use_id: str | None = None
    message_id: str | None = None
    timestamp: str | None = None
    cwd: str | None = None
    git_branch: str | None = None
    agent_version: str | None = None
    model: str | None = None

    def node(
        self, role: NodeRole, tool_use_ids: tuple[str, ...] = (), started_agent_id: str | None = None
    ) -> GraphNode:
        """Return the line's graph node."""
        return GraphNode(
            self.node_id,
            self.parent_node_id,
            self.session_id,
            role,
            self.location.file,
            self.location.line,
            self.timestamp,
            self.message_id,
            self.agent_id,
            self.spawned_by_tool_use_id,
            started_agent_id,
            tool_use_ids,
        )

    def event(
        self,
        event_id: str,
        kind: EventKind,
        *,
        text: str | None = None,
        subkind: str | None = None,
        tool_use_id: str | None = None,
        tool_name: str | None = None,
        tool_input: Any = None,
        is_error: bool | None = None,
        is_rejected: bool = False,
        has_image: bool = False,
        offered_tools: tuple[Any, ...] = (),
        started_agent_id: str | None = None,
    ) -> Event:
        """Return an event that sits on the line's node."""
        # By position: by name it took three times as long, a twentieth of the whole reading.
        return Event(
            event_id,
            kind,
            self.node_id,
            self.parent_node_id,
            self.session_id,
            self.location,
            self.agent_id,
            self.spawned_by_tool_use_id,
            self.message_id,
            self.timestamp,
            text,
            subkind,
            tool_use_id,
            tool_name,
            tool_input,
            is_error,
            is_rejected,
            has_image,
            self.cwd,
            self.git_branch,
            self.agent_version,
            self.model,
            offered_tools,
            started_agent_id,
        )


class MalformedLine(msgspec.Struct, frozen=True, gc=False):
    """A line, or part of one, that could not be read: quarantined and counted, never silently lost."""

    location: SourceLocation
    reason: str
    length_bytes: int

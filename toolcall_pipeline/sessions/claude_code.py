"""Claude Code transcripts (`~/.claude/projects/**/*.jsonl`) to graph nodes and events.

A line with a `uuid` is a node; `parentUuid` (behind a compaction `logicalParentUuid`) is its parent. What occurs in real
files, and the rules for what a person typed: docs/reference/sessions.md. Which branch is active is not decided here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from msgspec.structs import replace

from toolcall_pipeline.sessions.claude_header import Block, Header, content_text, decode_line, line_of
from toolcall_pipeline.sessions.claude_message import assistant_events, result_event, unreal_subkind, user_text
from toolcall_pipeline.sessions.claude_queue import PromptQueue
from toolcall_pipeline.sessions.content import NO_TEXT, blocks_text
from toolcall_pipeline.sessions.decoding import as_dict, as_list, as_text, decode_tolerantly
from toolcall_pipeline.sessions.events import (
    Event,
    EventKind,
    GraphNode,
    LinePlace,
    MalformedLine,
    NodeRole,
    SourceLocation,
)
from toolcall_pipeline.sessions.identity import call_event_id, positional_id
from toolcall_pipeline.sessions.lines import RawLine
from toolcall_pipeline.sessions.prompts import classify

NAME = "claude_code"
Record = GraphNode | Event | MalformedLine

# Members of an enumeration are looked up through its metaclass; these are wanted for every line.
_PASSIVE, _ASSISTANT, _TOOL_RESULT = NodeRole.PASSIVE, NodeRole.ASSISTANT, NodeRole.TOOL_RESULT
_AGENT_FILE = re.compile(r"agent-(.+)")
_LINE_TYPES = frozenset(
    {"user", "assistant", "system", "progress", "attachment", "summary", "file-history-snapshot", "queue-operation"}
)
# How much a later night needs of this one: chains and calls that may still go on. A number, so that the state of a file
# does not grow with the file.
_STATE_ENTRIES = 64


def looks_like(value: dict[str, Any]) -> bool:
    """Tell whether a JSON object is a line of this format."""
    if as_text(value.get("type")) not in _LINE_TYPES and not isinstance(value.get("uuid"), str):
        return False
    if value.get("type") == "summary":
        return "leafUuid" in value
    return "sessionId" in value or "parentUuid" in value or "snapshot" in value


class Parser:
    """The reader's state over one file; `parse` is called line by line, in order."""

    def __init__(
        self, relative_path: str, shown_path: str, state: Mapping[str, Any], line_at: Callable[[int], bytes]
    ) -> None:
        self._file = shown_path
        stem = PurePosixPath(relative_path).stem
        match = _AGENT_FILE.fullmatch(stem)
        self._file_agent = match[1] if match else None
        self._fallback_session = stem
        self._last_node: str | None = state.get("last_node")
        self._last_session: str | None = state.get("last_session")
        self._last_spoken: str | None = state.get("last_spoken")
        self._last_message: str | None = state.get("last_message")
        self._names_parents: bool = state.get("names_parents", False)
        self._known: dict[str, None] = dict.fromkeys(state.get("known", []))
        self._sidechains: dict[str, str] = dict(state.get("sidechains", {}))
        self._nested_tails: dict[str, str] = dict(state.get("nested_tails", {}))
        self._task_calls: dict[str, str] = dict(state.get("task_calls", {}))
        self._queue = PromptQueue(state.get("queue", {}), line_at)

    def state(self) -> dict[str, Any]:
        """Return what reading on later needs, as JSON without any text."""
        return {
            "last_node": self._last_node,
            "last_session": self._last_session,
            "last_spoken": self._last_spoken,
            "last_message": self._last_message,
            "names_parents": self._names_parents,
            "known": list(self._known)[-_STATE_ENTRIES:],
            "sidechains": _newest(self._sidechains),
            "nested_tails": _newest(self._nested_tails),
            "task_calls": _newest(self._task_calls),
            "queue": self._queue.state(),
        }

    def parse(self, line: RawLine) -> list[Record]:
        """Return the nodes and events of a line, each node before its events; never raises on content."""
        try:
            header, nested = decode_line(line)
        except (ValueError, RecursionError):  # any decoder's refusal: the careful way says what it is
            pass
        else:
            return self._records(header, nested, line, 0)
        decoded = decode_tolerantly(line.content)
        records: list[Record] = []
        for ordinal, value in enumerate(decoded.objects):
            records.extend(self._records(*line_of(value), line, ordinal))
        location = SourceLocation(self._file, line.line, line.byte_offset)
        records.extend(MalformedLine(location, reason, length) for reason, length in decoded.problems)
        return records

    def _records(self, header: Header, nested: Header | None, line: RawLine, ordinal: int) -> list[Record]:
        kind = header.type
        if kind == "assistant" or kind == "user":
            return self._message(header, line, ordinal)
        if kind == "progress":
            return self._progress(header, nested, line)
        if kind == "queue-operation":
            self._queue.operate(header.operation, header.content, header.timestamp, line)
            return []
        if kind == "attachment":
            return self._attachment(header, line)
        if kind == "system":
            return self._system(header, line)
        return [self._passive(header, line)] if header.uuid else []

    def _session(self, header: Header) -> str:
        return header.session_id or self._fallback_session

    def _continued(self, named: str | None, agent: str | None) -> str | None:
        """Return what a compaction goes on from: the node it names, or the last one where no line holds that.

        A compaction always goes on with the conversation it summarises, but 25 of 83 boundaries in the shared corpus name a
        node that was never written, and older versions name none.
        """
        if agent is not None or named in self._known or self._last_spoken is None:
            return named
        return self._last_spoken

    def _agent(self, header: Header) -> str | None:
        """Return the sub-agent a line belongs to; remembers inline side chains, which name none."""
        agent = header.agent_id or self._file_agent
        if agent is None and header.is_sidechain:
            agent = self._sidechains.get(header.parent or "") or f"side-{header.uuid or self._last_node}"
            if header.uuid:
                self._sidechains[header.uuid] = agent
        return agent

    def _parent(self, header: Header, agent: str | None) -> str | None:
        """Return the node a line hangs below.

        Files of tools that know no graph are lists: there, and where a line has no `parentUuid` or `uuid` at all, it goes on
        from the line before. A null in a file whose lines name parents is a root.
        """
        parent = header.parent
        if parent is not None:
            self._names_parents = True
            return parent
        is_root = self._names_parents and header.parent_uuid is None and header.uuid is not None
        is_other = agent is not None or self._last_session != self._session(header)
        return None if is_root or is_other else self._last_node

    def _place(self, header: Header, line: RawLine, *, ordinal: int = 0, spawned_by: str | None = None) -> LinePlace:
        """Return where a line, or the object with some ordinal on it, stands."""
        session = header.session_id or self._fallback_session
        message = header.message if header.type == "assistant" else None
        agent = self._agent(header)
        return LinePlace(
            header.uuid or positional_id(session, line.line, ordinal),
            self._parent(header, agent),
            session,
            SourceLocation(self._file, line.line, line.byte_offset),
            agent,
            spawned_by,
            message.id if message is not None else None,
            header.timestamp,
            header.cwd,
            header.git_branch,
            header.version,
            message.model if message is not None else None,
        )

    def _node(
        self,
        place: LinePlace,
        role: NodeRole,
        tool_use_ids: tuple[str, ...] = (),
        started_agent_id: str | None = None,
    ) -> GraphNode:
        """Return a line's node, remembering it where it is the main conversation's."""
        if place.agent_id is None:
            self._last_node, self._last_session = place.node_id, place.session_id
            self._known[place.node_id] = None
            if role is not _PASSIVE:
                self._last_spoken = place.node_id
        return place.node(role, tool_use_ids, started_agent_id)

    def _passive(self, header: Header, line: RawLine) -> GraphNode:
        """Return the node of a line that only carries an edge; a third of all lines, so without a place of its own."""
        session = header.session_id or self._fallback_session
        agent = self._agent(header)
        parent = self._parent(header, agent)
        node_id = header.uuid or positional_id(session, line.line)
        if agent is None:
            self._last_node, self._last_session = node_id, session
            self._known[node_id] = None
        return GraphNode(node_id, parent, session, _PASSIVE, self._file, line.line, header.timestamp, None, agent)

    def _message(self, header: Header, line: RawLine, ordinal: int) -> list[Record]:
        place = self._place(header, line, ordinal=ordinal)
        if place.parent_node_id is None and (header.is_compact_summary or header.plan_content is not None):
            # A summary, or a plan that the person took into an empty context: the conversation goes on.
            place = replace(place, parent_node_id=self._continued(None, place.agent_id))
        return self._assistant(header, place) if header.type == "assistant" else self._user(header, place)

    def _assistant(self, header: Header, place: LinePlace) -> list[Record]:
        records: list[Record] = []
        if place.agent_id is None:
            is_next = place.message_id is None or place.message_id != self._last_message
            self._last_message = place.message_id
            if is_next and self._queue.has_delivered:
                place, records = self._after_queue(place)
        unreal = unreal_subkind(header, place.model)
        events = assistant_events(header.message.blocks if header.message else (), place, unreal)
        calls: list[str] = []
        for event in events:
            if isinstance(event, Event) and event.tool_use_id is not None:
                calls.append(event.event_id)
                if isinstance(event.tool_input, dict) and isinstance(event.tool_input.get("prompt"), str):
                    self._task_calls[_text_key(event.tool_input["prompt"])] = event.event_id
        records.append(self._node(place, _PASSIVE if unreal else _ASSISTANT, tuple(calls)))
        records.extend(events)
        return records

    def _after_queue(self, place: LinePlace) -> tuple[LinePlace, list[Record]]:
        """Return the place of an assistant message below the queued prompts it answers, and these."""
        records: list[Record] = []
        for node, event in self._queue.delivered(place):
            records += [node, event]
            place = replace(place, parent_node_id=node.node_id)
        return place, records

    def _user(self, header: Header, place: LinePlace) -> list[Record]:
        content = header.message.content if header.message else None
        blocks = content if isinstance(content, list) else []
        results = [block for block in blocks if _is_result(block)]
        said = [block for block in blocks if not _is_result(block)] if results else content
        typed = content_text(said) if said else NO_TEXT
        if place.agent_id is not None and place.spawned_by_tool_use_id is None and typed.text:
            place = replace(place, spawned_by_tool_use_id=self._task_calls.get(_text_key(typed.text)))
        started = header.started_agent if results else None
        events = [result_event(block, place, started) for block in results]
        calls = tuple([event.event_id.removesuffix(":result") for event in events])
        role = _TOOL_RESULT if results else _PASSIVE
        if typed.text or typed.has_image:
            is_agent = place.agent_id is not None
            found = user_text(header, typed, is_agent=is_agent, has_results=bool(results))
            role = found.role if found.role is not _PASSIVE else role
            if not is_agent and found.subkind != "beside_result":
                self._queue.seen_as_line(found.text)
            events.append(
                place.event(
                    place.node_id, found.kind, text=found.text, subkind=found.subkind, has_image=typed.has_image
                )
            )
        return [self._node(place, role, calls, started), *events]

    def _progress(self, header: Header, nested: Header | None, line: RawLine) -> list[Record]:
        """Return the carrier node of a progress line, and the sub-agent's message where one is nested in it."""
        records: list[Record] = []
        if nested is not None and header.data is not None and header.data.agent_id:
            records = self._nested(header, header.data.agent_id, nested, line)
        if header.uuid:
            records.insert(0, self._passive(header, line))
        return records

    def _nested(self, carrier: Header, agent: str, inner: Header, line: RawLine) -> list[Record]:
        """Return a sub-agent's message; what it does not say of itself is what its carrier says."""
        inner.session_id, inner.cwd, inner.agent_id = carrier.session_id, carrier.cwd, agent
        inner.git_branch, inner.version = carrier.git_branch, carrier.version
        inner.parent_uuid = self._nested_tails.get(agent)
        if inner.type not in ("user", "assistant") or inner.uuid is None or inner.parent == inner.uuid:
            return []
        self._nested_tails[agent] = inner.uuid
        spawned_by = carrier.parent_tool_use_i_d
        spawned_by = call_event_id(spawned_by, self._session(carrier)) if spawned_by else None
        place = self._place(inner, line, spawned_by=spawned_by)
        return self._assistant(inner, place) if inner.type == "assistant" else self._user(inner, place)

    def _attachment(self, header: Header, line: RawLine) -> list[Record]:
        attachment = as_dict(header.attachment)
        kind = attachment.get("type")
        if kind == "queued_command" and attachment.get("prompt"):
            return self._queued_command(header, attachment, line)
        if not header.uuid:
            return []
        names = as_list(attachment.get("addedNames")) if kind == "deferred_tools_delta" else []
        return self._offer(self._place(header, line), names)

    def _queued_command(self, header: Header, attachment: dict[str, Any], line: RawLine) -> list[Record]:
        """Return what waited in the queue and was put beside the agent's next results, with a line of its own."""
        typed = blocks_text(attachment["prompt"])
        found = classify(typed.text)
        is_human = as_dict(attachment.get("origin")).get("kind", "human") == "human"
        is_prompt = found.subkind is None and is_human and not attachment.get("isMeta") and not header.is_meta
        is_prompt = is_prompt and attachment.get("commandMode", "prompt") == "prompt"
        self._queue.seen_as_line(found.text if found.subkind is None else typed.text)
        place = self._place(header, line)
        event = place.event(
            place.node_id,
            EventKind.PROMPT if is_prompt else EventKind.OTHER,
            text=found.text if is_prompt else typed.text,
            subkind="queued" if is_prompt else found.subkind or "queued_command",
            has_image=typed.has_image,
        )
        return [self._node(place, NodeRole.PROMPT if is_prompt else _PASSIVE), event]

    def _system(self, header: Header, line: RawLine) -> list[Record]:
        if not header.uuid and header.subtype != "init":
            return []
        if header.subtype == "compact_boundary":
            named = header.logical_parent_uuid or header.parent
            place = self._place(header, line)
            place = replace(place, parent_node_id=self._continued(named, place.agent_id))
            return [
                self._node(place, NodeRole.COMPACTION),
                place.event(place.node_id, EventKind.COMPACTION, subkind="boundary"),
            ]
        return self._offer(self._place(header, line), as_list(header.tools) if header.subtype == "init" else [])

    def _offer(self, place: LinePlace, names: list[Any]) -> list[Record]:
        """Return a passive node, with the tools its line says the agent has."""
        node = self._node(place, _PASSIVE)
        if not names:
            return [node]
        offered = tuple(name for name in names if isinstance(name, str))
        return [node, place.event(place.node_id, EventKind.OTHER, subkind="offered_tools", offered_tools=offered)]


def _is_result(block: Block | str) -> TypeGuard[Block]:
    return not isinstance(block, str) and block.type == "tool_result"


def _text_key(text: str) -> str:
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _newest(entries: dict[str, str]) -> dict[str, str]:
    return dict(list(entries.items())[-_STATE_ENTRIES:])

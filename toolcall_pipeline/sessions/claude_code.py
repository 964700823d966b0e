"""Claude Code transcripts (`~/.claude/projects/**/*.jsonl`) to graph nodes and events.

A line with a `uuid` is a node; `parentUuid` (behind a compaction `logicalParentUuid`) is its parent. What occurs in real
files, and the rules for what a person typed: docs/reference/sessions.md. Which branch is active is not decided here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from toolcall_pipeline.sessions.claude_header import (
    HEADER_DECODER,
    PROGRESS_DECODER,
    Header,
    ProgressData,
    header_of,
    progress_of,
    started_agent,
)
from toolcall_pipeline.sessions.claude_queue import PromptQueue
from toolcall_pipeline.sessions.content import BlockText, blocks_text, is_rejection, is_too_deep
from toolcall_pipeline.sessions.decoding import (
    MAX_DEPTH,
    as_dict,
    as_list,
    as_text,
    decode_tolerantly,
    needs_care,
    payload,
)
from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, MalformedLine, NodeRole, SourceLocation
from toolcall_pipeline.sessions.identity import call_event_id, positional_id, result_event_id
from toolcall_pipeline.sessions.lines import RawLine
from toolcall_pipeline.sessions.prompts import classify, starts_turn

NAME = "claude_code"
Record = GraphNode | Event | MalformedLine

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

    def __init__(self, relative_path: str, state: Mapping[str, Any], line_at: Callable[[int], bytes]) -> None:
        self._file = relative_path
        stem = PurePosixPath(relative_path).stem
        match = _AGENT_FILE.fullmatch(stem)
        self._file_agent = match[1] if match else None
        self._fallback_session = stem
        self._last_node: str | None = state.get("last_node")
        self._last_spoken: str | None = state.get("last_spoken")
        self._last_message: str | None = state.get("last_message")
        self._known: dict[str, None] = dict.fromkeys(state.get("known", []))
        self._sidechains: dict[str, str] = dict(state.get("sidechains", {}))
        self._nested_tails: dict[str, str] = dict(state.get("nested_tails", {}))
        self._task_calls: dict[str, str] = dict(state.get("task_calls", {}))
        self._queue = PromptQueue(state.get("queue", {}), line_at)

    def state(self) -> dict[str, Any]:
        """Return what reading on later needs, as JSON without any text."""
        return {
            "last_node": self._last_node,
            "last_spoken": self._last_spoken,
            "last_message": self._last_message,
            "known": list(self._known)[-_STATE_ENTRIES:],
            "sidechains": _newest(self._sidechains),
            "nested_tails": _newest(self._nested_tails),
            "task_calls": _newest(self._task_calls),
            "queue": self._queue.state(),
        }

    def parse(self, line: RawLine) -> list[Record]:
        """Return the nodes and events of a line, each node before its events; never raises on content."""
        if not needs_care(line.content):
            try:
                return self._records(HEADER_DECODER.decode(line.content), line, 0)
            except (ValueError, RecursionError):  # any decoder's refusal: the careful way says what it is
                pass
        decoded = decode_tolerantly(line.content)
        records: list[Record] = []
        for ordinal, value in enumerate(decoded.objects):
            records.extend(self._records(header_of(value), line, ordinal))
        location = SourceLocation(self._file, line.line, line.byte_offset)
        records.extend(MalformedLine(location, reason, length) for reason, length in decoded.problems)
        return records

    def _records(self, header: Header, line: RawLine, ordinal: int) -> list[Record]:
        kind = header.type
        if kind == "assistant" or kind == "user":
            message = as_dict(payload(header.message)) if header.message else {}
            return self._message(header, message, line, ordinal)
        if kind == "progress":
            return self._progress(header, line)
        if kind == "queue-operation":
            self._queue.operate(header.operation, header.content, header.timestamp, line)
            return []
        if kind == "attachment":
            return self._attachment(header, line)
        if kind == "system":
            return self._system(header, line)
        return [self._node(header, line, NodeRole.PASSIVE)] if header.uuid else []

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
            agent = self._sidechains.get(header.parent_uuid or "") or f"side-{header.uuid or self._last_node}"
            if header.uuid:
                self._sidechains[header.uuid] = agent
        return agent

    def _node(
        self,
        header: Header,
        line: RawLine,
        role: NodeRole,
        *,
        node_id: str | None = None,
        parent: str | None = None,
        agent: str | None = None,
        **extra: Any,
    ) -> GraphNode:
        node = GraphNode(
            node_id=node_id or header.uuid or positional_id(self._session(header), line.line),
            parent_node_id=parent if parent is not None else header.parent_uuid,
            session_id=self._session(header),
            role=role,
            file=self._file,
            line=line.line,
            timestamp=header.timestamp,
            agent_id=agent or self._agent(header),
            **extra,
        )
        if node.agent_id is None:
            self._last_node = node.node_id
            self._known[node.node_id] = None
            if role is not NodeRole.PASSIVE:
                self._last_spoken = node.node_id
        return node

    def _message(self, header: Header, message: dict[str, Any], line: RawLine, ordinal: int) -> list[Record]:
        node_id = header.uuid or positional_id(self._session(header), line.line, ordinal)
        parent = header.parent_uuid if header.uuid else header.parent_uuid or self._last_node
        if header.is_compact_summary and parent is None:
            parent = self._continued(None, self._agent(header))
        if header.type == "assistant":
            return self._assistant(header, message, line, node_id, parent, self._agent(header), None)
        return self._user(header, message, line, node_id, parent, self._agent(header), None)

    def _assistant(
        self,
        header: Header,
        message: dict[str, Any],
        line: RawLine,
        node_id: str,
        parent: str | None,
        agent: str | None,
        spawned_by: str | None,
    ) -> list[Record]:
        session = self._session(header)
        message_id, model = as_text(message.get("id")), as_text(message.get("model"))
        records: list[Record] = []
        if agent is None:
            if self._queue.has_delivered and (message_id is None or message_id != self._last_message):
                surroundings = {
                    "cwd": header.cwd,
                    "git_branch": header.git_branch,
                    "agent_version": header.version,
                }
                for queued in self._queue.delivered(session, self._file, parent, surroundings):
                    records.extend(queued)
                    parent = queued[0].node_id
            self._last_message = message_id
        location = SourceLocation(self._file, line.line, line.byte_offset)
        common = {
            "node_id": node_id,
            "parent_node_id": parent,
            "session_id": session,
            "location": location,
            "agent_id": agent,
            "spawned_by_tool_use_id": spawned_by,
            "message_id": message_id,
            "timestamp": header.timestamp,
            "cwd": header.cwd,
            "git_branch": header.git_branch,
            "agent_version": header.version,
            "model": model,
        }
        unreal = "api_error" if header.is_api_error_message else "synthetic" if model == "<synthetic>" else None
        events, calls = self._assistant_events(message.get("content"), common, unreal)
        records.append(
            self._node(
                header,
                line,
                NodeRole.PASSIVE if unreal else NodeRole.ASSISTANT,
                node_id=node_id,
                parent=parent,
                agent=agent,
                message_id=message_id,
                spawned_by_tool_use_id=spawned_by,
                tool_use_ids=tuple(calls),
            )
        )
        records.extend(events)
        return records

    def _assistant_events(
        self, content: Any, common: dict[str, Any], unreal: str | None
    ) -> tuple[list[Record], list[str]]:
        events: list[Record] = []
        calls: list[str] = []
        text_count = 0
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else as_list(content):
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "text" and isinstance(block.get("text"), str) and block["text"].strip():
                events.append(
                    Event(
                        event_id=f"{common['node_id']}#{text_count}",
                        kind=EventKind.OTHER if unreal else EventKind.ASSISTANT_TEXT,
                        text=block["text"],
                        subkind=unreal,
                        **common,
                    )
                )
                text_count += 1
            elif kind == "tool_use":
                events.append(self._call(block, len(calls), common))
                if isinstance(events[-1], Event):
                    calls.append(events[-1].event_id)
        return events, calls

    def _call(self, block: dict[str, Any], index: int, common: dict[str, Any]) -> Event | MalformedLine:
        tool_use_id = as_text(block.get("id")) or f"{common['node_id']}.{index}"
        tool_input = block.get("input")
        if is_too_deep(tool_input, MAX_DEPTH):
            return MalformedLine(common["location"], f"tool input nested deeper than {MAX_DEPTH} levels", 0)
        event_id = call_event_id(tool_use_id, common["session_id"])
        if isinstance(tool_input, dict) and isinstance(tool_input.get("prompt"), str):
            self._task_calls[_text_key(tool_input["prompt"])] = event_id
        return Event(
            event_id=event_id,
            kind=EventKind.TOOL_CALL,
            tool_use_id=tool_use_id,
            tool_name=as_text(block.get("name")) or "",
            tool_input=tool_input,
            **common,
        )

    def _user(
        self,
        header: Header,
        message: dict[str, Any],
        line: RawLine,
        node_id: str,
        parent: str | None,
        agent: str | None,
        spawned_by: str | None,
    ) -> list[Record]:
        content = message.get("content")
        blocks = as_list(content)
        results = [block for block in blocks if isinstance(block, dict) and block.get("type") == "tool_result"]
        rest = [block for block in blocks if block not in results] if results else content
        typed = blocks_text(rest) if isinstance(rest, str | list | dict) else BlockText("", False)
        if agent is not None and spawned_by is None and typed.text:
            spawned_by = self._task_calls.get(_text_key(typed.text))
        common = {
            "node_id": node_id,
            "parent_node_id": parent,
            "session_id": self._session(header),
            "location": SourceLocation(self._file, line.line, line.byte_offset),
            "agent_id": agent,
            "spawned_by_tool_use_id": spawned_by,
            "timestamp": header.timestamp,
            "cwd": header.cwd,
            "git_branch": header.git_branch,
            "agent_version": header.version,
        }
        started = started_agent(header) if results else None
        events: list[Record] = [_result(block, common, started) for block in results]
        calls = tuple(event.event_id.removesuffix(":result") for event in events if isinstance(event, Event))
        role = NodeRole.TOOL_RESULT if results else NodeRole.PASSIVE
        if typed.text or typed.has_image:
            text_role, event = self._typed(header, typed, common, has_results=bool(results))
            role = text_role if text_role is not NodeRole.PASSIVE else role
            events.append(event)
        node = self._node(
            header,
            line,
            role,
            node_id=node_id,
            parent=parent,
            agent=agent,
            spawned_by_tool_use_id=spawned_by,
            started_agent_id=started,
            tool_use_ids=calls,
        )
        return [node, *events]

    def _typed(
        self, header: Header, typed: BlockText, common: dict[str, Any], *, has_results: bool
    ) -> tuple[NodeRole, Event]:
        """Return the role a user's text gives its node, and its event."""
        found = classify(typed.text)
        subkind = "compaction_summary" if header.is_compact_summary else found.subkind
        if subkind is None and header.is_meta:
            subkind = "meta"
        text = found.text if subkind is None else typed.text
        role, kind = _ROLES.get(subkind or "", (NodeRole.PASSIVE, EventKind.OTHER))
        if starts_turn(subkind):
            role = NodeRole.TRIGGER
        if subkind is None:
            role, kind = NodeRole.PROMPT, EventKind.PROMPT
            if common["agent_id"] is not None:
                subkind = "sub_agent_task"
            elif has_results:
                subkind = "beside_result"
            else:
                self._queue.seen_as_line(text)
        elif common["agent_id"] is None:
            self._queue.seen_as_line(typed.text)
        return role, Event(
            event_id=common["node_id"], kind=kind, text=text, subkind=subkind, has_image=typed.has_image, **common
        )

    def _progress(self, header: Header, line: RawLine) -> list[Record]:
        """Return the carrier node of a progress line, and the sub-agent's message where one is nested in it."""
        records: list[Record] = []
        if header.data:
            data = (
                PROGRESS_DECODER.decode(header.data)
                if isinstance(header.data, msgspec.Raw)
                else progress_of(header.data)
            )
            if data.type == "agent_progress" and data.agent_id and data.message:
                records = self._nested(header, data, line)
        if header.uuid:
            records.insert(0, self._node(header, line, NodeRole.PASSIVE))
        return records

    def _nested(self, carrier: Header, data: ProgressData, line: RawLine) -> list[Record]:
        value = as_dict(payload(data.message))
        inner = header_of({**value, "sessionId": carrier.session_id, "cwd": carrier.cwd})
        inner.git_branch, inner.version = carrier.git_branch, carrier.version
        agent, node_id = data.agent_id or "", inner.uuid
        if inner.type not in ("user", "assistant") or node_id is None:
            return []
        parent = self._nested_tails.get(agent)
        if parent == node_id:
            return []
        self._nested_tails[agent] = node_id
        spawned_by = carrier.parent_tool_use_i_d
        spawned_by = call_event_id(spawned_by, self._session(carrier)) if spawned_by else None
        message = as_dict(inner.message)
        read = self._assistant if inner.type == "assistant" else self._user
        return read(inner, message, line, node_id, parent, agent, spawned_by)

    def _attachment(self, header: Header, line: RawLine) -> list[Record]:
        attachment = as_dict(payload(header.attachment)) if header.attachment else {}
        kind = attachment.get("type")
        if kind == "queued_command" and attachment.get("prompt"):
            typed = blocks_text(attachment["prompt"])
            found = classify(typed.text)
            is_human = as_dict(attachment.get("origin")).get("kind", "human") == "human"
            is_prompt = found.subkind is None and is_human and not attachment.get("isMeta") and not header.is_meta
            is_prompt = is_prompt and attachment.get("commandMode", "prompt") == "prompt"
            self._queue.seen_as_line(found.text if found.subkind is None else typed.text)
            role = NodeRole.PROMPT if is_prompt else NodeRole.PASSIVE
            node = self._node(header, line, role)
            text = found.text if is_prompt else typed.text
            subkind = "queued" if is_prompt else found.subkind or "queued_command"
            event_kind = EventKind.PROMPT if is_prompt else EventKind.OTHER
            return [node, self._other(header, node, line, event_kind, subkind, text, has_image=typed.has_image)]
        if not header.uuid:
            return []
        node = self._node(header, line, NodeRole.PASSIVE)
        names = as_list(attachment.get("addedNames"))
        if kind == "deferred_tools_delta" and names:
            offered = tuple(name for name in names if isinstance(name, str))
            return [
                node,
                self._other(header, node, line, EventKind.OTHER, "offered_tools", None, offered_tools=offered),
            ]
        return [node]

    def _system(self, header: Header, line: RawLine) -> list[Record]:
        if not header.uuid and header.subtype != "init":
            return []
        if header.subtype == "compact_boundary":
            named = header.logical_parent_uuid or header.parent_uuid
            node = self._node(header, line, NodeRole.COMPACTION, parent=self._continued(named, self._agent(header)))
            return [node, self._other(header, node, line, EventKind.COMPACTION, "boundary", None)]
        node = self._node(header, line, NodeRole.PASSIVE)
        if header.subtype == "init" and as_list(header.tools):
            offered = tuple(name for name in header.tools if isinstance(name, str))
            return [
                node,
                self._other(header, node, line, EventKind.OTHER, "offered_tools", None, offered_tools=offered),
            ]
        return [node]

    def _other(
        self,
        header: Header,
        node: GraphNode,
        line: RawLine,
        kind: EventKind,
        subkind: str,
        text: str | None,
        **extra: Any,
    ) -> Event:
        return Event(
            event_id=node.node_id,
            kind=kind,
            node_id=node.node_id,
            parent_node_id=node.parent_node_id,
            session_id=node.session_id,
            location=SourceLocation(self._file, line.line, line.byte_offset),
            agent_id=node.agent_id,
            timestamp=header.timestamp,
            text=text,
            subkind=subkind,
            cwd=header.cwd,
            git_branch=header.git_branch,
            agent_version=header.version,
            **extra,
        )


_ROLES: dict[str, tuple[NodeRole, EventKind]] = {
    "compaction_summary": (NodeRole.COMPACTION, EventKind.COMPACTION),
    "interruption": (NodeRole.PASSIVE, EventKind.INTERRUPTION),
}


def _result(block: dict[str, Any], common: dict[str, Any], started: str | None) -> Event:
    content = blocks_text(block.get("content"))
    tool_use_id = as_text(block.get("tool_use_id")) or f"{common['node_id']}.unknown"
    is_error = block.get("is_error")
    return Event(
        event_id=result_event_id(call_event_id(tool_use_id, common["session_id"])),
        kind=EventKind.TOOL_RESULT,
        tool_use_id=tool_use_id,
        text=content.text,
        is_error=is_error if isinstance(is_error, bool) else None,
        is_rejected=is_rejection(content.text),
        has_image=content.has_image,
        started_agent_id=started,
        **common,
    )


def _text_key(text: str) -> str:
    return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _newest(entries: dict[str, str]) -> dict[str, str]:
    return dict(list(entries.items())[-_STATE_ENTRIES:])

"""Codex CLI rollouts (`~/.codex/sessions/**/rollout-*.jsonl`) to graph nodes and events.

A rollout is a list: every item's parent is the item before it, and `thread_rolled_back` goes back some turns. Prompts and
answers stand in it twice (`response_item` and `event_msg`); they are paired and told once. A forked rollout begins with
its own `session_meta`, then its parent's and the copied history, whose lines keep their time stamps.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from toolcall_pipeline.sessions.codex_results import read_result
from toolcall_pipeline.sessions.content import IMAGE_MARKER, blocks_text, is_rejection
from toolcall_pipeline.sessions.decoding import (
    MAX_DEPTH,
    as_dict,
    as_text,
    decode_tolerantly,
    is_too_deep,
    needs_care,
)
from toolcall_pipeline.sessions.events import (
    Event,
    EventKind,
    GraphNode,
    LinePlace,
    MalformedLine,
    NodeRole,
    SourceLocation,
)
from toolcall_pipeline.sessions.identity import call_event_id, positional_id, result_event_id
from toolcall_pipeline.sessions.lines import RawLine
from toolcall_pipeline.sessions.prompts import classify, starts_turn

NAME = "codex"
Record = GraphNode | Event | MalformedLine

_LINE_TYPES = frozenset({"session_meta", "response_item", "event_msg", "turn_context", "compacted", "world_state"})
_ITEM_TYPES = frozenset(
    {"message", "reasoning", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"}
)
_CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call", "tool_search_call"})
_RESULTS = frozenset(
    {"function_call_output", "custom_tool_call_output", "local_shell_call_output", "tool_search_output"}
)
# Tools that run at the model's provider: the rollout never holds what they gave.
_HOSTED_CALLS = frozenset({"web_search_call", "image_generation_call"})
_IMAGE_TAGS = re.compile(r"</?image\b[^>]*>\n?")
_STATE_ENTRIES = 64


def looks_like(value: dict[str, Any]) -> bool:
    """Tell whether a JSON object is a line of this format."""
    kind = as_text(value.get("type"))
    if kind in _LINE_TYPES:
        return isinstance(value.get("payload"), dict)
    if kind in _ITEM_TYPES and "sessionId" not in value:
        return kind != "message" or "role" in value
    return kind is None and "instructions" in value and "id" in value and "timestamp" in value


class Parser:
    """The reader's state over one file; `parse` is called line by line, in order."""

    def __init__(
        self, relative_path: str, shown_path: str, state: Mapping[str, Any], line_at: Callable[[int], bytes]
    ) -> None:
        self._file = shown_path
        self._session = relative_path.rsplit("/", 1)[-1].removesuffix(".jsonl")
        self._started: str | None = None
        self._origin: str | None = None
        self._agent: str | None = None
        self._cwd: str | None = None
        self._branch: str | None = None
        self._version: str | None = None
        self._model: str | None = None
        self._meta_offsets: list[int] = []
        self._context_offset: int | None = None
        self._restore_headers(state, line_at)
        self._last_node: str | None = state.get("last_node")
        self._message: str | None = state.get("message")
        self._ordinals: dict[str, int] = dict(state.get("ordinals", {}))
        self._turn_parents: list[str | None] = list(state.get("turn_parents", []))
        self._unpaired: dict[str, int] = dict(state.get("unpaired", {}))

    def _restore_headers(self, state: Mapping[str, Any], line_at: Callable[[int], bytes]) -> None:
        for offset in state.get("meta_offsets", []):
            for value in decode_tolerantly(line_at(offset)).objects:
                self._read_meta(_payload_of(value), as_text(value.get("timestamp")), offset)
        offset = state.get("context_offset")
        if offset is not None:
            for value in decode_tolerantly(line_at(offset)).objects:
                self._read_context(_payload_of(value), offset)

    def state(self) -> dict[str, Any]:
        """Return what reading on later needs, as JSON without any text (headers are read again from their place)."""
        return {
            "meta_offsets": self._meta_offsets,
            "context_offset": self._context_offset,
            "last_node": self._last_node,
            "message": self._message,
            "ordinals": dict(list(self._ordinals.items())[-_STATE_ENTRIES:]),
            "turn_parents": self._turn_parents[-_STATE_ENTRIES:],
            "unpaired": dict(list(self._unpaired.items())[-_STATE_ENTRIES:]),
        }

    def parse(self, line: RawLine) -> list[Record]:
        """Return the nodes and events of a line, each node before its events; never raises on content."""
        if not needs_care(line):
            try:
                value = msgspec.json.decode(line.content)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                return self._records(value, line)
        decoded = decode_tolerantly(line.content)
        records: list[Record] = []
        for value in decoded.objects:
            records.extend(self._records(value, line))
        location = SourceLocation(self._file, line.line, line.byte_offset)
        records.extend(MalformedLine(location, reason, length) for reason, length in decoded.problems)
        return records

    def _records(self, value: dict[str, Any], line: RawLine) -> list[Record]:
        kind, timestamp = as_text(value.get("type")), as_text(value.get("timestamp"))
        payload = _payload_of(value)
        if kind == "session_meta" or (kind is None and "instructions" in value):
            return self._meta(payload, timestamp, line)
        if kind == "turn_context":
            self._read_context(payload, line.byte_offset)
            return []
        if kind == "compacted":
            return self._item(
                line, timestamp, None, NodeRole.COMPACTION, EventKind.COMPACTION, as_text(payload.get("message"))
            )
        if kind == "event_msg":
            return self._event_msg(payload, timestamp, line)
        if kind == "response_item" or kind in _ITEM_TYPES:
            return self._response_item(payload, timestamp, line)
        return []

    def _read_meta(self, payload: dict[str, Any], timestamp: str | None, offset: int) -> bool:
        """Take a session_meta in; True where it is the file's own and not a copied parent's."""
        self._meta_offsets = [*self._meta_offsets, offset][-2:] if self._meta_offsets else [offset]
        identity = as_text(payload.get("id"))
        if self._started is not None:
            self._origin = identity
            return False
        self._session = identity or self._session
        self._started = as_text(payload.get("timestamp")) or timestamp or ""
        self._cwd = as_text(payload.get("cwd"))
        self._branch = as_text(as_dict(payload.get("git")).get("branch"))
        self._version = as_text(payload.get("cli_version"))
        if isinstance(payload.get("source"), dict) and "subagent" in payload["source"]:
            self._agent = self._session
        return True

    def _read_context(self, payload: dict[str, Any], offset: int) -> None:
        self._context_offset = offset
        self._cwd = as_text(payload.get("cwd")) or self._cwd
        self._model = as_text(payload.get("model")) or self._model

    def _meta(self, payload: dict[str, Any], timestamp: str | None, line: RawLine) -> list[Record]:
        if not self._read_meta(payload, timestamp, line.byte_offset):
            return []
        spawn = as_dict(as_dict(as_dict(payload.get("source")).get("subagent")).get("thread_spawn"))
        above = as_text(payload.get("forked_from_id")) or as_text(spawn.get("parent_thread_id"))
        parent = above and f"{above}:meta"
        return [self._place(line, timestamp, NodeRole.PASSIVE, f"{self._session}:meta", parent).node(NodeRole.PASSIVE)]

    def _event_msg(self, payload: dict[str, Any], timestamp: str | None, line: RawLine) -> list[Record]:
        kind = payload.get("type")
        if kind == "user_message":
            return self._user(
                as_text(payload.get("message")) or "", bool(payload.get("images")), "event", timestamp, line
            )
        if kind == "agent_message":
            return self._answer(as_text(payload.get("message")) or "", None, "event", timestamp, line)
        if kind == "turn_aborted":
            return self._item(
                line, timestamp, None, NodeRole.PASSIVE, EventKind.INTERRUPTION, as_text(payload.get("reason"))
            )
        if kind == "thread_rolled_back":
            turns = payload.get("num_turns")
            for _ in range(min(turns, len(self._turn_parents)) if isinstance(turns, int) else 0):
                self._last_node = self._turn_parents.pop()
            self._message = None
            return [self._place(line, timestamp, NodeRole.ROLLBACK, None).node(NodeRole.ROLLBACK)]
        return []

    def _response_item(self, payload: dict[str, Any], timestamp: str | None, line: RawLine) -> list[Record]:
        kind = as_text(payload.get("type")) or ("message" if "role" in payload else None)
        if kind == "message":
            content = blocks_text(payload.get("content"))
            role = payload.get("role")
            if role == "assistant":
                return self._answer(content.text, as_text(payload.get("id")), "item", timestamp, line)
            if role == "user":
                return self._user(content.text, content.has_image, "item", timestamp, line)
            return self._item(
                line, timestamp, None, NodeRole.PASSIVE, EventKind.OTHER, content.text, subkind="instructions"
            )
        if kind in _CALLS:
            return self._call(payload, timestamp, line)
        if kind in _RESULTS:
            return self._result(payload, timestamp, line)
        if kind in _HOSTED_CALLS:
            action = as_dict(payload.get("action"))
            asked = action.get("query") or action.get("url") or payload.get("revised_prompt")
            item_id = as_text(payload.get("id"))
            return self._item(
                line, timestamp, item_id, NodeRole.PASSIVE, EventKind.OTHER, as_text(asked), subkind="hosted_call"
            )
        return []

    def _user(self, text: str, has_image: bool, source: str, timestamp: str | None, line: RawLine) -> list[Record]:
        found = classify(_IMAGE_TAGS.sub("", text) if has_image else text)
        # Only one of the two records of a prompt holds its images in place.
        if found.subkind is None and self._is_told("user", found.text.replace(IMAGE_MARKER, "").strip(), source):
            return []
        if found.subkind is not None:
            role = NodeRole.TRIGGER if starts_turn(found.subkind) else NodeRole.PASSIVE
            return self._item(line, timestamp, None, role, EventKind.OTHER, text, subkind=found.subkind)
        self._turn_parents.append(self._last_node)
        subkind = "sub_agent_task" if self._agent else None
        return self._item(
            line, timestamp, None, NodeRole.PROMPT, EventKind.PROMPT, found.text, subkind=subkind, has_image=has_image
        )

    def _answer(
        self, text: str, item_id: str | None, source: str, timestamp: str | None, line: RawLine
    ) -> list[Record]:
        if not text.strip() or self._is_told("assistant", text.strip(), source):
            return []
        return self._item(line, timestamp, item_id, NodeRole.ASSISTANT, EventKind.ASSISTANT_TEXT, text, suffix="#0")

    def _call(self, payload: dict[str, Any], timestamp: str | None, line: RawLine) -> list[Record]:
        call_id = (
            as_text(payload.get("call_id")) or as_text(payload.get("id")) or positional_id(self._session, line.line)
        )
        tool_input = _arguments(payload)
        location = SourceLocation(self._file, line.line, line.byte_offset)
        if is_too_deep(tool_input):
            return [MalformedLine(location, f"tool input nested deeper than {MAX_DEPTH} levels", line.length_bytes)]
        event_id = call_event_id(call_id, self._session)
        name = as_text(payload.get("name")) or {
            "local_shell_call": "local_shell",
            "tool_search_call": "tool_search",
        }.get(str(payload.get("type")), "")
        place = self._place(line, timestamp, NodeRole.ASSISTANT, f"{event_id}:call")
        return [
            place.node(NodeRole.ASSISTANT, tool_use_ids=(event_id,)),
            place.event(event_id, EventKind.TOOL_CALL, tool_use_id=call_id, tool_name=name, tool_input=tool_input),
        ]

    def _result(self, payload: dict[str, Any], timestamp: str | None, line: RawLine) -> list[Record]:
        call_id = as_text(payload.get("call_id")) or positional_id(self._session, line.line)
        event_id = call_event_id(call_id, self._session)
        result = read_result(payload.get("output", payload.get("tools")))
        place = self._place(line, timestamp, NodeRole.TOOL_RESULT, f"{event_id}:output")
        event = place.event(
            result_event_id(event_id),
            EventKind.TOOL_RESULT,
            tool_use_id=call_id,
            text=result.text,
            is_error=result.is_error,
            is_rejected=is_rejection(result.text),
            has_image=result.has_image,
            started_agent_id=result.agent_id,
        )
        node = place.node(NodeRole.TOOL_RESULT, started_agent_id=result.agent_id, tool_use_ids=(event_id,))
        return [node, event]

    def _item(
        self,
        line: RawLine,
        timestamp: str | None,
        item_id: str | None,
        role: NodeRole,
        kind: EventKind,
        text: str | None,
        *,
        suffix: str = "",
        **fields: Any,
    ) -> list[Record]:
        place = self._place(line, timestamp, role, item_id)
        return [place.node(role), place.event(place.node_id + suffix, kind, text=text, **fields)]

    def _place(
        self, line: RawLine, timestamp: str | None, role: NodeRole, node_id: str | None, parent: str | None = None
    ) -> LinePlace:
        """Return where a line stands, and go on from there."""
        node_id = node_id or self._nameless(timestamp, line)
        if role is NodeRole.ASSISTANT:
            self._message = self._message or node_id
        elif role is not NodeRole.PASSIVE:
            self._message = None
        if role in (NodeRole.TOOL_RESULT, NodeRole.ASSISTANT):
            self._unpaired = {key: count for key, count in self._unpaired.items() if key.startswith("assistant")}
        place = LinePlace(
            node_id,
            parent or self._last_node,
            self._session,
            SourceLocation(self._file, line.line, line.byte_offset),
            self._agent,
            None,
            self._message if role is NodeRole.ASSISTANT else None,
            timestamp,
            self._cwd,
            self._branch,
            self._version,
            self._model,
        )
        self._last_node = node_id
        return place

    def _nameless(self, timestamp: str | None, line: RawLine) -> str:
        """Return the identity of an item without an id: whose history it is, and when; copies keep both."""
        if timestamp is None:
            return positional_id(self._session, line.line)
        is_copied = self._origin is not None and timestamp < (self._started or "")
        key = f"{self._origin if is_copied else self._session}:{timestamp}"
        ordinal = self._ordinals.pop(key, 0)
        self._ordinals[key] = ordinal + 1
        return f"{key}.{ordinal}" if ordinal else key

    def _is_told(self, role: str, text: str, source: str) -> bool:
        """Pair the two records of one text; True for the second of a pair."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        other = f"{role}:{'event' if source == 'item' else 'item'}:{digest}"
        if self._unpaired.get(other, 0) > 0:
            self._unpaired[other] -= 1
            if not self._unpaired[other]:
                del self._unpaired[other]
            return True
        own = f"{role}:{source}:{digest}"
        self._unpaired[own] = self._unpaired.pop(own, 0) + 1
        return False


def _payload_of(value: dict[str, Any]) -> dict[str, Any]:
    payload = value.get("payload")
    return payload if isinstance(payload, dict) else value


def _arguments(payload: dict[str, Any]) -> Any:
    """Return a call's arguments as an object where they are one; free text stands under `input`."""
    if "input" in payload:
        return {"input": payload["input"]} if isinstance(payload["input"], str) else payload["input"]
    if payload.get("type") == "local_shell_call":
        return payload.get("action")
    arguments = payload.get("arguments")
    if isinstance(arguments, str):
        try:
            return msgspec.json.decode(arguments)  # not orjson, which makes floats of large integers
        except (ValueError, RecursionError):
            return arguments
    return arguments

"""The message of a Claude Code line to events: texts and calls of the agent, results and texts in the user's place.

Pure: what a file has shown so far is the parser's (`claude_code.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from toolcall_pipeline.sessions.claude_header import Block, Header
from toolcall_pipeline.sessions.content import BlockText, blocks_text, is_rejection
from toolcall_pipeline.sessions.decoding import MAX_DEPTH, is_too_deep
from toolcall_pipeline.sessions.events import Event, EventKind, LinePlace, MalformedLine, NodeRole
from toolcall_pipeline.sessions.identity import call_event_id, result_event_id
from toolcall_pipeline.sessions.prompts import classify, starts_turn

# Members of an enumeration are looked up through its metaclass; these are wanted for every line.
_TEXT, _CALL, _RESULT = EventKind.ASSISTANT_TEXT, EventKind.TOOL_CALL, EventKind.TOOL_RESULT
_ROLES: dict[str, tuple[NodeRole, EventKind]] = {
    "compaction_summary": (NodeRole.COMPACTION, EventKind.COMPACTION),
    "interruption": (NodeRole.PASSIVE, EventKind.INTERRUPTION),
}


class UserText(msgspec.Struct, frozen=True, gc=False):
    """What a text in the user's place is: the role it gives its node, the event's kind and subkind, the words."""

    role: NodeRole
    kind: EventKind
    subkind: str | None
    text: str


def unreal_subkind(header: Header, model: str | None) -> str | None:
    """Return what an assistant line is that the agent's program wrote in the model's name; None for a real one."""
    if header.is_api_error_message:
        return "api_error"
    return "synthetic" if model == "<synthetic>" else None


def assistant_events(
    blocks: Iterable[Block | str], place: LinePlace, unreal: str | None
) -> list[Event | MalformedLine]:
    """Return the texts and calls of an assistant line, in order.

    Args:
        blocks: The line's content.
        place: Where it stands.
        unreal: The subkind of a line no model wrote.
    """
    events: list[Event | MalformedLine] = []
    text_count = call_count = 0
    for block in blocks:
        if isinstance(block, str):
            continue
        if block.type == "text" and block.text and not block.text.isspace():
            kind = EventKind.OTHER if unreal else _TEXT
            events.append(place.event(f"{place.node_id}#{text_count}", kind, text=block.text, subkind=unreal))
            text_count += 1
        elif block.type == "tool_use":
            events.append(_call(block, call_count, place))
            call_count += isinstance(events[-1], Event)
    return events


def _call(block: Block, index: int, place: LinePlace) -> Event | MalformedLine:
    if is_too_deep(block.input):
        return MalformedLine(place.location, f"tool input nested deeper than {MAX_DEPTH} levels", 0)
    tool_use_id = block.id or f"{place.node_id}.{index}"
    return place.event(
        call_event_id(tool_use_id, place.session_id),
        _CALL,
        tool_use_id=tool_use_id,
        tool_name=block.name or "",
        tool_input=block.input,
    )


def result_event(block: Block, place: LinePlace, started_agent_id: str | None) -> Event:
    """Return the event of one `tool_result` block; a result that names no call keeps its place as its identity."""
    content = blocks_text(block.content)
    tool_use_id = block.tool_use_id or f"{place.node_id}.unknown"
    return place.event(
        result_event_id(call_event_id(tool_use_id, place.session_id)),
        _RESULT,
        tool_use_id=tool_use_id,
        text=content.text,
        is_error=block.is_error,
        is_rejected=is_rejection(content.text),
        has_image=content.has_image,
        started_agent_id=started_agent_id,
    )


def user_text(header: Header, typed: BlockText, *, is_agent: bool, has_results: bool) -> UserText:
    """Say what a text in the user's place is.

    Args:
        header: Of its line.
        typed: The text beside results.
        is_agent: It stands in a sub-agent's conversation: the main agent wrote it.
        has_results: Results stand in the same line.
    """
    found = classify(typed.text)
    subkind = "compaction_summary" if header.is_compact_summary else found.subkind
    if subkind is None and header.is_meta:
        subkind = "meta"
    if subkind is None:
        own = "sub_agent_task" if is_agent else "beside_result" if has_results else None
        return UserText(NodeRole.PROMPT, EventKind.PROMPT, own, found.text)
    role, kind = _ROLES.get(subkind, (NodeRole.PASSIVE, EventKind.OTHER))
    return UserText(NodeRole.TRIGGER if starts_turn(subkind) else role, kind, subkind, typed.text)

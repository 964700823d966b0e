"""The fields of a Claude Code line that matter: a typed decoder for the many, a tolerant one for the odd.

The typed decoder reads a line once and skips what nobody asks for (structured results, signatures, usage, pictures); it
refuses a line in which a field has another type, and then `line_of` makes the same of the decoded line.
"""

from __future__ import annotations

from typing import Any

import msgspec

from toolcall_pipeline.sessions.content import BlockText, join_blocks
from toolcall_pipeline.sessions.decoding import as_dict, as_list, as_text, needs_care
from toolcall_pipeline.sessions.lines import RawLine


class Block(msgspec.Struct, gc=False):
    """One block of a message's content, of any type."""

    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: Any = None
    is_error: bool | None = None
    tool_name: str | None = None


Content = str | list[Block | str] | None


class Message(msgspec.Struct, gc=False):
    """What a user or assistant line carries."""

    id: str | None = None
    model: str | None = None
    content: Content = None

    @property
    def blocks(self) -> list[Block | str]:
        """Return the content's blocks; a plain text is one."""
        if isinstance(self.content, str):
            return [Block("text", self.content)]
        return self.content or []


class StartedAgent(msgspec.Struct, rename="camel", gc=False):
    """What a structured result says of the sub-agent its call started."""

    agent_id: str | None = None


class ProgressData(msgspec.Struct, rename="camel", gc=False):
    """What a progress line carries; the message stays raw, since only a sub-agent's is a line of its own."""

    type: str = ""
    agent_id: str | None = None
    message: msgspec.Raw = msgspec.Raw()


class Header(msgspec.Struct, rename="camel", gc=False):
    """The fields of a line that decide what it is, and its message; in the order of real lines, which is decoded fastest."""

    parent_uuid: str | msgspec.UnsetType | None = msgspec.UNSET
    logical_parent_uuid: str | None = None
    is_sidechain: bool | None = None
    cwd: str | None = None
    session_id: str | None = None
    version: str | None = None
    git_branch: str | None = None
    agent_id: str | None = None
    type: str = ""
    subtype: str | None = None
    message: Message | None = None
    data: ProgressData | None = None
    parent_tool_use_i_d: str | None = None
    uuid: str | None = None
    timestamp: str | None = None
    tool_use_result: StartedAgent | str | list[msgspec.Raw] | None = None
    is_meta: bool | None = None
    is_compact_summary: bool | None = None
    is_api_error_message: bool | None = None
    operation: str | None = None
    content: Any = None
    tools: Any = None
    attachment: Any = None
    plan_content: Any = None

    @property
    def parent(self) -> str | None:
        """Return the parent the line names, None where it names none."""
        return self.parent_uuid if isinstance(self.parent_uuid, str) else None

    @property
    def started_agent(self) -> str | None:
        """Return the sub-agent that a result line says its call started."""
        result = self.tool_use_result
        return result.agent_id if isinstance(result, StartedAgent) else None


AGENT_PROGRESS = "agent_progress"
HEADER_DECODER = msgspec.json.Decoder(Header)
_TEXT_FIELDS = (
    ("uuid", "uuid"),
    ("logical_parent_uuid", "logicalParentUuid"),
    ("session_id", "sessionId"),
    ("timestamp", "timestamp"),
    ("agent_id", "agentId"),
    ("subtype", "subtype"),
    ("operation", "operation"),
    ("cwd", "cwd"),
    ("git_branch", "gitBranch"),
    ("version", "version"),
    ("parent_tool_use_i_d", "parentToolUseID"),
)


def decode_line(line: RawLine) -> tuple[Header, Header | None]:
    """Return a line's header, and that of the sub-agent's line nested in it where it is the progress of one.

    Raises:
        ValueError, RecursionError: A field has another type, the bytes are no strict JSON, or an escaped NUL stands in
            them; the caller sends the line through `decode_tolerantly`.
    """
    if needs_care(line):
        raise ValueError("a NUL, which PostgreSQL cannot store")
    header = HEADER_DECODER.decode(line.content)
    data = header.data
    if data is None or data.type != AGENT_PROGRESS or not data.message:
        return header, None
    return header, HEADER_DECODER.decode(data.message)


def line_of(value: dict[str, Any]) -> tuple[Header, Header | None]:
    """Return the same of a decoded line whose fields may have any type."""
    data = as_dict(value.get("data"))
    is_agents = data.get("type") == AGENT_PROGRESS
    return _header_of(value), _header_of(as_dict(data.get("message"))) if is_agents else None


def _header_of(value: dict[str, Any]) -> Header:
    header = Header(type=value["type"] if isinstance(value.get("type"), str) else "")
    for name, key in _TEXT_FIELDS:
        setattr(header, name, as_text(value.get(key)))
    if "parentUuid" in value:
        header.parent_uuid = as_text(value["parentUuid"])
    header.is_sidechain = value.get("isSidechain") is True
    header.is_meta = value.get("isMeta") is True
    header.is_compact_summary = value.get("isCompactSummary") is True
    header.is_api_error_message = value.get("isApiErrorMessage") is True
    header.content, header.tools, header.attachment = value.get("content"), value.get("tools"), value.get("attachment")
    header.plan_content = value.get("planContent")
    header.message = _message_of(as_dict(value.get("message")))
    header.data = _progress_of(as_dict(value.get("data")))
    header.tool_use_result = StartedAgent(as_text(as_dict(value.get("toolUseResult")).get("agentId")))
    return header


def content_text(content: Content) -> BlockText:
    """Return the text of a message's content: a string, or blocks joined by LF."""
    if isinstance(content, str):
        return BlockText(content, False)
    return join_blocks(
        ("text", block, None) if isinstance(block, str) else (block.type, block.text, block.tool_name)
        for block in content or ()
    )


def _message_of(value: dict[str, Any]) -> Message:
    content = value.get("content")
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, str):
        content = [
            block if isinstance(block, str) else _block_of(block)
            for block in as_list(content)
            if isinstance(block, str | dict)
        ]
    return Message(as_text(value.get("id")), as_text(value.get("model")), content)


def _block_of(value: dict[str, Any]) -> Block:
    text, is_error = value.get("text"), value.get("is_error")
    return Block(
        type=as_text(value.get("type")) or "",
        text=text if isinstance(text, str) else None,
        id=as_text(value.get("id")),
        name=as_text(value.get("name")),
        input=value.get("input"),
        tool_use_id=as_text(value.get("tool_use_id")),
        content=value.get("content"),
        is_error=is_error if isinstance(is_error, bool) else None,
        tool_name=as_text(value.get("tool_name")),
    )


def _progress_of(value: dict[str, Any]) -> ProgressData:
    return ProgressData(as_text(value.get("type")) or "", as_text(value.get("agentId")))

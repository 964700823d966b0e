"""The fields of a Claude Code line that decide what it is: a typed decoder for the many, a tolerant one for the odd."""

from __future__ import annotations

from typing import Any

import msgspec

from toolcall_pipeline.sessions.decoding import as_dict, as_text


class Header(msgspec.Struct, rename="camel", gc=False):
    """The fields of a line that decide what it is; everything large stays raw."""

    type: str = ""
    uuid: str | None = None
    parent_uuid: str | None = None
    logical_parent_uuid: str | None = None
    session_id: str | None = None
    timestamp: str | None = None
    is_sidechain: bool | None = None
    agent_id: str | None = None
    is_meta: bool | None = None
    is_compact_summary: bool | None = None
    is_api_error_message: bool | None = None
    subtype: str | None = None
    operation: str | None = None
    cwd: str | None = None
    git_branch: str | None = None
    version: str | None = None
    parent_tool_use_i_d: str | None = None
    content: Any = None
    tools: Any = None
    message: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    attachment: msgspec.Raw = msgspec.Raw()
    tool_use_result: msgspec.Raw = msgspec.Raw()


class ProgressData(msgspec.Struct, rename="camel", gc=False):
    """What a progress line carries."""

    type: str = ""
    agent_id: str | None = None
    message: msgspec.Raw = msgspec.Raw()


class _StartedAgent(msgspec.Struct, rename="camel", gc=False):
    agent_id: str | None = None


HEADER_DECODER = msgspec.json.Decoder(Header)
PROGRESS_DECODER = msgspec.json.Decoder(ProgressData)
_STARTED_AGENT = msgspec.json.Decoder(_StartedAgent)
_TEXT_FIELDS = (
    ("uuid", "uuid"),
    ("parent_uuid", "parentUuid"),
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


def started_agent(header: Header) -> str | None:
    """Return the sub-agent that a result line says its call started."""
    result = header.tool_use_result
    if isinstance(result, msgspec.Raw):
        raw = memoryview(result)
        if not raw or raw[:1] != b"{" or b'"agentId"' not in bytes(raw):
            return None
        return _STARTED_AGENT.decode(result).agent_id
    return as_text(as_dict(result).get("agentId"))


def header_of(value: dict[str, Any]) -> Header:
    """Return the header of a decoded line whose fields may have any type."""
    header = Header(type=value["type"] if isinstance(value.get("type"), str) else "")
    for name, key in _TEXT_FIELDS:
        setattr(header, name, as_text(value.get(key)))
    header.is_sidechain = value.get("isSidechain") is True
    header.is_meta = value.get("isMeta") is True
    header.is_compact_summary = value.get("isCompactSummary") is True
    header.is_api_error_message = value.get("isApiErrorMessage") is True
    header.content, header.tools = value.get("content"), value.get("tools")
    header.message, header.data = value.get("message"), value.get("data")  # type: ignore[assignment]
    header.attachment, header.tool_use_result = value.get("attachment"), value.get("toolUseResult")  # type: ignore[assignment]
    return header


def progress_of(value: Any) -> ProgressData:
    """Return the same of decoded progress data whose fields may have any type."""
    data = as_dict(value)
    return ProgressData(as_text(data.get("type")) or "", as_text(data.get("agentId")), data.get("message"))  # type: ignore[arg-type]

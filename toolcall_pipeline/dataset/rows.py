"""The shape of a dataset row: chat messages, the tools on offer, and where every token came from.

On disk (JSONL and Parquet) a call's `arguments` and the row's `tools` are JSON strings: as nested objects Arrow would
give every row the null fields of every other tool's schema. `stage.build_row` writes that form, `row_from_disk` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ToolCall(BaseModel):
    """One call inside an assistant message; `event_id` leads back to the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, Any]
    event_id: str | None = None


class Message(BaseModel):
    """One chat message.

    Attributes:
        role: system, user, assistant or tool.
        content: Text, empty for a call without words.
        tool_calls: Calls of an assistant message, in order.
        supervised: Assistant only: whether its tokens, its end of turn included, are trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    supervised: bool = False


class RowMeta(BaseModel):
    """Where a row comes from.

    Attributes:
        row_id: Stable identity: prompt event id, `+n` for the n-th further row of a long episode, `~n` for the n-th
            deliberate repeat.
        source_file, source_line: Of the prompt. Calls carry their own event ids.
        category: Histogram and cap key of the row's supervised turns, such as `Bash:git`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row_id: str
    session_id: str
    family_id: str
    prompt_event_id: str
    call_event_ids: tuple[str, ...] = ()
    project_root: str
    git_remote: str | None = None
    category: str
    backfill_run_id: str
    recipe: str
    synthetic: bool
    source_file: str
    source_line: int


class Row(BaseModel):
    """One training or validation example."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = Field(description="OpenAI function tools, in the order they are rendered")
    meta: RowMeta


def template_messages(messages: tuple[Message, ...] | list[Message]) -> list[dict[str, Any]]:
    """Return messages as a chat template takes them: arguments as objects, no fields of ours."""
    result: list[dict[str, Any]] = []
    for message in messages:
        item: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            item["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in message.tool_calls
            ]
        result.append(item)
    return result


def row_from_disk(data: dict[str, Any], tools: Sequence[dict[str, Any]] | None = None) -> Row:
    """Return the row of its form on disk.

    Args:
        data: `messages`, `tools` and `meta`, arguments and tools as JSON strings.
        tools: Its tools where they are at hand; rows then share them, which is most of what a row takes in memory.

    Raises:
        pydantic.ValidationError, ValueError: The data is no row.
    """
    messages = [
        {
            **message,
            "tool_calls": [{**call, "arguments": json.loads(call["arguments"])} for call in message["tool_calls"]],
        }
        for message in data["messages"]
    ]
    offered = json.loads(data["tools"]) if tools is None else tools
    return Row.model_validate({**data, "tools": offered, "messages": messages})

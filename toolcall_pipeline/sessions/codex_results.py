"""What a Codex call gave back: text, outcome, and the sub-agent it started, out of the several forms of an output."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

from toolcall_pipeline.sessions.content import blocks_text
from toolcall_pipeline.sessions.decoding import as_text, clean

_EXIT_CODE = re.compile(r"^(?:Exit code:|Process exited with code|exit code:)\s*(-?\d+)", re.MULTILINE)
_HEAD_CHARACTERS = 400


class CodexResult(NamedTuple):
    """A call's result; `is_error` is None where the output does not say."""

    text: str
    is_error: bool | None
    has_image: bool
    agent_id: str | None


def read_result(output: Any) -> CodexResult:
    """Return a call's result from its `output`: text, JSON in text, an object with `content`, or a list of blocks."""
    is_error: bool | None = None
    agent_id: str | None = None
    if isinstance(output, dict):
        if isinstance(output.get("success"), bool):
            is_error = not output["success"]
        output = output.get("content", output.get("output"))
    content = blocks_text(output)
    text = content.text
    if text.startswith("{"):
        value = _object(text)
        agent_id = as_text(value.get("agent_id"))
        metadata = value.get("metadata")
        if isinstance(value.get("output"), str):
            text = value["output"]
        if isinstance(metadata, dict) and isinstance(metadata.get("exit_code"), int):
            is_error = metadata["exit_code"] != 0
    match = _EXIT_CODE.search(text[:_HEAD_CHARACTERS]) if is_error is None else None
    if match:
        is_error = match[1] != "0"
    return CodexResult(text, is_error, content.has_image, agent_id)


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except ValueError:
        return {}
    return clean(value) if isinstance(value, dict) else {}

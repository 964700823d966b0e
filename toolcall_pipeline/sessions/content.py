"""Content blocks to text: what Claude Code and Codex share in how they write messages and results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

IMAGE_MARKER = "[image]"
_IMAGES = ("image", "document", "input_image")  # a type may be anything, also unhashable
_REJECTIONS = (
    "The user doesn't want to proceed with this tool use",
    "The user doesn't want to take this action right now",
    "User rejected tool use",
    "[Request interrupted by user for tool use]",
    "The agent proposed a plan that was rejected by the user",
    "Rejected by user",
    "exec command rejected by user",
    "patch rejected by user",
)


class BlockText(msgspec.Struct, frozen=True, gc=False):
    """The text of some content, and whether an image was part of it."""

    text: str
    has_image: bool


NO_TEXT = BlockText("", False)


def blocks_text(content: Any) -> BlockText:
    """Return the text of a result's content: a string, one block, or a list of blocks, joined as `join_blocks` does."""
    if isinstance(content, str):
        return BlockText(content, False)
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return BlockText("" if content is None else str(content), False)
    return join_blocks(
        ("text", block, None)
        if isinstance(block, str)
        else (block.get("type"), block.get("text"), block.get("tool_name"))
        for block in content
        if isinstance(block, str | dict)
    )


def join_blocks(blocks: Iterable[tuple[Any, Any, Any]]) -> BlockText:
    """Join blocks, given as (type, text, tool name), by LF.

    Images and documents leave a marker; unknown blocks with a text give that text.
    """
    texts: list[str] = []
    has_image = False
    for kind, text, tool_name in blocks:
        if kind == "text" and isinstance(text, str):
            texts.append(text)
        elif kind in _IMAGES:
            has_image = True
            texts.append(IMAGE_MARKER)
        elif kind == "tool_reference":
            texts.append(f"tool: {tool_name}")
        elif isinstance(text, str):
            texts.append(text)
    return BlockText("\n".join(texts), has_image)


def is_rejection(text: str) -> bool:
    """Tell whether a result says that the user refused the call."""
    return text.startswith(_REJECTIONS)

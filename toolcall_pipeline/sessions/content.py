"""Content blocks to text: what Claude Code and Codex share in how they write messages and results."""

from __future__ import annotations

from typing import Any, NamedTuple

IMAGE_MARKER = "[image]"
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


class BlockText(NamedTuple):
    """The text of some content, and whether an image was part of it."""

    text: str
    has_image: bool


def blocks_text(content: Any) -> BlockText:
    """Return the text of a message's or a result's content: a string, one block, or a list of blocks.

    Blocks are joined by LF; images and documents leave a marker; unknown blocks with a `text` give that text.
    """
    if isinstance(content, str):
        return BlockText(content, False)
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return BlockText("" if content is None else str(content), False)
    texts: list[str] = []
    has_image = False
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict):
            kind = block.get("type")
            if kind in ("image", "document", "input_image"):
                has_image = True
                texts.append(IMAGE_MARKER)
            elif kind == "tool_reference":
                texts.append(f"tool: {block.get('tool_name')}")
            elif isinstance(block.get("text"), str):
                texts.append(block["text"])
    return BlockText("\n".join(texts), has_image)


def is_rejection(text: str) -> bool:
    """Tell whether a result says that the user refused the call."""
    return text.startswith(_REJECTIONS)


def is_too_deep(value: Any, levels: int) -> bool:
    """Tell whether a JSON value is nested deeper than some levels."""
    if isinstance(value, dict):
        inner = [item for item in value.values() if isinstance(item, dict | list)]
    elif isinstance(value, list):
        inner = [item for item in value if isinstance(item, dict | list)]
    else:
        return False
    return levels <= 0 or any(is_too_deep(item, levels - 1) for item in inner)

"""The tools that cases written by us offer: the dataset's own schemas where it has them, else the registry's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from toolcall_pipeline.dataset.schemas import function_tool, registry
from toolcall_pipeline.evaluation.tool_schemas import tool_function

CODING_TOOLS = ("Read", "Grep", "Glob", "Edit", "Write", "Bash")
# Offered beside the coding tools, so that choosing is part of the question.
EXTRA_TOOLS = ("TodoWrite", "WebFetch", "WebSearch", "NotebookEdit", "Task")


def coding_tools(tools: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return the six tools of suite C, as the dataset describes them."""
    return pick_tools(CODING_TOOLS, tools)


def pick_tools(names: Iterable[str], tools: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return tools by name: from the dataset's schemas, else from the registry, in the order asked for."""
    own = {str(tool_function(tool).get("name")): tool for tool in tools}
    known = registry()
    picked: list[dict[str, Any]] = []
    for name in names:
        if name in own:
            picked.append(own[name])
        elif name in known:
            picked.append(function_tool(name, str(known[name]["description"]), known[name]["parameters"]))
    return tuple(picked)


def shuffled(items: Sequence[Any], key: str) -> list[Any]:
    """Return items in an order that depends on nothing but a key: the same on every machine and Python."""
    order = sorted(range(len(items)), key=lambda index: stable_hash(f"{key}/{index}"))
    return [items[index] for index in order]


def stable_hash(text: str) -> str:
    """Return the SHA-256 of a text, for orders and choices that must never change."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def choose(options: Sequence[Any], key: str) -> Any:
    """Return one option that depends on nothing but a key."""
    return options[int(stable_hash(key)[:12], 16) % len(options)]

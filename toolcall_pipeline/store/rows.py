"""The rows that linking makes, table by table, and their form in COPY text.

A column list here is the staging table's; names are those of the final tables, except `project_path`, which the insert
turns into `project_id`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import orjson

TOOL_INPUT_LIMIT_BYTES = 16 * 1024
RETENTION_CLASS = "backfill_jsonl"

COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "mem_sessions": (
        ("session_id", "text"),
        ("project_path", "text"),
        ("agent_type", "text"),
        ("agent_version", "text"),
    ),
    "mem_user_prompts": (
        ("event_id", "text"),
        ("node_id", "text"),
        ("session_id", "text"),
        ("project_path", "text"),
        ("prompt_number", "integer"),
        ("turn_index", "integer"),
        ("position", "bigint"),
        ("prompt_text", "text"),
        ("content_hash", "text"),
        ("agent_name", "text"),
        ("agent_id", "text"),
        ("agent_version", "text"),
        ("is_sub_agent", "boolean"),
        ("spawned_by_event_id", "text"),
        ("subkind", "text"),
        ("has_image", "boolean"),
        ("cwd", "text"),
        ("git_branch", "text"),
        ("occurred_at", "timestamptz"),
        ("source_file", "text"),
        ("source_line", "integer"),
    ),
    "mem_tool_calls": (
        ("event_id", "text"),
        ("node_id", "text"),
        ("session_id", "text"),
        ("project_path", "text"),
        ("prompt_event_id", "text"),
        ("turn_index", "integer"),
        ("turn_subindex", "integer"),
        ("position", "bigint"),
        ("is_direct", "boolean"),
        ("message_id", "text"),
        ("agent_id", "text"),
        ("is_nested", "boolean"),
        ("tool_name", "text"),
        ("tool_input", "jsonb"),
        ("tool_input_ordered", "json"),
        ("truncated_at_bytes", "integer"),
        ("content_hash", "text"),
        ("response", "text"),
        ("is_error", "boolean"),
        ("is_rejected", "boolean"),
        ("has_image", "boolean"),
        ("model", "text"),
        ("cwd", "text"),
        ("git_branch", "text"),
        ("occurred_at", "timestamptz"),
        ("source_file", "text"),
        ("source_line", "integer"),
    ),
    "mem_assistant_texts": (
        ("event_id", "text"),
        ("node_id", "text"),
        ("session_id", "text"),
        ("project_path", "text"),
        ("prompt_event_id", "text"),
        ("turn_index", "integer"),
        ("turn_subindex", "integer"),
        ("position", "bigint"),
        ("is_direct", "boolean"),
        ("message_id", "text"),
        ("agent_id", "text"),
        ("model", "text"),
        ("text", "text"),
        ("content_hash", "text"),
        ("occurred_at", "timestamptz"),
        ("source_file", "text"),
        ("source_line", "integer"),
    ),
    "mem_late_results": (
        ("event_id", "text"),
        ("call_event_id", "text"),
        ("node_id", "text"),
        ("session_id", "text"),
        ("response", "text"),
        ("is_error", "boolean"),
        ("is_rejected", "boolean"),
        ("has_image", "boolean"),
        ("occurred_at", "timestamptz"),
        ("source_file", "text"),
        ("source_line", "integer"),
    ),
    "mem_interruptions": (
        ("event_id", "text"),
        ("node_id", "text"),
        ("session_id", "text"),
        ("prompt_event_id", "text"),
        ("source_file", "text"),
        ("source_line", "integer"),
    ),
    "mem_offered_tools": (
        ("session_id", "text"),
        ("agent_id", "text"),
        ("content_hash", "text"),
        ("tools", "jsonb"),
        ("system_prompt", "text"),
        ("source_file", "text"),
        ("source_line", "integer"),
    ),
    "mem_graph_nodes": (
        ("node_id", "text"),
        ("session_id", "text"),
        ("parent_node_id", "text"),
        ("role", "text"),
        ("source_file", "text"),
        ("source_line", "integer"),
        ("occurred_at", "text"),
        ("message_id", "text"),
        ("agent_id", "text"),
        ("spawned_by_tool_use_id", "text"),
        ("started_agent_id", "text"),
        ("tool_use_ids", "text[]"),
    ),
    "mem_copied_nodes": (("node_id", "text"), ("first_node_id", "text")),
    "mem_session_families": (("session_id", "text"), ("family_id", "text")),
    "mem_parked_events": (
        ("event_id", "text"),
        ("node_id", "text"),
        ("session_id", "text"),
        ("table_name", "text"),
        ("reason", "text"),
        ("row_data", "jsonb"),
    ),
    "mem_quarantine": (
        ("source_file", "text"),
        ("source_line", "integer"),
        ("byte_offset", "bigint"),
        ("reason", "text"),
        ("length_bytes", "bigint"),
    ),
}

Row = dict[str, Any]


def content_hash(text: str) -> str:
    """Return the SHA-256 of a redacted text (lone surrogates, which cannot be stored, count as U+FFFD)."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def call_content_hash(tool_name: str, tool_input: Any) -> str:
    """Return the SHA-256 of a call: name, a bar, canonical JSON of the redacted input before any cut."""
    return content_hash(
        f"{tool_name}|{json.dumps(tool_input, sort_keys=True, separators=(',', ':'), ensure_ascii=False)}"
    )


def dump_json(value: Any) -> bytes:
    """Return compact JSON that jsonb accepts: no NUL, no NaN, no lone surrogates; integers of any size."""
    try:
        data = orjson.dumps(value)
    except (TypeError, ValueError):
        data = json.dumps(_storable(value), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    if b"\\u0000" in data:
        data = json.dumps(_storable(value), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return data


def cut_tool_input(tool_input: Any) -> tuple[Any, int | None]:
    """Cut an input over 16 KiB of JSON: its longest strings are shortened until the whole fits.

    Args:
        tool_input: Redacted arguments.

    Returns:
        The input as it is stored, and the limit in bytes where it was cut, else None.
    """
    size = _json_bytes(tool_input)
    if size <= TOOL_INPUT_LIMIT_BYTES:
        return tool_input, None
    limit = TOOL_INPUT_LIMIT_BYTES
    while limit >= 16:
        cut = _shorten(tool_input, limit)
        if _json_bytes(cut) <= TOOL_INPUT_LIMIT_BYTES:
            return cut, TOOL_INPUT_LIMIT_BYTES
        limit //= 2
    # Thousands of small values: no string is to blame, so the JSON itself is cut.
    head = dump_json(tool_input)[: TOOL_INPUT_LIMIT_BYTES // 2].decode("utf-8", "ignore")
    return {"_cut_json": head}, TOOL_INPUT_LIMIT_BYTES


def ordered_json(value: Any) -> str | None:
    """Return a value's JSON where jsonb would put its keys into another order, else None."""
    return dump_json(value).decode("utf-8") if not _is_jsonb_order(value) else None


def encode_copy(table: str, rows: Iterable[Row]) -> bytes:
    """Return rows in COPY's text form, one line each, columns as in `COLUMNS`."""
    columns = [(name, _ENCODERS[kind]) for name, kind in COLUMNS[table]]
    lines = [
        "\t".join(["\\N" if (value := row.get(name)) is None else encode(value) for name, encode in columns])
        for row in rows
    ]
    lines.append("")
    return "\n".join(lines).encode("utf-8", "replace")


def _escape(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\n" in text:
        text = text.replace("\n", "\\n")
    if "\t" in text:
        text = text.replace("\t", "\\t")
    if "\r" in text:
        text = text.replace("\r", "\\r")
    # PostgreSQL stores no NUL; readers replace it already, a redaction rule's file could bring one back.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def _array(values: Sequence[str]) -> str:
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"


def _boolean(value: bool) -> str:
    return "t" if value else "f"


_ENCODERS: dict[str, Callable[[Any], str]] = {
    "text": _escape,
    "timestamptz": _escape,
    "json": _escape,
    "jsonb": lambda value: _escape(dump_json(value).decode("utf-8")),
    "text[]": lambda value: _escape(_array(value)),
    "boolean": _boolean,
    "integer": str,
    "bigint": str,
}


def _json_bytes(value: Any) -> int:
    return len(dump_json(value))


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_storable(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _shorten(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= limit else value[:limit]
    if isinstance(value, dict):
        return {key: _shorten(item, limit) for key, item in value.items()}
    if isinstance(value, list):
        return [_shorten(item, limit) for item in value]
    return value


def _is_jsonb_order(value: Any) -> bool:
    if isinstance(value, dict):
        keys = [(len(encoded), encoded) for encoded in (key.encode("utf-8", "replace") for key in value)]
        return all(one < two for one, two in pairwise(keys)) and all(_is_jsonb_order(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_jsonb_order(item) for item in value)
    return True

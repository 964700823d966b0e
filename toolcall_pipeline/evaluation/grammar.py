"""A grammar (GBNF) of calls that fit the tools on offer, for constrained decoding: a column of its own, never a repair.

A completion is free text without a call, or calls and nothing else. llama.cpp's own converter turns each tool's
parameter schema into rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from toolcall_pipeline.artifacts import canonical_json
from toolcall_pipeline.evaluation.tool_schemas import tools_by_name

_RULE = re.compile(r"^([a-zA-Z0-9-]+) ::= ", re.MULTILINE)
_NAME = re.compile(r"(?<![\w\"\\-])([a-zA-Z][a-zA-Z0-9-]*)(?![\w-]*\")")


def grammar_of_tools(tools: Sequence[dict[str, Any]]) -> str:
    """Return the GBNF text of a completion under these tools.

    Schemas that the converter does not know are loosened to any JSON object, so that a tool is never made uncallable.
    """
    return _grammar(canonical_json(tools_by_name(tools)))


@lru_cache(maxsize=64)
def _grammar(schemas_json: str) -> str:
    schemas: dict[str, dict[str, Any]] = json.loads(schemas_json)
    rules: list[str] = []
    choices: list[str] = []
    for index, name in enumerate(sorted(schemas)):
        prefix = f"tool{index}"
        rules.append(_renamed(_converted(schemas[name]), prefix))
        opening = json.dumps('{"name": ' + json.dumps(name) + ', "arguments": ', ensure_ascii=False)
        choices.append(f'{opening} {prefix}-root "}}"')
    head = [
        "root ::= calls | text",
        'calls ::= call ("\\n" call)*',
        'call ::= "<tool_call>\\n" body "\\n</tool_call>"',
        "body ::= " + " | ".join(choices),
        # Any text that begins no tag: a reply in words.
        "text ::= [^<] text-rest*",
        'text-rest ::= [^<] | "<" [^t]',
    ]
    return "\n".join([*head, *rules]) + "\n"


def _converted(schema: dict[str, Any]) -> str:
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    for candidate in (schema, _loosened(schema), {"type": "object"}):
        try:
            return str(json_schema_to_gbnf(json.dumps({"type": "object", **candidate})))
        except (ValueError, KeyError, TypeError, AssertionError, NotImplementedError, RecursionError):
            continue
    raise AssertionError("an object without properties always converts")


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose properties may hold anything; names and required ones stay."""
    properties = schema.get("properties")
    names = list(properties) if isinstance(properties, dict) else []
    return {"type": "object", "properties": {name: {} for name in names}, "required": schema.get("required") or []}


def _renamed(grammar: str, prefix: str) -> str:
    """Return a grammar whose rule names begin with a prefix, so that several fit into one."""
    names = set(_RULE.findall(grammar))
    lines = []
    for line in grammar.strip().splitlines():
        pieces = re.split(r'("(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\])', line)
        renamed = [
            piece
            if index % 2
            else _NAME.sub(lambda match: f"{prefix}-{match[1]}" if match[1] in names else match[1], piece)
            for index, piece in enumerate(pieces)
        ]
        lines.append("".join(renamed))
    return "\n".join(lines)

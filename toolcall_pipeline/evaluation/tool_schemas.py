"""Whether a call fits the tools on offer: known name, required arguments there, schema met."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

from toolcall_pipeline.artifacts import canonical_json
from toolcall_pipeline.evaluation.cases import Defect
from toolcall_pipeline.evaluation.grounding import SEARCH_KEYS
from toolcall_pipeline.evaluation.loops import FILE_CONTENT_KEYS

_LITERAL_KEYS = FILE_CONTENT_KEYS | SEARCH_KEYS
# Nothing in words or signs, and templates whose place was never filled.
_FILLER = re.compile(
    r"""n/?a|none|null|nil|undefined|unspecified|unknown|tbd|todo|placeholder|value|example|sample|dummy|foo|bar|baz"""
    r"""|your[_ -]\w+(?:[_ -]\w+)*|/?path/to/(?:your[_-])?(?:file|dir(?:ectory)?|folder)(?:\.\w+)?"""
    r"""|<[^<>\n]{0,60}>|\{\{?[\w .-]{0,60}\}?\}|\[[\w .-]{0,60}\]"""
    r"""|(?:\.{3,}|\u2026|\?+|""|''|\(\))""",
    re.IGNORECASE,
)


def tool_function(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool's function object, whether it is wrapped the OpenAI way or bare."""
    inner = tool.get("function")
    return inner if isinstance(inner, dict) else tool


def tools_by_name(tools: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return tool name to parameter schema."""
    result: dict[str, dict[str, Any]] = {}
    for tool in tools:
        function = tool_function(tool)
        parameters = function.get("parameters")
        result[str(function.get("name"))] = parameters if isinstance(parameters, dict) else {}
    return result


def required_arguments(schema: dict[str, Any]) -> list[str]:
    """Return the names a parameter schema requires at its top."""
    required = schema.get("required")
    return [str(name) for name in required] if isinstance(required, list) else []


def are_arguments_empty(arguments: Any, schema: dict[str, Any]) -> bool:
    """Return whether a call gives nothing where something is required.

    `{}`, null, nothing but blank values, or blanks in every required argument that is there: an optional one that is
    filled does not make `{"command": "", "timeout": 5}` a command. A blank is also a text that only names the argument
    or its type, or says that there is none: `{"file_path": "file_path"}`, `{"command": "<string>"}`, `{"path": "N/A"}`.
    """
    required = required_arguments(schema)
    if not required:
        return False
    if not isinstance(arguments, dict):
        return _is_blank(arguments)
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    given = {name: arguments[name] for name in required if name in arguments} or arguments
    return all(_is_blank(value) or _is_placeholder(name, value, known.get(name)) for name, value in given.items())


def schema_defects(
    name: str, arguments: Any, schemas: dict[str, dict[str, Any]], *, call_index: int | None = None
) -> list[Defect]:
    """Return what is wrong with a call against the tools on offer; at most one defect of each kind."""
    schema = schemas.get(name)
    if schema is None:
        detail = f"{name[:80]!r} is not one of {sorted(schemas)[:20]}"
        return [Defect(kind="unknown_tool", detail=detail, call_index=call_index)]
    found: dict[str, str] = {}
    if are_arguments_empty(arguments, schema):
        found["empty_arguments"] = f"{name} requires {required_arguments(schema)}"
    if not isinstance(arguments, dict):
        found["schema_violation"] = f"arguments are {type(arguments).__name__}, not an object"
    else:
        try:
            for error in _validator(canonical_json(schema)).iter_errors(arguments):
                kind = "missing_argument" if error.validator == "required" else "schema_violation"
                where = "/".join(str(part) for part in error.absolute_path) or "arguments"
                found.setdefault(kind, f"{where}: {error.validator}")
        except (SchemaError, Unresolvable, RecursionError, ValueError, TypeError):
            # The tool's own schema is broken: that is no fault of the model's.
            pass
    return [Defect(kind=kind, detail=detail[:200], call_index=call_index) for kind, detail in found.items()]


@lru_cache(maxsize=512)
def _validator(schema_json: str) -> Draft202012Validator:
    import json

    schema = json.loads(schema_json)
    Draft202012Validator.check_schema(schema)
    # An explicit registry: the default one would fetch unknown references from the network.
    return Draft202012Validator(schema, registry=REGISTRY)


def _is_placeholder(name: str, value: Any, schema: Any) -> bool:
    """Return whether a text only names its argument or the argument's type, or fills its place with nothing."""
    if not isinstance(value, str) or (isinstance(schema, dict) and value in (schema.get("enum") or ())):
        return False
    text = value.strip()
    if text.strip(" <>{}[]").lower() in (str(name).lower(), "string", "str"):
        return True
    # What is looked for, or what a file is to say, may well be `null` or `<path>`.
    return name not in _LITERAL_KEYS and _FILLER.fullmatch(text) is not None


def _is_blank(value: Any) -> bool:
    """Return whether a value holds nothing: null, blank text, or a list or object of such values."""
    if isinstance(value, dict | list):
        return all(map(_is_blank, value.values() if isinstance(value, dict) else value))
    return value is None or (isinstance(value, str) and not value.strip())

"""Tool definitions that sessions record, made safe: plain JSON Schema without references and patterns.

A definition is untrusted text. References could lead to the network or in a circle, patterns could take for ever to
match, marks of the chat template could forge turns; none of that is needed to say what a tool takes.
"""

from __future__ import annotations

from typing import Any

from toolcall_pipeline.dataset.drafts import neutral_json

_MAX_DEPTH = 12
_MAX_DESCRIPTION_CHARACTERS = 600
_PLAIN = frozenset(
    {
        "type", "title", "description", "enum", "const", "default", "examples", "format", "required", "minimum", "maximum",
        "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems",
    }
)  # fmt: skip
_SCHEMA_OF_PARAMETERS = ("parameters", "input_schema", "inputSchema")


def name_of_definition(definition: Any) -> str | None:
    """Return the name of an offered tool, recorded as a name or as a definition; None where it has none."""
    if isinstance(definition, str):
        return definition
    name = _function(definition).get("name")
    return name if isinstance(name, str) else None


def plain_definition(definition: Any) -> tuple[str, dict[str, Any]] | None:
    """Return a recorded definition's description and parameters, made safe; None where it names no parameters.

    Args:
        definition: An OpenAI function tool, or one in the form of Anthropic or MCP.
    """
    function = _function(definition)
    parameters = next((function[key] for key in _SCHEMA_OF_PARAMETERS if isinstance(function.get(key), dict)), None)
    if parameters is None:
        return None
    description = str(function.get("description") or "")[:_MAX_DESCRIPTION_CHARACTERS]
    return neutral_json(description), neutral_json(_plain(parameters, parameters, _MAX_DEPTH))


def _function(definition: Any) -> dict[str, Any]:
    function = definition.get("function", definition) if isinstance(definition, dict) else None
    return function if isinstance(function, dict) else {}


def _plain(schema: Any, root: dict[str, Any], depth: int) -> Any:
    """Return a schema with local references put in, and without every keyword that is not plain."""
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict) or depth == 0:
        return {}
    if isinstance(schema.get("$ref"), str):
        return _plain(_referred(schema["$ref"], root), root, depth - 1)
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _PLAIN:
            result[key] = value
        elif key == "properties" and isinstance(value, dict):
            result[key] = {name: _plain(item, root, depth - 1) for name, item in value.items()}
        elif key in ("items", "additionalProperties"):
            result[key] = _plain(value, root, depth - 1)
        elif key in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            result[key] = [_plain(item, root, depth - 1) for item in value]
    return result


def _referred(reference: str, root: dict[str, Any]) -> Any:
    """Return what a reference inside the same schema points to; anything is allowed where it points nowhere."""
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if isinstance(found, dict) and part else None
    return found if reference.startswith("#/") else None

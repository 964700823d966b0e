"""Tool schemas: the registry of known agent tools, and schemas recovered from what was observed.

A known tool keeps its registry schema where the observed inputs fit it (95 %); properties that sessions use and the
registry does not know are added. Any other tool (MCP servers, newer agents) gets a schema inferred by genson: types
as seen, required where at least 95 % of calls gave it (the source's first limit of exact presence rejected too much),
an enum only where few short values repeat. All are JSON Schema 2020-12.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from jsonschema import Draft202012Validator

from toolcall_pipeline.dataset.definitions import name_of_definition, plain_definition

REQUIRED_RATIO = 0.95
"""A recovered property is required when at least this share of calls gives it (source design, section 13)."""
FITTING_RATIO = 0.95
"""A registry schema is used when at least this share of the observed inputs fits it."""
_KEPT_INPUTS_COUNT = 400
_MAX_PROPERTIES = 40
"""An object with more keys than this is a table of the user's own keys, not a form."""
_MAX_DEPTH = 5
_SKETCH_DEPTH = 16
"""Deeper than any schema looks: a recorded definition has at most twelve levels."""
_ENUM_MIN_CALLS = 20
_ENUM_MAX_VALUES = 6
_ENUM_MAX_CHARACTERS = 24
_VALID_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@lru_cache(maxsize=1)
def registry() -> dict[str, dict[str, Any]]:
    """Return the known tools by name: `description`, `parameters`, `purposes`."""
    path = resources.files("toolcall_pipeline.dataset") / "tool_registry.json"
    return {tool["name"]: tool for tool in json.loads(path.read_text(encoding="utf-8"))["tools"]}


def as_arguments(tool_name: str, tool_input: Any) -> dict[str, Any]:
    """Return a call's input as the object a chat template takes.

    A free-form tool (Codex's `apply_patch`) is given its text under its one parameter.
    """
    if isinstance(tool_input, dict):
        return tool_input
    known = registry().get(tool_name)
    properties = list(known["parameters"]["properties"]) if known else []
    return {properties[0] if len(properties) == 1 else "input": tool_input}


def is_usable_name(name: str) -> bool:
    """Return whether a tool name can stand in a function schema."""
    return _VALID_NAME.fullmatch(name) is not None


@dataclass
class _Observed:
    """What was seen of one tool."""

    calls: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    long_valued: set[str] = field(default_factory=set)


class SchemaCollector:
    """Observe the inputs of every tool, then make one schema per tool; memory does not grow with the corpus."""

    def __init__(self) -> None:
        self._tools: dict[str, _Observed] = {}
        self._defined: dict[str, dict[str, Any]] = {}
        self._offered: set[str] = set()

    def observe(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Count one call that was carried out."""
        seen = self._tools.setdefault(name, _Observed())
        seen.calls += 1
        seen.keys.update(arguments.keys())
        if len(seen.inputs) < _KEPT_INPUTS_COUNT:
            seen.inputs.append({key: _sketch(value) for key, value in arguments.items()})
        for key, value in arguments.items():
            if key in seen.long_valued:
                continue
            values = seen.values.setdefault(key, Counter())
            if not isinstance(value, str) or len(value) > _ENUM_MAX_CHARACTERS or len(values) > _ENUM_MAX_VALUES:
                seen.long_valued.add(key)
                del seen.values[key]
            else:
                values[value] += 1

    def define(self, offered: Any) -> None:
        """Take what a session recorded of an offered tool, a name or a definition; the first definition counts."""
        name = name_of_definition(offered)
        if name is None or name in self._defined:
            return
        found = plain_definition(offered)
        if found is not None and is_valid_schema(found[1]):
            self._defined[name] = {"description": found[0], "parameters": found[1]}
        elif name in registry():
            self._offered.add(name)

    def schemas(self, detail: Literal["full", "observed"] = "full") -> dict[str, dict[str, Any]]:
        """Return OpenAI function tools by name, sorted by name.

        Args:
            detail: `full`, or `observed`: only the properties that calls use or need, without their descriptions.
        """
        names = set(self._tools) | set(self._defined) | self._offered
        schemas = {name: self._schema(name) for name in sorted(names) if is_usable_name(name)}
        if detail == "full":
            return schemas
        return {name: _cut_to_use(tool, self._tools.get(name, _Observed())) for name, tool in schemas.items()}

    def _schema(self, name: str) -> dict[str, Any]:
        seen = self._tools.get(name, _Observed())
        known = self._defined.get(name) or registry().get(name)
        if known is not None:
            parameters = _extended(known["parameters"], seen)
            checker = CallChecker({name: function_tool(name, "", parameters)})
            fitting = sum(checker.problem(name, value) is None for value in seen.inputs)
            if fitting >= FITTING_RATIO * len(seen.inputs):
                return function_tool(name, known["description"], parameters)
        return function_tool(name, _describe(name, seen), _recovered(seen))


def function_tool(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAI function tool."""
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _cut_to_use(tool: dict[str, Any], seen: _Observed) -> dict[str, Any]:
    """Return a tool with the properties that calls used or must give, and the first sentence about it."""
    function = tool["function"]
    parameters = function["parameters"]
    needed = set(parameters.get("required", ())) | set(seen.keys)
    properties = {
        key: _without_descriptions(value) for key, value in parameters.get("properties", {}).items() if key in needed
    }
    sentence = function["description"].split(". ")[0].rstrip(".") + "."
    return function_tool(function["name"], sentence, {**parameters, "properties": properties})


def _without_descriptions(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: {name: _without_descriptions(item) for name, item in value.items()}
            if key == "properties"
            else _without_descriptions(value)
            for key, value in schema.items()
            if key != "description"
        }
    return [_without_descriptions(item) for item in schema] if isinstance(schema, list) else schema


def is_valid_schema(schema: dict[str, Any]) -> bool:
    """Return whether a schema is a valid JSON Schema 2020-12 of an object."""
    return _is_valid_schema_text(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=1024)
def _is_valid_schema_text(text: str) -> bool:
    schema = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
    except Exception:  # noqa: BLE001 - jsonschema raises more than SchemaError on hostile input (bad patterns, recursion)
        return False
    return schema.get("type", "object") == "object"


def _sketch(value: Any, depth: int = _SKETCH_DEPTH) -> Any:
    """Return a value with the same types and shape, strings and depths cut: inference needs no more."""
    if isinstance(value, str):
        return value[:64]
    if depth == 0:
        return None
    if isinstance(value, list):
        return [_sketch(item, depth - 1) for item in value[:20]]
    if isinstance(value, dict):
        return {key: _sketch(item, depth - 1) for key, item in list(value.items())[:50]}
    return value


def _infer(values: Iterable[Any]) -> dict[str, Any]:
    from genson import SchemaBuilder

    builder = SchemaBuilder(schema_uri=None)
    for value in values:
        builder.add_object(value)
    return builder.to_schema()


def _extended(parameters: dict[str, Any], seen: _Observed) -> dict[str, Any]:
    """Return a known schema with the further properties sessions use often enough to be real."""
    properties = dict(parameters.get("properties", {}))
    for key in sorted(set(seen.keys) - set(properties)):
        if seen.keys[key] >= max(3, 0.01 * seen.calls):
            schema = _infer(value[key] for value in seen.inputs if key in value)
            if schema:
                properties[key] = _loose(schema, _MAX_DEPTH)
    return {**parameters, "properties": properties}


def _recovered(seen: _Observed) -> dict[str, Any]:
    inferred = _infer(seen.inputs) if seen.inputs else {}
    often = sorted(sorted(seen.keys), key=lambda key: -seen.keys[key])[:_MAX_PROPERTIES]
    found = inferred.get("properties", {})
    # A key that was seen only after the kept inputs has no inferred type: it may be anything.
    properties = {key: _loose(found.get(key, {}), _MAX_DEPTH) for key in sorted(often)}
    for key, values in sorted(seen.values.items()):
        if key in properties and properties[key].get("type") == "string" and _is_safe_enum(values, seen.keys[key]):
            properties[key] = {"type": "string", "enum": sorted(values)}
    required = [key for key in properties if seen.keys[key] >= REQUIRED_RATIO * seen.calls]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": len(seen.keys) > len(properties),
    }


def _is_safe_enum(values: Counter[str], calls: int) -> bool:
    """Few values, each seen often, enough calls: then another value would be news."""
    words = all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", value) for value in values)
    return calls >= _ENUM_MIN_CALLS and 2 <= len(values) <= _ENUM_MAX_VALUES and min(values.values()) >= 3 and words


def _loose(schema: dict[str, Any], depth: int) -> dict[str, Any]:
    """Return an inferred schema without what a few calls are no proof of.

    That is `required` below the top, the keys of large objects, and whatever lies deeper than `depth`.
    """
    if depth == 0:
        return {}
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            if len(value) <= _MAX_PROPERTIES:
                result[key] = {name: _loose(item, depth - 1) for name, item in value.items()}
        elif key == "anyOf":
            result[key] = [_loose(item, depth) for item in value]
        elif key == "items":
            result[key] = _loose(value, depth - 1)
        elif key != "required":
            result[key] = value
    return result


def _describe(name: str, seen: _Observed) -> str:
    """Return a description of a tool nobody described: its words, its server, its parameters."""
    server, tool = "", name
    match = re.fullmatch(r"mcp__(.+?)__(.+)", name)
    if match:
        server, tool = match[1].replace("_", " "), match[2]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.:]+", " ", tool).strip().lower()
    source = f" of the MCP server {server}" if server else ""
    given = ", ".join(key for key, _ in sorted(seen.keys.items(), key=lambda item: (-item[1], item[0]))[:4])
    return f"{words[:1].upper()}{words[1:]}{source}." + (f" Takes {given}." if given else "")


class CallChecker:
    """Check calls against the schemas; remembers verdicts of equal inputs."""

    def __init__(self, schemas: Mapping[str, dict[str, Any]]) -> None:
        self._validators = {
            name: Draft202012Validator(tool["function"]["parameters"]) for name, tool in schemas.items()
        }
        self._required = {
            name: tuple(tool["function"]["parameters"].get("required", ())) for name, tool in schemas.items()
        }
        self._simple = {name: _simple_checks(tool["function"]["parameters"]) for name, tool in schemas.items()}

    def problem(self, name: str, arguments: dict[str, Any]) -> str | None:
        """Return why a call does not fit (`unknown_tool`, `empty_arguments`, `schema_violation`), or None."""
        if name not in self._validators:
            return "unknown_tool"
        if not arguments and self._required[name]:
            return "empty_arguments"
        simple = self._simple[name]
        if simple is not None and _fits_simple(arguments, simple, self._required[name]):
            return None
        return None if self._validators[name].is_valid(arguments) else "schema_violation"


_TYPES: dict[str, type] = {"string": str, "boolean": bool, "integer": int}


@dataclass(frozen=True, slots=True)
class _SimpleCheck:
    """A flat property: the Python type of its values, and the words they are among."""

    kind: type
    words: frozenset[str] | None

    def accepts(self, value: Any) -> bool:
        return type(value) is self.kind and (self.words is None or value in self.words)


def _simple_checks(parameters: dict[str, Any]) -> dict[str, _SimpleCheck] | None:
    """Return the flat properties: enough to say yes at once to most calls."""
    if parameters.get("type") != "object" or set(parameters) - {
        "type", "properties", "required", "additionalProperties", "$schema", "description",
    }:  # fmt: skip
        return None
    checks = {}
    for key, schema in parameters.get("properties", {}).items():
        if not isinstance(schema, dict) or set(schema) - {"type", "description", "enum"}:
            continue
        kind = _TYPES.get(schema["type"]) if isinstance(schema.get("type"), str) else None
        words: Any = schema.get("enum")
        if kind is not None and words is None:
            checks[key] = _SimpleCheck(kind, None)
        elif kind is str and all(isinstance(word, str) for word in words):
            checks[key] = _SimpleCheck(kind, frozenset(words))
    return checks


def _fits_simple(arguments: dict[str, Any], simple: dict[str, _SimpleCheck], required: tuple[str, ...]) -> bool:
    return all(key in arguments for key in required) and all(
        key in simple and simple[key].accepts(value) for key, value in arguments.items()
    )

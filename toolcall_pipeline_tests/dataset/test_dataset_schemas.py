"""Schemas: known tools keep theirs, others are recovered, and no call that does not fit gets through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from toolcall_pipeline.dataset.schemas import CallChecker, SchemaCollector, as_arguments, is_valid_schema, registry

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def collected(name: str, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    collector = SchemaCollector()
    for arguments in inputs:
        collector.observe(name, arguments)
    return collector.schemas()[name]["function"]


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_known_tool_has_a_valid_schema_and_a_real_description(name: str) -> None:
    tool = registry()[name]
    assert is_valid_schema(tool["parameters"])
    assert len(tool["description"]) > 20
    assert tool["parameters"]["additionalProperties"] is False


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=8), _JSON, max_size=4), min_size=1, max_size=25))
def test_whatever_was_observed_gives_a_valid_schema_that_nearly_all_of_it_fits(inputs: list[dict[str, Any]]) -> None:
    schema = collected("mcp__any__tool", inputs)["parameters"]
    assert is_valid_schema(schema)
    fitting = sum(Draft202012Validator(schema).is_valid(value) for value in inputs)
    assert fitting >= 0.8 * len(inputs) - 1


@pytest.mark.parametrize(
    ("given_in", "of", "required"),
    [(100, 100, True), (95, 100, True), (94, 100, False), (1, 100, False)],
)
def test_a_recovered_property_is_required_from_95_percent(given_in: int, of: int, required: bool) -> None:
    inputs = [{"id": "x", **({"team": "t"} if index < given_in else {})} for index in range(of)]
    assert ("team" in collected("mcp__a__b", inputs)["parameters"].get("required", [])) == required


@pytest.mark.parametrize(
    ("values", "is_enum"),
    [
        (["open", "closed"] * 15, True),  # few words, often
        (["open", "closed"] * 5, False),  # too few calls
        ([*["open"] * 29, "closed"], False),  # one value seen once
        ([f"T-{number}" for number in range(30)], False),  # identities
        (["a b", "c d"] * 20, False),  # not words
        (["only"] * 30, False),  # one value says nothing
    ],
)
def test_an_enum_is_recovered_only_where_it_is_safe(values: list[str], is_enum: bool) -> None:
    schema = collected("mcp__a__b", [{"state": value} for value in values])["parameters"]
    assert ("enum" in schema["properties"]["state"]) == is_enum


def test_a_known_tool_keeps_its_schema_and_gains_what_sessions_use() -> None:
    inputs = [{"file_path": "/a", "encoding": "utf-8"} for _ in range(10)] + [{"file_path": "/a"}] * 10
    function = collected("Read", inputs)
    assert function["description"] == registry()["Read"]["description"]
    assert function["parameters"]["properties"]["encoding"] == {"type": "string"}
    assert function["parameters"]["required"] == ["file_path"]


def test_another_tool_of_a_known_name_is_recovered() -> None:
    function = collected("Read", [{"uri": "x", "depth": number} for number in range(20)])
    assert set(function["parameters"]["properties"]) == {"uri", "depth"}


def test_a_definition_the_session_recorded_wins() -> None:
    collector = SchemaCollector()
    parameters = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    assert collector.define({"name": "Find", "description": "Find it.", "input_schema": parameters}) == "Find"
    collector.observe("Find", {"q": "x"})
    assert collector.schemas()["Find"]["function"]["parameters"]["properties"] == {"q": {"type": "string"}}
    assert collector.define({"name": "Bad", "parameters": {"type": 7}}) == "Bad"
    assert "Bad" not in collector.schemas()
    assert collector.define(3) is None


def test_an_mcp_tool_is_described_by_its_words_and_parameters() -> None:
    text = collected("mcp__linear-server__create_issue", [{"title": "t", "team": "x"}])["description"]
    assert text == "Create issue of the MCP server linear-server. Takes team, title."


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("Read", {"file_path": "/a"}, None),
        ("Read", {"file_path": "/a", "limit": 3}, None),
        ("Read", {"file_path": "/a", "limit": "3"}, "schema_violation"),
        ("Read", {"file_path": 3}, "schema_violation"),
        ("Read", {"limit": 3}, "schema_violation"),
        ("Read", {}, "empty_arguments"),
        ("Read", {"file_path": "/a", "colour": "red"}, "schema_violation"),
        ("TaskList", {}, None),  # the schema permits it
        ("Nope", {"a": 1}, "unknown_tool"),
        ("Grep", {"pattern": "x", "output_mode": "all"}, "schema_violation"),
        ("Edit", {"file_path": "/a", "old_string": "a", "new_string": "b", "replace_all": 1}, "schema_violation"),
    ],
)
def test_calls_are_checked(name: str, arguments: dict[str, Any], problem: str | None) -> None:
    tools = {
        key: {"function": {"name": key, "parameters": registry()[key]["parameters"]}}
        for key in ("Read", "TaskList", "Grep", "Edit")
    }
    assert CallChecker(tools).problem(name, arguments) == problem


@settings(deadline=None, max_examples=60)
@given(_JSON)
def test_any_input_becomes_an_object(value: Any) -> None:
    assert isinstance(as_arguments("apply_patch", value), dict)
    assert isinstance(as_arguments("Other", value), dict)


def test_a_free_form_patch_is_the_tools_one_parameter() -> None:
    assert as_arguments("apply_patch", "*** Begin Patch") == {"input": "*** Begin Patch"}

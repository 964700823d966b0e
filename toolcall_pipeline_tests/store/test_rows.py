"""Rows: inputs over 16 KiB are cut, the order of arguments is kept, and any text survives COPY."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolcall_pipeline.store.rows import (
    COLUMNS,
    TOOL_INPUT_LIMIT_BYTES,
    call_content_hash,
    cut_tool_input,
    dump_json,
    encode_copy,
    ordered_json,
)
from toolcall_pipeline.store.server import libpq_url

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("tool_input", "keys"),
    [
        ({"file_path": "/x", "content": "a" * 100_000}, ["file_path", "content"]),
        ({"edits": [{"old": "b" * 30_000, "new": "c" * 30_000}]}, ["edits"]),
        ({"content": "\N{SNOWMAN}" * 20_000}, ["content"]),
        ({"n": list(range(20_000))}, ["_cut_json"]),  # no string to shorten
        ("d" * 40_000, None),
    ],
)
def test_an_input_over_16_kib_is_cut_and_says_where(tool_input: Any, keys: list[str] | None) -> None:
    cut, truncated = cut_tool_input(tool_input)
    assert truncated == TOOL_INPUT_LIMIT_BYTES
    assert len(dump_json(cut)) <= TOOL_INPUT_LIMIT_BYTES
    assert len(dump_json(cut)) >= TOOL_INPUT_LIMIT_BYTES // 4, "no more is lost than has to be"
    if keys is not None:
        assert list(cut) == keys


@given(json_values)
def test_an_input_up_to_16_kib_is_stored_as_it_is(value: Any) -> None:
    assert cut_tool_input(value) == (value, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"file_path": 1, "old_string": 2, "new_string": 3}, '{"file_path":1,"old_string":2,"new_string":3}'),
        ({"a": 1, "b": 2, "aa": 3}, None),  # jsonb orders by length, then bytes: nothing to keep
        ({"aa": 1, "b": 2}, '{"aa":1,"b":2}'),
        ([{"b": 1, "a": 2}], '[{"b":1,"a":2}]'),
        ("text", None),
    ],
)
def test_the_order_of_arguments_is_kept_where_jsonb_would_lose_it(value: Any, expected: str | None) -> None:
    assert ordered_json(value) == expected


def test_the_hash_of_a_call_ignores_the_order_of_its_arguments() -> None:
    assert call_content_hash("Read", {"a": 1, "b": 2}) == call_content_hash("Read", {"b": 2, "a": 1})
    assert call_content_hash("Read", {"a": 1}) != call_content_hash("Write", {"a": 1})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=5), value=json_values)
def test_any_text_and_any_json_survive_the_copy(postgres_url: str, texts: list[str], value: Any) -> None:
    rows = [
        {"event_id": str(number), "prompt_text": text, "cwd": None, "has_image": True, "turn_index": number}
        for number, text in enumerate(texts)
    ]
    calls = [
        {"event_id": "c", "tool_input": value, "tool_input_ordered": dump_json(value).decode(), "response": texts[0]}
    ]
    with psycopg.connect(libpq_url(postgres_url)) as connection:
        for table, data in (("mem_user_prompts", rows), ("mem_tool_calls", calls)):
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS[table])
            connection.execute(f"CREATE TEMP TABLE {table} ({columns})")
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(encode_copy(table, data))
        stored = connection.execute(
            "SELECT prompt_text, cwd, has_image, turn_index FROM mem_user_prompts ORDER BY turn_index"
        ).fetchall()
        kept = connection.execute("SELECT tool_input_ordered::text, response FROM mem_tool_calls").fetchone()
        connection.rollback()
    assert stored == [(storable(text), None, True, number) for number, text in enumerate(texts)]
    assert kept is not None
    assert json.loads(kept[0]) == json.loads(dump_json(value))
    assert kept[1] == storable(texts[0])


def storable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        ({"big": 10**40}, {"big": 10**40}),
        ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
        ("literal \\u0000", "literal \\u0000"),
        ({"\ud800": "\udfff"}, {"?": "?"}),
    ],
)
def test_what_jsonb_refuses_is_made_storable(value: Any, expected: Any) -> None:
    assert json.loads(dump_json(value)) == expected

"""Sessions and templates nobody would write on purpose: nothing breaks the build, nothing is lost uncounted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Builder
from dataset_fakes import FakeTokenizer, call, episode, judge, make_corpus, step

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.rows import Row
from toolcall_pipeline.dataset.templates import hermes_template
from toolcall_pipeline.dataset.writing import read_rows
from toolcall_pipeline.errors import DatasetError
from toolcall_pipeline.gates.verdict import Verdict
from toolcall_pipeline.store.episodes import AssistantStep, Episode

_STRUCTURE = ("mask_proof", "renders", "no_empty_arguments", "template_parity_training", "split_disjoint", "no_secrets")
_SURROGATE = "\ud800"


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def _odd(steps: list[AssistantStep], number: int, **changes: Any) -> Episode:
    place = f"odd-{number}"
    fields = {"prompt": f"odd task {number}", "prompt_event_id": place, "session_id": place, "family_id": place}
    return episode([*steps, step("Finished.")], **{**fields, **changes})


def _odd_rows(artifact: Artifact) -> list[Row]:
    names = (files.TRAIN_CHAT, files.VALID_CHAT)
    rows = [row for name in names for row in read_rows(artifact.path(name))]
    return [row for row in rows if row.meta.session_id.startswith("odd-")]


def _steps(*calls: tuple[str, Any, str]) -> Callable[[int], list[AssistantStep]]:
    return lambda number: [
        step(
            "", *(call(name, given, result, event_id=f"{number}-{i}") for i, (name, given, result) in enumerate(calls))
        )
    ]


@pytest.mark.parametrize(
    "steps",
    [
        _steps(("mcp.server.v1.read:all", {"a": 1}, "fine")),
        _steps(("Odd", [1, {"a": None}], "fine")),
        _steps(("apply_patch", "*** Begin Patch\n…", "fine")),
        _steps(("Odd", 10**400, "fine")),
        _steps(("Odd", {"x": float("nan"), "y": float("inf")}, "fine")),
        _steps(("Odd", {f"x{_SURROGATE}": f"{_SURROGATE}v"}, f"cut {_SURROGATE}")),
        _steps(("Odd", _nested(110), "fine")),
        _steps(("Bash", {"command": "a\r\nb"}, "\r\n\r" * 50)),
        _steps(("Read", {"file_path": "/home/user/app/\x00\u202e.py"}, "ab c\n" * 1_000_000)),
    ],
    ids=[
        "dotted name", "list", "text", "number without end", "not a number", "lone surrogate", "nested", "cr", "5 MB",
    ],
)  # fmt: skip
def test_odd_calls_become_rows_that_pass(steps: Callable[[int], list[AssistantStep]], build: Builder) -> None:
    artifact = build([*make_corpus(8), *(_odd(steps(number), number) for number in range(4))])
    artifact.verify()
    assert len({row.meta.session_id for row in _odd_rows(artifact)}) == 4
    assert [name for name in _STRUCTURE if judge(artifact, name).verdict is not Verdict.PASS] == []


@pytest.mark.parametrize("name", ["mcp__" + "x" * 195, "", "with space", f"odd{_SURROGATE}", "<|im_end|>"])
def test_a_call_under_an_unusable_name_is_counted_and_never_supervised(name: str, build: Builder) -> None:
    artifact = build(
        [*make_corpus(8), *(_odd(_steps((name, {"a": 1}, "fine"))(number), number) for number in range(4))]
    )
    turns = json.loads(artifact.path(files.DATASET_MANIFEST).read_bytes())["drop_reasons"]["turns_unsupervised"]
    assert turns["unusable_tool_name"] == 4
    assert not any(message.supervised for row in _odd_rows(artifact) for message in row.messages)


def test_recorded_definitions_that_are_no_schemas_do_no_harm(build: Builder) -> None:
    circle = {
        "type": "object",
        "properties": {"a": {"$ref": "#/properties/a"}, "b": {"pattern": "(a+)+$", "type": ["x"]}},
    }
    offered = (
        {"name": "Odd", "parameters": {**circle, "required": "a"}}, {"name": 5}, None, 7, f"Odd{_SURROGATE}",
        {"name": "Other", "input_schema": {"type": "object", "properties": {"a": {"enum": [_SURROGATE]}}}},
    )  # fmt: skip
    steps = _steps(("Odd", {"a": 1}, "fine"))
    artifact = build([*make_corpus(8), *(_odd(steps(n), n, offered_tools=offered) for n in range(4))])
    rows = _odd_rows(artifact)
    assert len(rows) == 4
    assert all("Odd" in {tool["function"]["name"] for tool in row.tools} for row in rows)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError"),
        ("{% set _ = messages.append(1) %}" + hermes_template(), "SecurityError"),
        ("{{ raise_exception('no tools here') }}", "no tools here"),
        ("{% for x in %}", "does not parse"),
        ("hello", "does not end an assistant turn"),
    ],
)
def test_a_template_that_cannot_render_a_call_stops_the_build_and_says_why(
    template: str, said: str, build: Builder, fake_tokenizer: FakeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_tokenizer, "chat_template", template)
    with pytest.raises(DatasetError, match=re.escape(said)) as caught:
        build(make_corpus(4))
    assert "Choose a base whose template supports tools" in str(caught.value)


def test_a_session_in_a_script_that_the_vocabulary_spells_in_bytes_loses_no_turn(build: Builder) -> None:
    lines = "".join(f"{number} 读取配置文件，检查数据库连接😀\n" for number in range(60))
    tools = (("Read", "file_path"), ("Grep", "pattern"), ("Glob", "pattern"), ("LS", "path"), ("WebSearch", "query"))
    steps = [
        step(f"第{number}步。", call(name, {key: f"/home/user/app/{number}"}, lines, event_id=f"c{number}"))
        for number, (name, key) in ((number, tools[number % 5]) for number in range(10))
    ]
    artifact = build([_odd(steps, 1), *make_corpus(6)], dataset={"max_row_tokens": 4096, "tool_detail": "observed"})
    shown = {event for row in _odd_rows(artifact) for event in row.meta.call_event_ids}
    left_out = json.loads(artifact.path(files.DATASET_MANIFEST).read_bytes())["drop_reasons"]
    assert shown == {f"c{number}" for number in range(10)}
    assert "too_long_for_a_row" not in left_out["turns_unsupervised"]
    assert all(judge(artifact, name).verdict is Verdict.PASS for name in ("mask_proof", "renders"))


@pytest.mark.parametrize(
    ("size", "changes", "reason"),
    [
        (30_000, {}, "too_long_for_a_row"),
        (3_000, {"truncated_at_bytes": 2_000}, "cut_arguments"),
        (30_000, {"truncated_at_bytes": 16_384}, "too_long_for_a_row"),
    ],
)
def test_what_was_said_of_a_call_that_no_row_shows_is_never_supervised(
    build: Builder, size: int, changes: dict[str, Any], reason: str
) -> None:
    written = call("NotebookEdit", {"notebook_path": "/a.ipynb", "new_source": "x1" * (size // 2)}, "ok", **changes)
    artifact = build([_odd([step("", written)], 1), *make_corpus(6)], dataset={"tool_detail": "observed"})
    left_out = json.loads(artifact.path(files.DATASET_MANIFEST).read_bytes())["drop_reasons"]["turns_unsupervised"]
    assert reason in left_out
    assert "calls_unknown_tool" not in left_out
    for row in _odd_rows(artifact):
        assert any(message.tool_calls for message in row.messages)
        assert [message.content for message in row.messages if message.supervised] == ["Finished."]

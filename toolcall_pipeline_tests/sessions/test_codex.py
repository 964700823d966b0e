"""Codex CLI rollouts to nodes and events."""

import json
from pathlib import Path
from typing import Any

import pytest

from toolcall_pipeline.sessions.graph import resolve
from toolcall_pipeline_tests.sessions.lines import Read

CALL = "call_o21HSwZl4k9kXA5sWynFqpcC"


def item(second: int, payload: dict[str, Any], kind: str = "response_item", minute: int = 0) -> dict[str, Any]:
    return {"timestamp": f"2026-08-01T10:{minute:02d}:{second:02d}.000Z", "type": kind, "payload": payload}


def meta(session: str = "s-1", **fields: Any) -> dict[str, Any]:
    payload = {
        "id": session,
        "cwd": "/work",
        "cli_version": "0.66.0",
        "git": {"branch": "main"},
        "timestamp": "2026-08-01T10:00:00.000Z",
    }
    return item(0, payload | fields, "session_meta")


def user(second: int, words: str, **fields: Any) -> dict[str, Any]:
    return item(
        second, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": words}]}, **fields
    )


def answer(second: int, words: str, **fields: Any) -> dict[str, Any]:
    return item(
        second, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": words}]}, **fields
    )


def event(second: int, kind: str, **payload: Any) -> dict[str, Any]:
    return item(second, {"type": kind, **payload}, "event_msg")


def call(second: int, call_id: str = CALL, **fields: Any) -> dict[str, Any]:
    return item(second, {"type": "function_call", "name": "shell", "call_id": call_id, "arguments": "{}"} | fields)


def output(second: int, value: Any, call_id: str = CALL) -> dict[str, Any]:
    return item(second, {"type": "function_call_output", "call_id": call_id, "output": value})


def read(tmp_path: Path, lines: list[dict[str, Any]], name: str = "rollout-1.jsonl") -> Read:
    path = tmp_path / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return Read(path, "codex")


@pytest.mark.parametrize(
    "lines",
    [
        [user(1, "hi"), event(1, "user_message", message="hi")],
        [event(1, "user_message", message="hi"), user(1, "hi")],
        [event(1, "user_message", message="hi")],  # some files have only the one
        [user(1, "hi")],
    ],
)
def test_a_prompt_recorded_twice_is_told_once(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    assert [prompt.text for prompt in read(tmp_path, [meta(), *lines]).of("prompt")] == ["hi"]


def test_the_same_words_typed_twice_are_two_prompts(tmp_path: Path) -> None:
    pair = [user(1, "ok"), event(1, "user_message", message="ok")]
    found = read(tmp_path, [meta(), *pair, answer(2, "fine"), user(3, "ok"), event(3, "user_message", message="ok")])
    assert len(found.of("prompt")) == 2
    assert len({prompt.event_id for prompt in found.of("prompt")}) == 2


@pytest.mark.parametrize("is_event_first", [True, False])
def test_a_prompt_with_an_image_is_told_once(tmp_path: Path, is_event_first: bool) -> None:
    blocks = [
        {"type": "input_text", "text": "<image name=[Image #1]>"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA"},
        {"type": "input_text", "text": "</image>"},
        {"type": "input_text", "text": "what is it?"},
    ]
    pair = [
        item(1, {"type": "message", "role": "user", "content": blocks}),
        event(1, "user_message", message="what is it?", images=["data:image/png;base64,AA"]),
    ]
    prompts = read(tmp_path, [meta(), *(reversed(pair) if is_event_first else pair), answer(2, "x")]).of("prompt")
    assert [(prompt.text, prompt.has_image) for prompt in prompts] == [
        ("what is it?" if is_event_first else "[image]\nwhat is it?", True)
    ]


def test_a_search_the_provider_made_is_told_and_is_no_call(tmp_path: Path) -> None:
    action = {"type": "search", "query": "msgspec"}
    found = read(
        tmp_path, [meta(), user(1, "hi"), item(2, {"type": "web_search_call", "id": "ws_1", "action": action})]
    )
    assert [(entry.kind.value, entry.subkind, entry.text) for entry in found.events[1:]] == [
        ("other", "hosted_call", "msgspec")
    ]


def test_answers_recorded_twice_are_told_once(tmp_path: Path) -> None:
    found = read(tmp_path, [meta(), user(1, "hi"), event(2, "agent_message", message="hello"), answer(2, "hello")])
    assert [text.text for text in found.of("assistant_text")] == ["hello"]


def test_instructions_and_surroundings_are_no_prompts(tmp_path: Path) -> None:
    lines = [
        meta(),
        item(1, {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]}),
        user(1, "<environment_context>\n<cwd>/x</cwd>\n</environment_context>"),
        user(1, "# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>x</INSTRUCTIONS>"),
    ]
    assert [(found.kind.value, found.subkind) for found in read(tmp_path, lines).events] == [
        ("other", "instructions"),
        ("other", "reminder"),
        ("other", "reminder"),
    ]


@pytest.mark.parametrize(
    ("fields", "tool_input"),
    [
        ({"arguments": '{"command": ["ls"]}'}, {"command": ["ls"]}),
        ({"arguments": "not JSON"}, "not JSON"),
        ({"arguments": {"a": 1}}, {"a": 1}),
        ({"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin"}, {"input": "*** Begin"}),
        ({"type": "local_shell_call", "action": {"command": ["ls"]}}, {"command": ["ls"]}),
    ],
)
def test_every_kind_of_call_gives_its_arguments(tmp_path: Path, fields: dict[str, Any], tool_input: Any) -> None:
    found = read(tmp_path, [meta(), user(1, "go"), call(2, **fields)])
    assert found.event(CALL).tool_input == tool_input
    assert found.event(CALL).git_branch == "main"


@pytest.mark.parametrize(
    ("value", "text", "is_error"),
    [
        ("plain", "plain", None),
        ("Exit code: 1\nOutput:\nno", "Exit code: 1\nOutput:\nno", True),
        (
            "Chunk ID: 1\nProcess exited with code 0\nOutput:\n",
            "Chunk ID: 1\nProcess exited with code 0\nOutput:\n",
            False,
        ),
        ('{"output": "boom", "metadata": {"exit_code": 2}}', "boom", True),
        ({"content": "yes", "success": True}, "yes", False),
        ([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb", None),
        (None, "", None),
    ],
)
def test_every_form_of_output_gives_text_and_outcome(
    tmp_path: Path, value: Any, text: str, is_error: bool | None
) -> None:
    result = read(tmp_path, [meta(), call(1), output(2, value)]).event(f"{CALL}:result")
    assert (result.text, result.is_error) == (text, is_error)


def test_calls_made_together_share_a_message_and_an_output_ends_it(tmp_path: Path) -> None:
    second = "call_ZZ1HSwZl4k9kXA5sWynFqpcC"
    lines = [
        meta(),
        user(1, "go"),
        answer(2, "I look"),
        call(3),
        call(4, second),
        output(5, "a"),
        output(5, "b", second),
        call(6, "c3"),
    ]
    found = read(tmp_path, lines)
    messages = [node.message_id for node in found.nodes if node.role == "assistant"]
    assert messages[0] == messages[1] == messages[2] != messages[3]


def test_a_rolled_back_turn_is_superseded(tmp_path: Path) -> None:
    lines = [
        meta(),
        user(1, "q1"),
        answer(2, "a1"),
        user(3, "q2"),
        answer(4, "a2"),
        event(5, "thread_rolled_back", num_turns=1),
    ]
    for behind in ([], [user(6, "q3"), answer(7, "a3")]):
        found = read(tmp_path, [*lines, *behind])
        left = [entry.text for entry in found.events if entry.node_id in found.graph.superseded]
        assert left == ["q2", "a2"]


def test_a_fork_that_copies_history_shares_its_events_and_family(tmp_path: Path) -> None:
    history = [user(1, "q1"), answer(2, "a1")]
    parent = read(tmp_path, [meta("s-1"), *history, user(3, "q2"), answer(4, "a2")], "rollout-1.jsonl")
    own = meta("s-2", forked_from_id="s-1", timestamp="2026-08-01T10:05:00.000Z")
    fork = read(
        tmp_path, [own, meta("s-1"), *history, user(9, "q3", minute=6), answer(10, "a3", minute=6)], "rollout-2.jsonl"
    )
    shared = {entry.event_id for entry in parent.events} & {entry.event_id for entry in fork.events}
    assert len(shared) == 2
    found = resolve([*parent.nodes, *fork.nodes])
    assert set(found.families.values()) == {"s-1"}
    assert not found.superseded


def test_a_spawned_agent_is_a_sub_agent_linked_to_the_call(tmp_path: Path) -> None:
    parent = read(tmp_path, [meta("s-1"), user(1, "go"), call(2, name="spawn_agent"), output(3, '{"agent_id": "s-9"}')])
    source = {"subagent": {"thread_spawn": {"parent_thread_id": "s-1"}}}
    child = read(tmp_path, [meta("s-9", source=source), user(4, "Explore"), answer(5, "3 modules")], "rollout-9.jsonl")
    assert [entry.subkind for entry in child.of("prompt")] == ["sub_agent_task"]
    found = resolve([*parent.nodes, *child.nodes])
    assert found.spawned_by == {"s-9": CALL}
    assert found.families["s-9"] == found.families["s-1"]


def test_the_old_form_without_payloads_is_read(tmp_path: Path) -> None:
    lines = [
        {"id": "s-0", "timestamp": "2025-06-01T09:00:00.000Z", "instructions": "x", "cwd": "/old"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "old"}]},
        {"type": "function_call", "name": "shell", "call_id": "c1", "arguments": "{}"},
    ]
    found = read(tmp_path, lines)
    assert [entry.kind.value for entry in found.events] == ["prompt", "tool_call"]
    assert {entry.session_id for entry in found.events} == {"s-0"}


def test_a_compaction_and_an_interruption_are_told(tmp_path: Path) -> None:
    lines = [
        meta(),
        user(1, "q"),
        item(2, {"message": "Summary"}, "compacted"),
        event(3, "turn_aborted", reason="interrupted"),
    ]
    found = read(tmp_path, [*lines, call(4)])
    assert [entry.kind.value for entry in found.events] == ["prompt", "compaction", "interruption", "tool_call"]
    assert found.graph.prompt_above[found.nodes[-1].node_id] == found.of("prompt")[0].node_id

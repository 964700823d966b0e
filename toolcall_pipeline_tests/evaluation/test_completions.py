"""Completions are read as serving engines read them, every character is accounted for, and nothing raises."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolcall_pipeline.evaluation.completions import (
    DEFECT_KINDS,
    parse_completions,
    read_completion,
    visible_text,
)
from toolcall_pipeline.evaluation.tool_schemas import are_arguments_empty

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "Bash",
            "description": "Run",
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string"}, "timeout": {"type": "integer"}},
                "required": ["command"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "Now", "parameters": {"type": "object", "properties": {}}}},
]
LS = '{"name": "Bash", "arguments": {"command": "ls"}}'
CALL = f"<tool_call>\n{LS}\n</tool_call>"


def kinds(raw: str, tools=TOOLS, **options) -> set[str]:
    return {defect.kind for defect in read_completion(raw, tools, **options).defects}


def commands(raw: str) -> list[str]:
    return [call.arguments["command"] for call in read_completion(raw, TOOLS).calls]


def test_the_public_parser_cases_agree(shared_dir):
    lines = (shared_dir / "testassets/parser_cases/hermes_cases.jsonl").read_text().splitlines()
    assert lines
    for case in map(json.loads, lines):
        calls, text, _ = read_completion(case["model_output"], None)
        assert [call.model_dump() for call in calls] == case["expected_tool_calls"], case["id"]
        assert (text or None) == case["expected_content"], case["id"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (CALL, set()),  # as it should be
        (CALL + "\n" + CALL, set()),  # another call may follow
        (CALL + "<|im_end|>", set()),  # the end of turn may be shown
        ("Let me look.\n" + CALL, set()),  # words before
        ("plain words", set()),  # no call at all
        ('<tool_call>{"name": "Now", "arguments": {}}</tool_call>', set()),  # nothing is required
        ("<tool_call>\n{'name': 'Bash', 'arguments': {'command': 'ls'}}\n</tool_call>", {"invalid_json"}),  # Python
        ('<tool_call>{"name": "Bash", "arguments": {"command": "ls",}}</tool_call>', {"invalid_json"}),  # comma
        (f"<tool_call>\n```json\n{LS}\n```\n</tool_call>", {"invalid_json"}),  # code fence
        ("<tool_call>" + LS + "}</tool_call>", {"invalid_json"}),  # one brace too many
        ('<tool_call>{"name": "Bash", "arguments": {"command": NaN}}</tool_call>', {"invalid_json"}),  # not JSON
        ('<tool_call>{"name": "Bash", "arguments": {"timeout": 1e999}}</tool_call>', {"invalid_json"}),  # no float
        ('<tool_call>{"arguments": {"command": "ls"}}</tool_call>', {"invalid_json"}),  # no name
        ("<tool_call></tool_call>", {"invalid_json"}),  # nothing
        ("<tool_call>" + "[" * 200 + "]" * 200 + "</tool_call>", {"invalid_json"}),  # deeper than any call
        ('<tool_call>{"name": "Rm", "arguments": {}}</tool_call>', {"unknown_tool"}),
        ('<tool_call>{"name": "Bash", "arguments": {}}</tool_call>', {"empty_arguments", "missing_argument"}),
        ('<tool_call>{"name": "Bash", "arguments": null}</tool_call>', {"empty_arguments", "missing_argument"}),
        ('<tool_call>{"name": "Bash"}</tool_call>', {"empty_arguments", "missing_argument"}),
        ('<tool_call>{"name": "Bash", "arguments": {"command": " "}}</tool_call>', {"empty_arguments"}),
        ('<tool_call>{"name": "Bash", "arguments": {"timeout": 5}}</tool_call>', {"missing_argument"}),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "", "timeout": 5}}</tool_call>', {"empty_arguments"}),
        (
            '<tool_call>{"name": "Bash", "arguments": {"command": [""]}}</tool_call>',
            {"empty_arguments", "schema_violation"},
        ),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "a", "x": 1}}</tool_call>', {"schema_violation"}),
        ('<tool_call>{"name": "Bash", "arguments": {"command": 7}}</tool_call>', {"schema_violation"}),
        ('<tool_call>{"name": "Bash", "arguments": "ls"}</tool_call>', {"schema_violation"}),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "..."}}</tool_call>', {"empty_arguments"}),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "N/A"}}</tool_call>', {"empty_arguments"}),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "<your command>"}}</tool_call>', {"empty_arguments"}),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "your_command_here"}}</tool_call>', {"empty_arguments"}),
        ('<tool_call>{"name": "Bash", "arguments": {"command": "cat path/to/file.txt"}}</tool_call>', set()),
        ("I will look.\n" * 4 + CALL, {"text_repetition"}),
        ("It is done. " * 40, {"text_repetition"}),
        (CALL + "\nDone!", {"text_after_call"}),
        (CALL + "\n<tool_response>\nok\n</tool_response>", {"text_after_call"}),  # an invented result
        (CALL + "<|im_end|>\n<|im_start|>user\nthanks", {"text_after_call"}),  # role words
        (CALL + "\nuser\nthanks", {"text_after_call"}),
        (CALL + "words" + CALL, {"text_after_call"}),
        (f"<tool_call>\n{LS}", {"unclosed_call"}),
        (f"<tool_call>\n{LS}\nNow I wait.", {"unclosed_call", "text_after_call"}),
        (f"<tool_call>\n{LS}\n</tool_ca", {"unclosed_call"}),  # cut inside the closing tag: no words
        (f"<tool_call>\n\u00a0{LS}\n</tool_call>", {"invalid_json"}),  # a blank of Unicode's, not of JSON's
        ('<tool_call>\n{"name": "Bash", "argu', {"unclosed_call", "invalid_json"}),
        (LS, {"untagged_call"}),
        (f"```json\n{LS}\n```", {"untagged_call"}),
        ("{'name': 'Bash', 'arguments': {'command': 'ls'}}", {"untagged_call"}),
        ('{"arguments": {"command": "ls"}, "name": "Bash"}', {"untagged_call"}),
        ('{"tool": "Bash", "args": {"command": "ls"}}', {"untagged_call"}),
        ('{"type": "tool_use", "name": "Bash", "input": {"command": "ls"}}', {"untagged_call"}),
        ('{"action": "Bash", "action_input": {"command": "l', {"untagged_call"}),
        ('Action: Bash\nAction Input: {"command": "ls"}', {"untagged_call"}),
        ('<invoke name="Bash">\n<parameter name="command">ls</parameter>\n</invoke>', {"untagged_call"}),
        ('{"name": "Bash", "version": "5.2"}', set()),  # no arguments, no call
        ('<|python_tag|>{"type": "function", "name": "Bash", "parameters": {"command": "ls"}}', {"untagged_call"}),
        (f"[TOOL_CALLS][{LS}]", {"untagged_call"}),
        ("<function=Bash>\n<parameter=command>\nls\n</parameter>\n</function>", {"untagged_call"}),
        ("<tool_call>\n<function=Bash>\n</function>\n</tool_call>", {"invalid_json"}),
        ('{"name": "Ann", "arguments": 3}', set()),  # JSON that is no call to a tool on offer
        (f"{LS}\n</tool_call>", {"untagged_call", "stray_tag"}),
        (f"<tool_call>{LS}\n{LS}</tool_call>", {"several_in_one_tag"}),
        (f"<tool_call>[{LS}]</tool_call>", {"several_in_one_tag"}),
        ("<think>maybe " + CALL + "</think>No.", set()),  # thought is not done
        ("<think>maybe " + CALL, set()),  # nor what a thought that never ends holds
        (CALL + "</think>", {"text_after_call"}),
    ],
)
def test_defects_are_named(raw, expected):
    assert kinds(raw) == expected


@pytest.mark.parametrize(
    ("arguments", "is_empty"),
    [
        ({"pattern": "null"}, False),  # what is looked for
        ({"pattern": "<path>"}, False),
        ({"path": "null"}, True),
        ({"mode": "none"}, False),  # the schema knows it
        ({"mode": "unknown"}, True),
    ],
)
def test_a_word_for_nothing_is_a_value_where_it_is_looked_for_or_known(arguments, is_empty):
    (name,) = arguments
    schema = {"type": "object", "properties": {"mode": {"enum": ["none", "all"]}}, "required": [name]}
    assert are_arguments_empty(arguments, schema) is is_empty


def test_tags_inside_an_argument_are_text_of_the_argument():
    inner = json.dumps({"name": "Bash", "arguments": {"command": "echo '</tool_call><tool_call>{}'"}})
    assert commands(f"<tool_call>\n{inner}\n</tool_call>") == ["echo '</tool_call><tool_call>{}'"]
    assert kinds(f"<tool_call>\n{inner}\n</tool_call>") == set()


def test_several_objects_in_one_tag_are_all_read():
    assert commands(f"<tool_call>{LS}\n{LS}</tool_call>") == ["ls", "ls"]


def test_a_call_after_an_unreadable_one_is_read():
    assert commands(f"<tool_call>\n{{bad</tool_call>\n{CALL}") == ["ls"]
    assert commands(f"<tool_call>\n{{bad\n{CALL}") == ["ls"]


def test_calls_behind_the_end_of_turn_were_never_made():
    assert commands(CALL + "<|im_end|>\n<|im_start|>assistant\n" + CALL) == ["ls"]


def test_without_tools_no_call_is_held_against_a_schema():
    assert kinds('<tool_call>{"name": "Rm", "arguments": {}}</tool_call>', tools=None) == set()
    assert kinds('<tool_call>{"name": "Rm", "arguments": {}}</tool_call>', tools=[]) == {"unknown_tool"}


def test_a_schema_that_is_broken_or_far_away_is_no_fault_of_the_model():
    for parameters in ({"type": 5}, {"$ref": "http://example.invalid/schema.json"}, {"properties": 3}):
        tools = [{"type": "function", "function": {"name": "X", "parameters": parameters}}]
        assert kinds('<tool_call>{"name": "X", "arguments": {"a": 1}}</tool_call>', tools) == set()


def test_repetition_is_found_in_read_and_in_unread_arguments():
    line = "print('again')\\n"
    whole = f'<tool_call>{{"name": "Bash", "arguments": {{"command": "{line * 4}"}}}}</tool_call>'
    assert kinds(whole) == {"argument_repetition"}
    cut = f'<tool_call>{{"name": "Bash", "arguments": {{"command": "{line * 40}'
    assert "argument_repetition" in kinds(cut, hit_token_limit=True)
    periodic = '<tool_call>{"name": "Bash", "arguments": {"command": "' + "ab12" * 60
    assert "argument_repetition" in kinds(periodic, hit_token_limit=True)
    assert "argument_repetition" in kinds(periodic)  # broken off in the middle, as only a limit does
    assert "argument_repetition" not in kinds(periodic + "</tool_call>")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("<think>hm</think>Hello", "Hello"),
        ("hm</think>Hello", "Hello"),  # the template had opened the thought
        ("\n<think>\nhm, it is 5, but wait", ""),  # a thought that never ends says nothing
        ("The tag <think> opens a thought.", "The tag <think> opens a thought."),
        ("One <think>two</think>three", "One three"),
        ("Hello", "Hello"),
    ],
)
def test_thought_is_text_but_not_shown(raw, shown):
    reading = read_completion(raw, TOOLS)
    assert reading.text == raw
    assert visible_text(reading.text) == shown
    assert reading.calls == ()


PIECES = st.sampled_from(
    ("<tool_call>", "</tool_call>", "<think>", "</think>", "<|im_end|>", "<|im_start|>assistant\n", LS, CALL, "{", "}")
)
ODD = st.sampled_from(
    ('"', "\\", "\n", "[", "]", '{"name":', '"arguments"', "<tool_response>", "\ud800", "\x00", "1e999", "9" * 5000)
)
RAW = st.one_of(st.text(), st.lists(st.one_of(PIECES, ODD, st.text(max_size=5)), max_size=12).map("".join))


@given(raw=RAW, limit=st.booleans())
def test_no_completion_raises_and_no_character_is_lost(raw, limit):
    reading = read_completion(raw, TOOLS, hit_token_limit=limit)
    position = 0
    for span in reading.spans:
        assert span.start == position
        position = span.end
    assert position == len(raw)
    texts = [raw[span.start : span.end] for span in reading.spans if span.kind in ("text", "think")]
    assert reading.text.split() == "".join(text for text in texts if text.strip()).split()
    assert {defect.kind for defect in reading.defects} <= set(DEFECT_KINDS)
    json.dumps([call.model_dump() for call in reading.calls]).encode()
    for call in reading.calls:
        call.model_dump_json()


@given(
    arguments=st.dictionaries(
        st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
    )
)
def test_a_call_written_as_json_is_read_back(arguments):
    raw = f"<tool_call>\n{json.dumps({'name': 'Any', 'arguments': arguments})}\n</tool_call>"
    (call,) = read_completion(raw, None).calls
    assert call.arguments == json.loads(json.dumps(arguments).encode("utf-8", "replace"))


def test_the_command_reads_json_lines_and_raw_text():
    lines = [
        json.dumps({"id": 1, "text": CALL, "tools": TOOLS}) + "\n",
        "\n",
        "not json\n",
        json.dumps({"id": 2, "text": "hi"}),
    ]
    first, wrong, second = parse_completions(lines)
    assert first == {"id": 1, "calls": [{"name": "Bash", "arguments": {"command": "ls"}}], "text": "", "defects": []}
    assert wrong["id"] is None
    assert "Line 3" in wrong["error"]
    assert second["text"] == "hi"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": 7, "text": None}, "no text under text"),
        ({"id": 7, "text": "hi", "tools": {"name": "Bash"}}, "a list of tools"),
        ({"id": 7, "text": "hi", "tools": ["Bash"]}, "a list of tools"),
    ],
)
def test_a_line_that_is_no_completion_says_what_is_wrong_with_it(line, said):
    wrong, good = parse_completions([json.dumps(line) + "\n", json.dumps({"id": 8, "text": "hi"})])
    assert wrong["id"] == 7
    assert said in wrong["error"]
    assert good["text"] == "hi"


def test_half_characters_do_not_reach_the_output():
    (answer,) = parse_completions(['{"id": "\\ud800", "text": "half \\ud800"}'])
    assert (answer["id"], answer["text"]) == ("\ufffd", "half \ufffd")


@pytest.mark.parametrize("raw", ["Look:\n" + CALL + "\n", "\n\n  Look\n", '{"id": 1}', LS, "[]", ""])
def test_what_is_no_json_line_is_one_raw_text(raw):
    (answer,) = parse_completions(raw.splitlines(keepends=True))
    assert answer["id"] is None
    assert answer["text"].split() == raw.replace(CALL, "").split()

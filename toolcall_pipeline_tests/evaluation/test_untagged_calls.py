"""Calls in the notation of other chat templates, whole and cut off, and turns of others: defects, never plain text."""

from __future__ import annotations

import pytest

from toolcall_pipeline.dataset.schemas import function_tool
from toolcall_pipeline.evaluation.cases import Turn
from toolcall_pipeline.evaluation.completions import SHAPE_DEFECTS, read_completion
from toolcall_pipeline.evaluation.outcomes.common import attempted_call

TOOLS = [
    function_tool(name, "", {"type": "object", "properties": {"file_path": {"type": "string"}}})
    for name in ("Read", "Bash", "mcp__files__list")
]
ARGUMENTS = '{"file_path": "a.py"}'
CALL = f'{{"name": "Read", "arguments": {ARGUMENTS}}}'


def turn_of(raw: str) -> Turn:
    calls, text, defects = read_completion(raw, TOOLS)
    return Turn(raw=raw, text=text, calls=calls, defects=defects)


def kinds(raw: str) -> set[str]:
    return {defect.kind for defect in read_completion(raw, TOOLS).defects}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(f'{{"name": "Read", "parameters": {ARGUMENTS}}}', id="llama-json"),
        pytest.param('{"type": "function", "function": {"name": "Read", "par', id="llama-json-cut"),
        pytest.param('{"name": "Read", "par', id="json-cut-after-the-name"),
        pytest.param('{"name": "Re', id="json-cut-in-the-name"),
        pytest.param('{"name": "Read"}', id="json-of-a-name-alone"),
        pytest.param('<|python_tag|>Read.call(file_path="a.py")', id="llama-python-tag"),
        pytest.param('<|python_tag|>print(open("a.py").read())', id="llama-code"),
        pytest.param('[Read(file_path="a.py"), Bash(command="ls")]', id="llama-pythonic"),
        pytest.param('[TOOL_CALLS] [{"name": "Re', id="mistral-cut"),
        pytest.param(f"[TOOL_CALLS]Read[ARGS]{ARGUMENTS}", id="mistral-tekken"),
        pytest.param(f"Read[CALL_ID]a1b2[ARGS]{ARGUMENTS}", id="mistral-without-its-token"),
        pytest.param(f"<|from|>assistant\n<|recipient|>Read\n<|content|>{ARGUMENTS}", id="functionary-2"),
        pytest.param(f">>>all\nI look.\n>>>Read\n{ARGUMENTS}", id="functionary-3"),
        pytest.param(
            f"<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>function<\uff5ctool\u2581sep\uff5c>Read\n{ARGUMENTS}",
            id="deepseek",
        ),
        pytest.param("<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581ca", id="deepseek-cut"),
        pytest.param('<\uff5cDSML\uff5cinvoke name="Read">', id="deepseek-3.2"),
        pytest.param('<|tool_call|>[{"name": "Read", "arg', id="phi-granite-cut"),
        pytest.param(f"functools[{CALL}]", id="phi-functools"),
        pytest.param('```tool_code\nprint(Read(file_path="a.py"))\n```', id="gemma-code"),
        pytest.param(
            "<start_function_call>call:Read{file_path:<escape>a.py<escape>}<end_function_call>", id="gemma-fn"
        ),
        pytest.param('<|tool_call>call:Read{file_path:<|"|>a.py<|"|>}<tool_call|>', id="gemma-4"),
        pytest.param(f"Read\n{ARGUMENTS}", id="glm-4"),
        pytest.param("<|tool_calls_section_begin|><|tool_call_begin|>functions.Re", id="kimi-cut"),
        pytest.param('<minimax:tool_call>\n<invoke name="Re', id="minimax-cut"),
        pytest.param(
            f"<|channel|>commentary to=functions.Read <|constrain|>json<|message|>{ARGUMENTS}<|call|>", id="harmony"
        ),
        pytest.param(f"commentary to=functions.Read json{ARGUMENTS}", id="harmony-without-its-tokens"),
        pytest.param("<Read>\n<file_path>a.py</file_path>\n</Read>", id="tool-as-an-element"),
        pytest.param(f'{{"Read": {ARGUMENTS}}}', id="name-as-the-only-key"),
        pytest.param(f'Action: ```json\n[{{"tool_name": "Read", "parameters": {ARGUMENTS}}}]\n```', id="command-r"),
        pytest.param("<|START_ACTION|>[", id="command-r-cut"),
        pytest.param('<|tool_call_start|>[Read(file_path="a.py")]<|tool_call_end|>', id="lfm"),
        pytest.param("Thought: look\nAction: Read[a.py]", id="react-brackets"),
        pytest.param(f"Tool: Read\nArguments: {ARGUMENTS}", id="in-words"),
        pytest.param("I look at it.\n<tool_ca", id="own-tag-cut"),
        pytest.param(f"<toolcall>\n{CALL}\n</toolcall>", id="wrong-tag"),
    ],
)
def test_a_call_in_another_notation_is_an_attempt_and_no_call(raw):
    turn = turn_of(raw)
    assert turn.calls == ()
    assert attempted_call(turn)
    assert kinds(raw) == {"untagged_call"}


@pytest.mark.parametrize(
    "raw",
    [
        "<tool_call>Read\n<arg_key>file_path</arg_key>\n<arg_value>a.py</arg_value>\n</tool_call>",
        "<tool_call>\n<function=Read>\n<parameter=file_path>\na.py\n</parameter>\n</function>\n</tool_call>",
    ],
)
def test_another_notation_between_our_tags_is_no_json(raw):
    assert turn_of(raw).calls == ()
    assert kinds(raw) == {"invalid_json"}


@pytest.mark.parametrize(
    "raw",
    [
        "I used Read to look at a.py, and Bash too.",
        "Read (the tool) shows files; `Read(file_path=...)` is how it is called.",
        "Qwen writes `<function=name>`, Mistral `[TOOL_CALLS]`, DeepSeek `<\uff5ctool\u2581calls\u2581begin\uff5c>`, Llama `<|python_tag|>`.",
        'The manifest says {"name": "demo", "version": "1.0.0", "scripts": {"args": "x"}}.',
        '{"name": "demo"}',
        "```python\ndef read(path):\n    return open(path).read()\n```",
        "A chat has two sides:\n\nuser: the one who asks\nassistant: the one who answers",
        "| role | writes |\n|---|---|\n| user | prompts |\n| assistant | answers |",
        "- user\n- assistant",
        "if a <b and c> d: the tool was called",
        "<details><summary>Calls</summary>none</details>",
        "**Action**: read the file again. Tool: any editor will do.",
    ],
)
def test_speaking_of_calls_and_roles_is_no_defect(raw):
    assert kinds(raw) == set()
    assert not attempted_call(turn_of(raw))


@pytest.mark.parametrize(
    "raw",
    [
        "The port is 8080.\nuser\nThanks! Now the other file.\nassistant\nThat is done as well.",
        "The port is 8080.\n\nHuman: Great, and the docs?\n\nAssistant: They are done too.",
        "The port is 8080.<|im_start|>user\nThanks",
        "The port is 8080.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThanks",
        "<start_of_turn>model\nThe port is 8080.",
        "assistant\nThe port is 8080.",
        "<|channel|>final<|message|>The port is 8080.",
        "<tool_response>\nport = 8080\n</tool_response>\nThe port is 8080.",
        "[INST] And the docs? [/INST] They are done too.",
    ],
)
def test_a_turn_of_somebody_else_in_an_answer_is_named_and_counts_as_shape(raw):
    assert kinds(raw) == {"role_words"}
    assert "role_words" in SHAPE_DEFECTS
    assert not attempted_call(turn_of(raw))


def test_without_tools_a_name_alone_says_nothing():
    for raw in ("Read(file_path='a')", '{"name": "Read"}', '{"Read": {"a": 1}}', 'Read\n{"a": 1}'):
        assert read_completion(raw, None).defects == ()
    assert [defect.kind for defect in read_completion("[TOOL_CALLS]x", None).defects] == ["untagged_call"]

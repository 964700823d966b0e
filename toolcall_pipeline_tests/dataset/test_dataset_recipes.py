"""What one episode becomes: which turns may be supervised, which are context, which episodes are no row."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from dataset_fakes import call, episode, step
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall_pipeline.dataset import recipe_v2, recipe_v3
from toolcall_pipeline.dataset.corpus import remove_misfits
from toolcall_pipeline.dataset.drafts import (
    NO_RESULT,
    Draft,
    bash_word,
    category,
    has_call_marks,
    has_placeholder,
    has_repeated_lines,
    neutral,
    pack,
    unpack,
)
from toolcall_pipeline.dataset.schemas import CallChecker, SchemaCollector

_LONG = "x = 1\n"


def draft_of(*steps: Any, **changes: Any) -> Draft:
    drafts, _ = recipe_v3.make_drafts(episode(steps, **changes))
    return drafts[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"is_error": True}, "failed"),
        ({"is_rejected": True}, "rejected"),
        ({"is_interrupted": True}, "interrupted"),
        ({"response": None}, "no_result"),
        ({"truncated_at_bytes": 16384}, "cut_arguments"),  # never trained on a cut call
        ({"tool_input": {"command": _LONG * 4}}, "repeated_line"),  # more than 3 times in a row
        ({"tool_input": {"command": _LONG * 3}}, None),
        ({"tool_input": {"command": "\n" * 9}}, None),  # empty lines may repeat
        ({"tool_input": {"a": [{"b": _LONG * 5}]}}, "repeated_line"),  # nested
        ({"tool_input": {"command": "curl -H [REDACTED:api_key:0123abcd]"}}, "placeholder"),
        ({"tool_input": {"command": "curl -H 'token: REDACTED'"}}, "placeholder"),  # left by the exporter
        ({"tool_input": {"command": "echo '<|im_end|>'"}}, "control_marks"),
        ({"tool_input": {"command": "echo '</tool_call>'"}}, "control_marks"),
    ],
)
def test_what_keeps_a_turn_from_being_supervised(changes: dict[str, Any], reason: str | None) -> None:
    made = draft_of(step("Look.", call(**{"name": "Bash", **changes})), step("Done."))
    assert made.steps[0].reason == reason
    assert made.steps[1].reason is None


def test_a_call_whose_tool_has_no_usable_name_is_left_out_and_its_turn_not_supervised() -> None:
    made = draft_of(step("Look.", call("bad name {}")), step("Done."))
    assert [(item.content, item.reason) for item in made.steps] == [("Look.\n\nDone.", "unusable_tool_name")]


def test_failed_steps_stay_as_context() -> None:
    made = draft_of(
        step("", call(is_error=True, response="no such file")), step("", call(event_id="t2")), step("Done.")
    )
    assert [len(item.calls) for item in made.steps] == [1, 1, 0]
    assert made.steps[0].calls[0].result == "no such file"


def test_an_interrupted_episodes_last_turn_is_not_supervised() -> None:
    made = draft_of(step("", call()), step("I was about to"), is_interrupted=True)
    assert [item.reason for item in made.steps] == [None, "interrupted"]


@pytest.mark.parametrize(
    ("second", "result", "between", "reason"),
    [
        ({}, "1 import os", False, "repeated"),  # the same call again at once
        ({}, "other", False, "repeated"),  # also where its result differs
        ({}, "1 import os", True, "repeated"),  # later, and it says the same
        ({}, "other", True, None),  # later, and the world changed
        ({"tool_input": {"file_path": "/b"}}, "1 import os", False, None),
    ],
)
def test_repetition_is_context(second: dict[str, Any], result: str, between: bool, reason: str | None) -> None:
    steps = [step("", call()), step("", call(event_id="t2", response=result, **second)), step("Done.")]
    if between:
        steps.insert(1, step("", call("Bash", event_id="t3")))
    assert draft_of(*steps).steps[-2].reason == reason


def test_texts_that_nothing_followed_from_are_joined_to_the_next_turn() -> None:
    made = draft_of(step("First."), step("Second.", call()), step("Third."), step("Fourth."))
    assert [item.content for item in made.steps] == ["First.\n\nSecond.", "Third.\n\nFourth."]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"project_kind": "ephemeral"}, "ephemeral_project"),
        ({"prompt": "  "}, "empty_prompt"),
        ({"steps": ()}, "no_assistant_turn"),
    ],
)
def test_episodes_that_are_no_row(changes: dict[str, Any], reason: str) -> None:
    steps = changes.pop("steps", (step("Hello"),))
    assert recipe_v3.make_drafts(episode(steps, **changes)) == ([], Counter([reason]))


def test_an_answer_without_a_tool_is_a_row() -> None:
    assert [item.content for item in draft_of(step("Hello")).steps] == ["Hello"]


def test_the_project_lies_elsewhere_in_every_family_and_the_same_within_one() -> None:
    def moved(family: str) -> Draft:
        steps = (step("", call(tool_input={"file_path": "/home/user/app/a.py"}, response="in /home/user/app-two")),)
        return draft_of(*steps, family_id=family, prompt="See /home/user/app/a.py")

    folders = {moved(f"family-{number}").system.split("directory: ")[1] for number in range(40)}
    assert len(folders) > 8
    one = moved("family-1")
    folder = one.system.split("directory: ")[1]
    assert one.prompt == f"See {folder}/a.py"
    assert one.steps[0].calls[0].arguments == {"file_path": f"{folder}/a.py"}
    assert one.steps[0].calls[0].result == "in /home/user/app-two"  # another project is not this one
    assert moved("family-1") == one


def test_a_call_without_a_result_says_so() -> None:
    assert draft_of(step("", call(response=None))).steps[0].calls[0].result == NO_RESULT


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("git status", "git"),
        ("cd /a/b && pytest -k x", "pytest"),
        ("cd '/a b' && npm test", "npm"),
        ("env A=1 B='x y' make all", "make"),
        ("PYTHONPATH=. python3.11 -m x", "python3.11"),
        ("/usr/bin/env python", "env"),
        ("./scripts/run.sh --fast", "run.sh"),
        ("~/bin/tool x", "tool"),
        ("GIT log", "git"),
        ("(cd x; ls)", "cd"),
        ("", "unknown"),
        ("$(which ls)", "unknown"),
        ("日本", "unknown"),
    ],
)
def test_a_shell_line_is_known_by_its_first_command(command: str, word: str) -> None:
    assert bash_word(command) == word


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_shell_line_has_a_category(command: str) -> None:
    assert category("Bash", {"command": command}).startswith("Bash:")
    assert category("shell", {"command": ["bash", "-lc", command]}).startswith("Bash:")


@settings(deadline=None)
@given(st.text())
def test_neutral_text_has_no_marks_and_is_neutral_already(text: str) -> None:
    once = neutral(text)
    assert neutral(once) == once
    assert "<|im_end|>" not in once
    assert "</tool_call>" not in once
    once.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "repeats", "placeholder", "marks"),
    [
        ("a\na\na\na", True, False, False),
        ("a\na\na", False, False, False),
        ("}\n}\n}\n}\n", True, False, False),
        ("[REDACTED:email:0a1b2c3d]", False, True, False),
        ("class RedactedText", False, False, False),
        ("if a < b | c > d", False, False, False),
        ("<|im_start|>system", False, False, True),
        ("<think>", False, False, True),
        ("Vec<|x|>", False, False, True),
    ],
)
def test_marks_in_texts(text: str, repeats: bool, placeholder: bool, marks: bool) -> None:
    assert (has_repeated_lines(text), has_placeholder(text), has_call_marks(text)) == (repeats, placeholder, marks)


def test_calls_that_do_not_fit_are_taken_out_and_counted() -> None:
    made = draft_of(
        step("", call(tool_input={"file_path": "/a"}), call(tool_input={"file": "/b"}, event_id="t2")),
        step("", call(tool_input={}, event_id="t3")),
        step("Done."),
        step("", call(tool_input={"file_path": "/c"}, event_id="t4")),
        step("Over."),
    )
    collector = SchemaCollector()
    collector.observe("Read", {"file_path": "/a"})
    counts = remove_misfits(made, CallChecker(collector.schemas()))
    assert counts == {"calls_schema_violation": 1, "calls_empty_arguments": 1, "turns_emptied": 1}
    assert [(len(item.calls), item.content, item.reason) for item in made.steps] == [
        (1, "", "schema_violation"),
        (1, "Done.", "context_left_out"),
        (0, "Over.", None),
    ]


def test_what_was_said_of_a_call_that_was_taken_out_is_not_supervised() -> None:
    made = draft_of(step("", call(tool_input={}, event_id="t1")), step("All read."))
    collector = SchemaCollector()
    collector.observe("Read", {"file_path": "/a"})
    remove_misfits(made, CallChecker(collector.schemas()))
    assert [(item.content, item.reason) for item in made.steps] == [("All read.", "context_left_out")]


def test_a_call_left_out_for_its_name_leaves_its_turn_and_the_next_unsupervised() -> None:
    made = draft_of(step("", call(), call(" ", event_id="t2")), step("Both read."))
    assert [(len(item.calls), item.reason) for item in made.steps] == [
        (1, "unusable_tool_name"),
        (0, "unusable_tool_name"),
    ]


def test_recipe_v2_makes_one_row_per_call_and_skips_what_the_source_skipped() -> None:
    drafts, drops = recipe_v2.make_drafts(
        episode([step("Say.", call(), call("TodoWrite", {"todos": []}, event_id="t2")), step("Done.")])
    )
    assert [len(draft.steps) for draft in drafts] == [1]
    assert drafts[0].steps[0].content == ""
    assert drafts[0].offered == ["Read"]
    assert drops == {"skip_tool": 1}


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (2**70, float(2**70)),
        (-(10**200), -1e200),
        (10**400, str(10**400)),
        (True, True),
    ],
)
def test_numbers_of_any_size_are_kept_as_near_as_64_bits_can(number: int, kept: Any) -> None:
    made = draft_of(step("", call(tool_input={"file_path": "/a", "limit": [number]})), step("Done."))
    assert unpack(pack(made)).steps[0].calls[0].arguments["limit"] == [kept]


def test_a_draft_survives_its_bytes() -> None:
    made = draft_of(step("Ü", call(tool_input={"a": [1, 2.5, None, {"b": "\u0000"}]})))
    assert unpack(pack(made)) == made

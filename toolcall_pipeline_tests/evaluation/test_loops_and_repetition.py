"""Loops and repetition are found by the rules that are written down, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolcall_pipeline.evaluation.cases import ParsedCall
from toolcall_pipeline.evaluation.loops import call_key, find_loop
from toolcall_pipeline.evaluation.repetition import (
    longest_line_run,
    periodic_tail,
    repeated_4gram_ratio,
    repetition_in,
    repetition_in_arguments,
)


def calls(letters: str) -> list[ParsedCall]:
    return [ParsedCall(name="Bash", arguments={"command": letter, "timeout": 1}) for letter in letters]


@pytest.mark.parametrize(
    ("letters", "kind"),
    [
        ("", None),
        ("AA", None),  # twice may be a retry
        ("AAA", "equal_calls"),  # the third equal call
        ("ABA", None),
        ("ABAB", "cycle"),  # a cycle of two, twice
        ("ABCABC", "cycle"),
        ("ABCDABCD", "cycle"),
        ("ABCDEABCDE", None),  # five are not a cycle in the rule's sense
        ("AABAAB", None),  # three calls, but not three different ones
        ("XABAB", "cycle"),
        ("ABCAB", None),
    ],
)
def test_a_loop_is_what_the_rule_says(letters, kind):
    loop = find_loop(calls(letters))
    assert (loop.kind if loop else None) == kind


def test_key_order_does_not_hide_a_repeat():
    one = ParsedCall(name="Bash", arguments={"a": 1, "b": 2})
    two = ParsedCall(name="Bash", arguments={"b": 2, "a": 1})
    assert find_loop([one, two, one])


@pytest.mark.parametrize(
    ("arguments", "is_same"),
    [
        ({"command": "ls  -la "}, True),
        ({"command": "ls -la", "timeout": None}, False),
        ({"command": "ls -l"}, False),
        ({"command": "ls -la", "description": "List again"}, True),
    ],
)
def test_spacing_does_not_hide_a_repeat(arguments, is_same):
    key = call_key(ParsedCall(name="Bash", arguments={"command": "ls -la"}))
    assert (call_key(ParsedCall(name="Bash", arguments=arguments)) == key) == is_same


def test_another_indentation_is_another_edit():
    edits = [ParsedCall(name="Edit", arguments={"file_path": "a", "old_string": " " * n + "x"}) for n in range(3)]
    assert find_loop(edits) is None


def test_three_calls_in_a_row_that_bring_nothing_new_are_a_loop():
    letters = "ABCDE" + "ACE"
    same = [letter.lower() for letter in letters]
    assert find_loop(calls(letters), same).kind == "nothing_new"
    changed = [f"{letter}{index}" for index, letter in enumerate(letters)]
    assert find_loop(calls(letters), changed) is None


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("a\n" * 3, False),
        ("a\n" * 4, True),
        ("a\n\n" * 4, True),  # blank lines do not interrupt
        ("\n" * 50, False),  # empty lines are no lines
        ("    }\n  }\n}\n", False),  # nesting is not repetition
        ("      </div>\n    </div>\n  </div>\n</div>\n", False),
        ("  )\n    )\n  )\n)\n", False),
        ("  a\na\n   a\n  a\n", True),  # other spacing does not make another line
        ("import  os\nimport os \n import os\nimport os\n", True),
        (" ".join(str(n) for n in range(100)), False),
        ("run the test again now " * 12, True),
        ("x y " * 5, False),  # too short to tell
        ("src/" * 100, True),
        ("=" * 120, False),  # a ruler
        (f"head {'one two three four five ' * 30} tail", True),
    ],
)
def test_repetition_is_what_the_rule_says(text, is_found):
    assert bool(repetition_in(text)) == is_found


@pytest.mark.parametrize(
    ("items", "is_found"),
    [
        ([{"content": "Do it", "status": "pending"}] * 4, True),
        (["-v"] * 3, False),
        ([["a"]] * 5, True),
        ([0] * 50, False),  # numbers, flags and blanks repeat in honest lists
        ([True] * 50, False),
        ([""] * 50, False),
        (["a", "b", "c"] * 3, True),  # a cycle
        (["a", "b", "c"] * 2, False),  # too few to tell
        ([{"content": f"Do {number}", "status": "pending"} for number in range(9)], False),
    ],
)
def test_a_list_that_says_the_same_repeats_itself(items, is_found):
    assert bool(repetition_in_arguments({"todos": {"items": items}})) == is_found


@given(st.text(), st.integers(1, 12), st.text(alphabet="abcdef(){}", min_size=10, max_size=30))
def test_a_periodic_tail_is_found_whatever_comes_before(head, extra, period):
    assert periodic_tail(head + period * (8 + extra))


@given(st.lists(st.integers(), unique=True, min_size=60, max_size=200))
def test_text_without_repeats_has_no_periodic_tail(numbers):
    words = [f"{number:021d}" for number in numbers]
    assert repeated_4gram_ratio(words) == 0.0
    assert longest_line_run("\n".join(words)) == 1

"""Choices over the whole corpus: lengths, shares, splits, decontamination."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from dataset_fakes import call, episode, step
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall_pipeline.dataset import recipe_v3
from toolcall_pipeline.dataset.decontamination import (
    NearDuplicates,
    SuitePrompts,
    boilerplate,
    print_prompt,
    row_minhash,
    typed_words,
)
from toolcall_pipeline.dataset.drafts import Draft
from toolcall_pipeline.dataset.fitting import MIN_RESULT_CHARACTERS, fit, shorten_middle, turn_characters, turn_sizes
from toolcall_pipeline.dataset.offers import choose_tools, others_that_fit
from toolcall_pipeline.dataset.shares import MAX_REPEATS, TEXT_AFTER_TOOL, Turn, choose_supervised
from toolcall_pipeline.dataset.splits import TRAIN, VALID, FamilyCounts, split_families
from toolcall_pipeline.dataset.suite_protocol import ValidationNeeds

_NONE = ValidationNeeds(0, 0)


def long_draft(results: list[int], arguments: list[int]) -> Draft:
    steps = [
        step("", call(tool_input={"file_path": "x" * size}, response="r" * result, event_id=f"t{index}"))
        for index, (result, size) in enumerate(zip(results, arguments, strict=True))
    ]
    return recipe_v3.make_drafts(episode([*steps, step("Done.")]))[0][0]


@settings(deadline=None, max_examples=60)
@given(
    results=st.lists(st.integers(0, 9000), min_size=1, max_size=14),
    size=st.integers(1, 3000),
    budget=st.integers(3000, 20000),
)
def test_every_turn_is_in_one_row_whole_and_rows_fit(results: list[int], size: int, budget: int) -> None:
    draft = long_draft(results, [size] * len(results))
    rows, too_long = fit(draft, turn_sizes(draft), fixed_characters=1500, budget_characters=budget)
    own = [item for row in rows for item in row.steps[row.context_steps :]]
    assert len(own) + too_long == len(draft.steps)
    originals = {id(item): item for item in draft.steps}
    kept = [(item.content, [one.arguments for one in item.calls]) for item in own]
    whole = [(item.content, [one.arguments for one in item.calls]) for item in originals.values()]
    assert all(item in whole for item in kept)  # never cut
    for row in rows:
        length = len(row.prompt) + sum(
            turn_characters(item) + sum(len(one.result) for one in item.calls) for item in row.steps
        )
        shortened = sum(len(item.calls) for item in row.steps)
        assert length <= budget - 1500 + 60 * (shortened + 2)


def test_some_turns_alone_get_the_rows_they_need_with_the_turns_before_as_context() -> None:
    draft = long_draft([3000] * 12, [800] * 12)
    sizes = turn_sizes(draft)
    rows, too_long = fit(draft, sizes, fixed_characters=500, budget_characters=5000, start=4, stop=9)
    assert too_long == 0
    assert [number for row in rows for number in range(row.start, row.stop)] == [4, 5, 6, 7, 8]
    assert all(row.context_steps for row in rows)
    assert [item.content for item in rows[-1].steps[-1:]] == [draft.steps[8].content]


def test_later_rows_of_an_episode_say_what_is_left_out() -> None:
    draft = long_draft([3000] * 12, [800] * 12)
    rows, _ = fit(draft, turn_sizes(draft), fixed_characters=500, budget_characters=6000)
    assert len(rows) > 1
    assert "earlier steps" not in rows[0].prompt
    assert all("earlier steps of this task are left out here.]" in row.prompt for row in rows[2:])
    assert all(row.context_steps for row in rows[1:])


def test_old_results_are_shortened_before_the_newest() -> None:
    draft = long_draft([4000, 4000, 4000], [20] * 3)
    rows, _ = fit(draft, turn_sizes(draft), fixed_characters=500, budget_characters=8500)
    lengths = [len(item.calls[0].result) for item in rows[0].steps if item.calls]
    assert MIN_RESULT_CHARACTERS <= lengths[0] <= lengths[-1] < 4100


@pytest.mark.parametrize(("length", "limit"), [(10, 10), (11, 10), (5000, 400)])
def test_the_middle_is_shortened_and_says_by_how_much(length: int, limit: int) -> None:
    text = "".join(chr(97 + index % 26) for index in range(length))
    short = shorten_middle(text, limit)
    assert short == text if length <= limit else f"[… {length - limit} characters left out …]" in short
    assert short.startswith(text[: limit // 2])
    assert short.endswith(text[-(limit // 4) :])


_COUNTS = st.dictionaries(st.sampled_from([f"tool{index}" for index in range(12)]), st.integers(1, 400), max_size=12)


def shares(counts: dict[str, int], conclusions: int) -> tuple[list[Turn], Any]:
    turns = [Turn(f"{name}-{index}", 0, name) for name, count in counts.items() for index in range(count)]
    turns += [Turn(f"end-{index}", 1, TEXT_AFTER_TOOL) for index in range(conclusions)]
    return turns, choose_supervised(turns, max_category_ratio=0.2, text_after_tool_ratio=0.2, seed=42)


@settings(deadline=None, max_examples=120)
@given(counts=_COUNTS, conclusions=st.integers(0, 300))
def test_no_category_is_above_the_cap_and_nothing_repeats_more_than_twice(
    counts: dict[str, int], conclusions: int
) -> None:
    turns, selection = shares(counts, conclusions)
    kept = Counter(turn.category for turn in turns if turn.supervised)
    kept[TEXT_AFTER_TOOL] += sum(selection.repeats.values())
    total = sum(kept.values())
    calls = [count for name, count in kept.items() if name != TEXT_AFTER_TOOL]
    assert all(count <= max(1, 0.2 * total) for count in calls)
    assert max(selection.repeats.values(), default=0) <= MAX_REPEATS


@settings(deadline=None, max_examples=60)
@given(counts=_COUNTS.filter(lambda counts: len(counts) >= 8), conclusions=st.integers(30, 300))
def test_conclusions_have_their_share_where_tools_vary(counts: dict[str, int], conclusions: int) -> None:
    turns, selection = shares(counts, conclusions)
    kept = Counter(turn.category for turn in turns if turn.supervised)
    kept[TEXT_AFTER_TOOL] += sum(selection.repeats.values())
    if sum(kept.values()) >= 60:
        assert 0.15 <= kept[TEXT_AFTER_TOOL] / sum(kept.values()) <= 0.30


def test_the_same_turns_stay_chosen_while_a_category_shrinks() -> None:
    many, _ = shares({"a": 300, **{f"t{index}": 60 for index in range(8)}}, 100)
    few, _ = shares({"a": 250, **{f"t{index}": 60 for index in range(8)}}, 100)
    chosen = {turn.row_id for turn in many if turn.supervised and turn.category == "a"}
    again = {turn.row_id for turn in few if turn.supervised and turn.category == "a"}
    assert len(chosen & again) >= 0.6 * min(len(chosen), len(again))


def family(name: str, *sessions: str, calls: int = 10, conclusions: int = 2) -> FamilyCounts:
    return FamilyCounts(name, frozenset(sessions or (name,)), calls, conclusions)


def test_validation_holds_five_percent_or_what_the_suites_need() -> None:
    families = [family(f"f{index}") for index in range(200)]
    small = split_families(families, least_ratio=0.05, needs=_NONE)
    assert Counter(small.families.values())[VALID] == 10
    filled = split_families(families, least_ratio=0.05, needs=ValidationNeeds(650, 100))
    assert Counter(filled.families.values())[VALID] == 65
    assert filled.needs_met
    assert not split_families(families[:5], least_ratio=0.05, needs=ValidationNeeds(650, 100)).needs_met


def test_families_stay_on_their_side_as_the_corpus_grows() -> None:
    needs = ValidationNeeds(300, 60)
    first = split_families([family(f"f{index}") for index in range(60)], least_ratio=0.05, needs=needs)
    second = split_families(
        [family(f"f{index}") for index in range(400)], least_ratio=0.05, needs=needs, previous=first.as_json()
    )
    assert all(second.families[name] == side for name, side in first.families.items())
    assert second.retired == []


def test_families_that_merge_over_the_split_go_to_validation_and_are_retired() -> None:
    first = split_families([family(f"f{index}") for index in range(40)], least_ratio=0.25, needs=_NONE)
    trained = next(name for name, side in first.families.items() if side == TRAIN)
    asked = next(name for name, side in first.families.items() if side == VALID)
    rest = [family(f"f{index}") for index in range(40) if f"f{index}" not in {trained, asked}]
    merged = [*rest, family("merged", trained, asked)]
    second = split_families(merged, least_ratio=0.25, needs=_NONE, previous=first.as_json())
    assert second.families["merged"] == VALID
    assert second.retired == ["merged"]
    third = split_families(merged, least_ratio=0.25, needs=_NONE, previous=second.as_json())
    assert third.retired == ["merged"]  # what once trained stays retired


_LONG_PROMPT = "please find every caller of the old parser and replace it with the new one before friday evening"


@pytest.mark.parametrize(
    ("training", "shares_it"),
    [
        (_LONG_PROMPT, True),
        (f"Hello. {_LONG_PROMPT.upper()}!!! Thanks", True),  # case and punctuation do not hide it
        (" ".join(_LONG_PROMPT.split()[:12]), False),  # 12 words of it are no 13-gram
        ("run the tests", True),  # a short suite prompt, whole
        ("Run the tests!", True),
        ("run the tests again for me", False),
        ("go on", False),  # says nothing a suite could ask
        (f"{_LONG_PROMPT}\n\n[3 earlier steps of this task are left out here.]", True),
    ],
)
def test_training_prompts_are_compared_with_suite_prompts(training: str, shares_it: bool) -> None:
    suite = SuitePrompts([_LONG_PROMPT, "Run the tests", "go on"], np.empty(0, dtype=np.uint64))
    assert suite.shares_with(print_prompt(training)) == shares_it


def test_boilerplate_of_many_families_does_not_count_but_whole_prompts_do() -> None:
    prints = [(f"f{index}", print_prompt(f"{_LONG_PROMPT} number {index}")) for index in range(5)]
    ignored = boilerplate(prints)
    assert len(ignored)
    suite = SuitePrompts([_LONG_PROMPT], ignored)
    assert not suite.shares_with(print_prompt(f"{_LONG_PROMPT} and more"))
    assert suite.shares_with(print_prompt(_LONG_PROMPT))
    assert len(boilerplate(prints[:4])) == 0


def test_tagged_blocks_that_agents_insert_are_not_typed() -> None:
    assert typed_words("<system-reminder a='1'>\nsecret words\n</system-reminder>Do it") == ["do", "it"]
    assert typed_words("a < b and c > d") == ["a", "b", "and", "c", "d"]


def test_near_duplicates_of_validation_rows_are_seen() -> None:
    index = NearDuplicates()
    words = " ".join(f"word{number}" for number in range(200))
    index.add("valid", row_minhash([words]))
    assert index.is_near(row_minhash([words + " one more"]))
    assert not index.is_near(row_minhash([" ".join(f"other{number}" for number in range(200))]))
    assert not index.is_near(row_minhash([""]))


def test_a_row_offers_all_it_calls_and_up_to_the_limit_of_what_the_agent_had() -> None:
    had = [f"tool{index}" for index in range(20)]
    chosen = choose_tools(had, ["tool19", "new"], seed=1, row_id="r", limit=8)
    assert len(chosen) == 8
    assert {"tool19", "new", "tool0"} <= set(chosen)
    assert chosen == choose_tools(had, ["tool19", "new"], seed=1, row_id="r", limit=8)
    assert len(choose_tools(had, had, seed=1, row_id="r", limit=8)) == 20


@pytest.mark.parametrize(
    ("name", "arguments", "others"),
    [
        ("Read", {"file_path": "/a"}, ["Bash"]),
        ("Grep", {"pattern": "x"}, ["Bash"]),
        ("Bash", {"command": "cat a.py"}, ["Read"]),
        ("Bash", {"command": "cargo build"}, []),
        ("TodoWrite", {"todos": []}, []),
    ],
)
def test_other_tools_that_would_fit_a_call(name: str, arguments: dict[str, Any], others: list[str]) -> None:
    assert others_that_fit(name, arguments, ["Bash", "Read", "Grep", "Edit", "TodoWrite"]) == others

"""Scripted models, judged end to end: raw completions are read, scored on the full suites, and held by the gate named."""

from __future__ import annotations

from pathlib import Path

import planted_completions as planted
import pytest

from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.evaluation.suites.agentic import FAMILIES
from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite
from toolcall_pipeline.gates.good_model import BASE_MODEL, GOOD_MODEL, PERFECT_MODEL, draw_agreement
from toolcall_pipeline.gates.reporting import judge_runs

WITHOUT_TASKS = ("A", "B", "D", "E", "V")
WHOLE = (*WITHOUT_TASKS, "C")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scripted")


@pytest.fixture(scope="module")
def suite() -> FrozenSuite:
    return planted.full_size_suite()


@pytest.fixture(scope="module")
def few_tasks() -> FrozenSuite:
    """Two tasks of every family: enough to fail a gate."""
    return planted.full_size_suite(2 * len(FAMILIES))


@pytest.fixture(scope="module")
def perfect(folder: Path, suite: FrozenSuite) -> SuiteRun:
    """Every case of every suite: all of C's tasks, which only a whole run shows that the gates can be passed."""
    return planted.play(folder, suite, WHOLE, planted.perfect, "perfect")


def held(run: SuiteRun, base: SuiteRun | None = None) -> dict[str, str]:
    rows = judge_runs(run, base=base, harness_agreement=draw_agreement(PERFECT_MODEL, 1))
    return {row.gate: row.verdict for row in rows if row.verdict != "pass"}


WITHOUT_BASE = {"not_worse": "inconclusive", "better": "inconclusive"}


def test_on_every_suite_at_full_size_a_perfect_model_passes_everything(
    folder: Path, suite: FrozenSuite, perfect: SuiteRun
) -> None:
    assert held(perfect) == WITHOUT_BASE
    weaker = planted.instead(perfect, planted.play(folder, suite, WITHOUT_TASKS, planted.spoilt(0.3), "weaker"))
    assert held(perfect, base=weaker) == {}


@pytest.mark.parametrize(
    ("turns_of", "suites", "gate"),
    [
        pytest.param(planted.empty_arguments, ("V",), "empty_arguments", id="empty arguments"),
        pytest.param(planted.blank_arguments, ("V",), "empty_arguments", id="blank where something is required"),
        pytest.param(planted.repeats_a_line, ("V",), "argument_repetition", id="repeats a line"),
        pytest.param(planted.writes_after_the_call, ("D",), "call_shape", id="writes after the call"),
        pytest.param(planted.writes_xml, ("V",), "call_shape", id="writes calls in XML"),
        pytest.param(planted.never_concludes, ("B",), "suite_b_next_step", id="never concludes"),
        pytest.param(planted.always_concludes, ("B",), "concludes_too_soon", id="always concludes"),
        pytest.param(planted.thinks_forever, ("B",), "suite_b_next_step", id="thinks forever after a result"),
        pytest.param(planted.thinks_forever, ("D",), "suite_d_valid", id="thinks forever when asked"),
        pytest.param(planted.seven_calls, ("D",), "calls_per_task", id="seven calls for one"),
        pytest.param(planted.wrong_tool, ("D",), "fitting_action", id="wrong tool"),
        pytest.param(planted.invents_paths, ("A",), "grounded_arguments", id="invents paths"),
        pytest.param(planted.ignores_the_result, ("B",), "uses_result", id="ignores the result"),
        pytest.param(planted.copies_the_result, ("B",), "uses_result", id="copies the result"),
        pytest.param(planted.hands_the_result_on, ("B",), "uses_result", id="hands the result on"),
        pytest.param(planted.claims_success, ("B",), "uses_result", id="claims success"),
        pytest.param(planted.fills_in_placeholders, ("V",), "empty_arguments", id="placeholders for values"),
        pytest.param(planted.fills_in_placeholders, ("A",), "grounded_arguments", id="placeholders for paths"),
        pytest.param(planted.ignores_what_is_named, ("D",), "suite_d_valid", id="values one character off"),
        pytest.param(planted.only_lists_files, ("D",), "suite_d_valid", id="ls for everything"),
        pytest.param(planted.calls_a_similar_tool, ("D",), "fitting_action", id="a tool of a similar name"),
        pytest.param(planted.calls_twice_at_once, ("D",), "calls_per_task", id="each call twice at once"),
        pytest.param(planted.stops_in_the_middle, ("V",), "call_shape", id="stops in the middle of a call"),
        pytest.param(planted.wraps_calls_in_fences, ("V",), "call_shape", id="calls inside code fences"),
        pytest.param(planted.answers_forever, ("B",), "argument_repetition", id="answers without an end"),
        pytest.param(planted.shuffles_the_result, ("B",), "uses_result", id="the result's words in another order"),
        pytest.param(planted.repeats_an_earlier_call, ("B",), "suite_b_next_step", id="an earlier call again"),
        pytest.param(planted.calls_twice_at_once, ("A",), "suite_a_shape", id="each call twice, in sessions only"),
        pytest.param(planted.moves_the_users_files, ("A",), "grounded_arguments", id="the user's files elsewhere"),
        pytest.param(planted.hands_the_ask_on, ("D",), "suite_d_valid", id="the whole ask as every argument"),
        pytest.param(planted.fills_in_nothing, ("V",), "empty_arguments", id="a word for nothing"),
        pytest.param(planted.asks_back, ("A",), "suite_a_shape", id="asks back"),
    ],
)
def test_a_planted_model_is_held_by_the_gate_named(
    folder: Path,
    suite: FrozenSuite,
    perfect: SuiteRun,
    turns_of: planted.Turns,
    suites: tuple[str, ...],
    gate: str,
) -> None:
    faulty = planted.play(folder, suite, suites, turns_of, turns_of.__name__)
    assert held(planted.instead(perfect, faulty))[gate] == "fail"


@pytest.mark.parametrize(
    ("turns_of", "gate"),
    [
        pytest.param(planted.same_call_forever, "loops", id="the same call forever"),
        pytest.param(planted.gives_up_on_tasks, "suite_c_solved", id="good on D and bad on C"),
        pytest.param(planted.stops_after(1), "concludes_too_soon", id="stops after one call"),
        pytest.param(planted.stops_after(2), "concludes_too_soon", id="stops after two calls"),
        pytest.param(planted.slow, "calls_per_task", id="1.6 x the calls needed"),
        pytest.param(planted.claims_success, "concludes_too_soon", id="claims success"),
        pytest.param(planted.nearly_the_same_call_forever, "suite_c_solved", id="nearly the same call forever"),
        pytest.param(planted.two_tools_in_turns_forever, "suite_c_solved", id="two tools in turns forever"),
    ],
)
def test_a_model_that_fails_at_tasks_is_held_by_the_gate_named(
    folder: Path, few_tasks: FrozenSuite, perfect: SuiteRun, turns_of: planted.Turns, gate: str
) -> None:
    tasks = planted.play(folder, few_tasks, ("C",), turns_of, f"tasks-{gate}")
    others = [result for result in perfect.results if result.suite != "C"]
    verdicts = held(perfect.model_copy(update={"results": (*others, *tasks.results)}))
    assert verdicts[gate] == "fail"
    assert "suite_d_valid" not in verdicts


def test_a_model_that_thinks_before_it_answers_passes(folder: Path, suite: FrozenSuite, perfect: SuiteRun) -> None:
    thinking = planted.play(folder, suite, WITHOUT_TASKS, planted.thinks_first, "thinking")
    assert held(planted.instead(perfect, thinking)) == WITHOUT_BASE


@pytest.mark.parametrize("share", [0.11, 0.15])
def test_points_worse_than_production_are_held_by_not_worse(
    folder: Path, suite: FrozenSuite, perfect: SuiteRun, share: float
) -> None:
    suites = ("A",) if share < 0.15 else WITHOUT_TASKS
    worse = planted.play(folder, suite, suites, planted.spoilt(share), f"worse-{share}")
    assert held(planted.instead(perfect, worse), base=perfect)["not_worse"] == "fail"


def test_equal_to_production_is_held_by_better(perfect: SuiteRun) -> None:
    verdicts = held(perfect, base=perfect)
    assert verdicts == {"better": "fail"}


def test_a_little_better_by_chance_is_held_by_better(folder: Path, suite: FrozenSuite, perfect: SuiteRun) -> None:
    weaker = planted.play(folder, suite, ("D",), planted.spoilt(0.008), "a-little-weaker")
    assert held(perfect, base=planted.instead(perfect, weaker)) == {"better": "inconclusive"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_as_often_right_as_the_good_one_passes_in_eight_of_ten_seeds(folder: Path, suite: FrozenSuite) -> None:
    base = planted.play(folder, suite, WHOLE, planted.as_often_right(BASE_MODEL, 0), "base")
    judged = [
        held(planted.play(folder, suite, WHOLE, planted.as_often_right(GOOD_MODEL, seed), f"good-{seed}"), base=base)
        for seed in range(10)
    ]
    assert sum(not gates for gates in judged) >= 8, judged

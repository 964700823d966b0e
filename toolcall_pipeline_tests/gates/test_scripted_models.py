"""Scripted models, judged end to end: raw completions are read, scored on the full suites, and held by the gate named."""

from __future__ import annotations

from pathlib import Path

import planted_completions as planted
import pytest

from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite
from toolcall_pipeline.gates.good_model import PERFECT_MODEL, draw_agreement
from toolcall_pipeline.gates.reporting import judge_runs

# Every suite but C: its tasks run in sandboxes, 250 of them for one model.
WITHOUT_TASKS = ("A", "B", "D", "E", "V")
FEW_TASKS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scripted")


@pytest.fixture(scope="module")
def suite() -> FrozenSuite:
    return planted.full_size_suite(FEW_TASKS)


@pytest.fixture(scope="module")
def perfect(folder: Path, suite: FrozenSuite) -> SuiteRun:
    return planted.play(folder, suite, WITHOUT_TASKS, planted.perfect, "perfect")


def held(run: SuiteRun, base: SuiteRun | None = None) -> dict[str, str]:
    rows = judge_runs(run, base=base, harness_agreement=draw_agreement(PERFECT_MODEL, 1))
    return {row.gate: row.verdict for row in rows if row.verdict != "pass"}


# Gates that look at suite C, and those that need another model, are open where neither was run.
NEED_MORE = {"suite_c_solved", "loops", "concludes_too_soon", "calls_per_task", "not_worse", "better"}


def test_a_perfect_model_passes_every_gate_it_can_be_judged_on(perfect: SuiteRun) -> None:
    assert set(held(perfect)) == NEED_MORE
    assert set(held(perfect).values()) == {"inconclusive"}


@pytest.mark.parametrize(
    ("turns_of", "suites", "gate"),
    [
        pytest.param(planted.empty_arguments, ("V",), "empty_arguments", id="empty arguments"),
        pytest.param(planted.repeats_a_line, ("V",), "argument_repetition", id="repeats a line"),
        pytest.param(planted.writes_after_the_call, ("D",), "call_shape", id="writes after the call"),
        pytest.param(planted.never_concludes, ("B",), "suite_b_next_step", id="never concludes"),
        pytest.param(planted.always_concludes, ("B",), "concludes_too_soon", id="always concludes"),
        pytest.param(planted.seven_calls, ("D",), "calls_per_task", id="seven calls for one"),
        pytest.param(planted.wrong_tool, ("D",), "fitting_action", id="wrong tool"),
        pytest.param(planted.invents_paths, ("A",), "grounded_arguments", id="invents paths"),
        pytest.param(planted.ignores_the_result, ("B",), "uses_result", id="ignores the result"),
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


def test_a_model_that_repeats_one_call_is_held_by_loops(folder: Path, suite: FrozenSuite) -> None:
    run = planted.play(folder, suite, ("C",), planted.same_call_forever, "loops")
    assert held(run)["loops"] == "fail"


def test_a_model_good_on_single_turns_and_bad_on_tasks_is_held_by_suite_c(
    folder: Path, suite: FrozenSuite, perfect: SuiteRun
) -> None:
    tasks = planted.play(folder, suite, ("C",), planted.gives_up_on_tasks, "gives-up")
    run = perfect.model_copy(update={"results": (*perfect.results, *tasks.results)})
    verdicts = held(run)
    assert verdicts["suite_c_solved"] == "fail"
    assert "suite_d_valid" not in verdicts


def test_fifteen_points_worse_than_production_is_held_by_not_worse(
    folder: Path, suite: FrozenSuite, perfect: SuiteRun
) -> None:
    worse = planted.play(folder, suite, WITHOUT_TASKS, planted.spoilt(0.15), "worse")
    assert held(worse, base=perfect)["not_worse"] == "fail"


def test_equal_to_production_is_held_by_better(perfect: SuiteRun) -> None:
    verdicts = held(perfect, base=perfect)
    assert verdicts["better"] == "fail"
    assert "not_worse" not in verdicts


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_on_every_suite_at_full_size_a_perfect_model_passes_everything(folder: Path) -> None:
    whole = planted.full_size_suite()
    suites = (*WITHOUT_TASKS, "C")
    run = planted.play(folder, whole, suites, planted.perfect, "perfect-whole")
    weaker = planted.play(folder, whole, suites, planted.spoilt(0.3), "weaker-whole")
    assert held(run, base=weaker) == {}

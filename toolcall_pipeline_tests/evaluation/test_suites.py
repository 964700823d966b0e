"""Suites are frozen, sized as specified, solvable, and the same on every machine."""

import json
import re
from collections import Counter

import pytest

from toolcall_pipeline.dataset.rows import Message, Row, RowMeta, ToolCall
from toolcall_pipeline.errors import EvaluationError, MissingInputError, UsageError
from toolcall_pipeline.evaluation.agentic_check import solved
from toolcall_pipeline.evaluation.commands import suite_cases, suite_label
from toolcall_pipeline.evaluation.labels import load_labels
from toolcall_pipeline.evaluation.runner import seeds_of, select_cases
from toolcall_pipeline.evaluation.sandbox import open_sandbox, sandbox_problem
from toolcall_pipeline.evaluation.suites import freeze, sample_episodes, sizes, validation
from toolcall_pipeline.evaluation.suites.agentic import FAMILIES, agentic_cases
from toolcall_pipeline.evaluation.suites.freeze import freeze_suite, list_versions, load_suite, new_version
from toolcall_pipeline.evaluation.suites.sample_episodes import carry_out, sample_cases
from toolcall_pipeline.evaluation.suites.single_turn import single_turn_cases
from toolcall_pipeline.evaluation.suites.vague import _THINGS, vague_cases
from toolcall_pipeline.evaluation.suites.validation import cases_of_rows
from toolcall_pipeline.evaluation.tool_schemas import schema_defects, tools_by_name
from toolcall_pipeline.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path)


@pytest.fixture
def small_sizes(monkeypatch):
    """Make the suites small enough to be frozen again and again."""
    for suite, size in {"A": 24, "B": 20, "C": 2, "D": 12, "V": 5}.items():
        monkeypatch.setitem(sizes.SUITE_SIZES, suite, size)
    for module in (validation, sample_episodes, freeze):
        monkeypatch.setattr(module, "B_HALF", 10)


@pytest.fixture
def enough_rows(small_sizes):
    """Give rows that fill A and B."""
    return [make_row(number) for number in range(40)]


def make_row(number: int, *, synthetic=False, supervised=True, fact="") -> Row:
    """Return an episode of two calls and a conclusion."""
    fact = fact or f"value-{number}x"
    call = ToolCall(name="Read", arguments={"file_path": f"/app/file{number}.py"})
    then = ToolCall(name="Bash", arguments={"command": f"pytest tests/test_{number}.py"})
    return Row(
        messages=(
            Message(role="user", content=f"Look into item {number}."),
            Message(role="assistant", tool_calls=(call,), supervised=supervised),
            Message(role="tool", content=f"x = {fact}"),
            Message(role="assistant", tool_calls=(then,), supervised=supervised),
            Message(role="tool", content=f"passed with {fact}"),
            Message(role="assistant", content=f"It is {fact}.", supervised=supervised),
        ),
        tools=(),
        meta=RowMeta(
            row_id=f"row{number}", session_id=f"s{number}", family_id=f"f{number}", prompt_event_id=f"p{number}",
            project_root="/app", category="Read", backfill_run_id="r", recipe="v3", synthetic=synthetic,
            source_file="a.jsonl", source_line=number + 1,
        ),
    )  # fmt: skip


def test_the_sample_suite_has_full_sizes_and_no_case_twice(settings):
    suite = freeze_suite(settings, validation_rows=(), tools=(), is_sample=True)
    counts = Counter(case.suite for case in suite.cases)
    assert counts == {"A": 400, "B": 500, "C": 125, "D": 550, "V": 600}
    assert Counter(case.stratum for case in suite.cases if case.suite == "B") == {"call": 250, "conclude": 250}
    assert len({case.case_id for case in suite.cases}) == len(suite.cases)
    assert suite.is_sample
    assert all(len(case.tools) >= 5 for case in suite.cases)
    prompts = [case.messages[-1]["content"] for case in suite.cases if case.suite in "DV"]
    assert len(set(prompts)) == len(prompts)


def test_a_sample_run_asks_about_its_own_sessions_first(settings, small_sizes):
    rows = [make_row(number, synthetic=True) for number in range(16)]
    suite = freeze_suite(settings, validation_rows=rows, tools=(), is_sample=True)
    a_cases = [case for case in suite.cases if case.suite == "A"]
    assert len(a_cases) == 24
    assert sum("file" in case.source for case in a_cases) == 22  # first calls, and later ones that B left
    assert suite.families == {f"f{number}" for number in range(16)}
    assert all(case.source for case in select_cases(suite.cases, ["A", "B"], {"A": 8, "B": 8}))


def test_no_prompt_of_the_sample_suite_is_asked_twice(settings):
    cases = sample_cases(())
    assert len({json.dumps(case.messages) for case in cases}) == len(cases) == 900
    assert {call["name"] for case in cases if case.suite == "A" for call in case.expected["calls"]} == {
        "Read", "Grep", "Edit",
    }  # fmt: skip


def test_no_vague_prompt_is_another_in_other_words():
    asked = Counter()
    for case in vague_cases((), 600):
        prompt = case.messages[-1]["content"]
        about = [thing for thing in _THINGS if re.search(rf"(?<![\w-]){thing}(?![\w-])", prompt)]
        asked[case.stratum, max(about, key=len)] += 1
    assert len(asked) == 600


def test_a_model_that_stops_early_cannot_solve_most_tasks():
    needed = Counter(case.expected["calls_needed"] for case in agentic_cases((), 125))
    assert sum(count for calls, count in needed.items() if calls >= 2) > 0.5 * 125
    assert sum(count for calls, count in needed.items() if calls >= 3) > 0.3 * 125
    for case in agentic_cases((), 40):
        if case.expected["calls_needed"] >= 3:
            assert case.expected["check"]["files"], case.case_id


def test_turns_that_use_only_what_is_shown_come_first(small_sizes):
    hidden = [make_row(number) for number in range(30)]
    shown = [
        row.model_copy(
            update={
                "messages": (
                    row.messages[0].model_copy(update={"content": f"Read /app/file{n}.py."}),
                    *row.messages[1:],
                )
            }
        )
        for n, row in enumerate(hidden[:24])
    ]
    cases = [case for case in cases_of_rows([*shown, *hidden[24:]], ()) if case.suite == "A"]
    assert {case.source["family_id"] for case in cases} == {f"f{n}" for n in range(24)}


def test_a_conclusion_of_common_words_alone_is_not_asked_for(small_sizes):
    rows = [make_row(number, fact="committed") for number in range(60)]
    own = make_row(99)
    conclusions = [case for case in cases_of_rows([*rows, own], ()) if case.stratum == "conclude"]
    assert [case.expected["facts"] for case in conclusions] == [["value-99x"]]


def test_rows_become_cases_of_what_the_session_did_next():
    cases = cases_of_rows([make_row(1)], ())
    a, call_half, conclusion = cases
    assert (a.suite, a.expected["calls"]) == ("A", [{"name": "Read", "arguments": {"file_path": "/app/file1.py"}}])
    assert [message["role"] for message in a.messages] == ["user"]
    assert (call_half.stratum, call_half.expected["calls"][0]["name"]) == ("call", "Bash")
    assert [message["role"] for message in call_half.messages] == ["user", "assistant", "tool"]
    assert conclusion.expected["facts"] == ["value-1x"]
    assert cases_of_rows([make_row(1, supervised=False)], ()) == []


def test_later_rows_of_an_episode_give_cases_and_repeats_of_a_row_do_not():
    row, later = make_row(1), make_row(2)
    later = later.model_copy(update={"meta": row.meta.model_copy(update={"row_id": "row1+1"})})
    repeat = later.model_copy(update={"meta": row.meta.model_copy(update={"row_id": "row1+1~1"})})
    counts = Counter((case.suite, case.stratum) for case in cases_of_rows([row, later, repeat], ()))
    assert counts == {("A", "first_call"): 2, ("B", "call"): 2, ("B", "conclude"): 2}


def test_a_user_without_enough_sessions_meets_the_sample_suite(settings, small_sizes):
    suite = freeze_suite(settings, validation_rows=[make_row(n) for n in range(9)], tools=(), is_sample=False)
    assert suite.is_sample
    assert "f1" not in suite.families


def test_the_sizes_are_the_specified_ones():
    assert sizes.SUITE_SIZES == {"A": 400, "B": 500, "C": 125, "D": 550, "E": 200, "V": 600}
    assert (sizes.B_HALF, sizes.MIN_TOOLS) == (250, 5)


def test_the_first_dataset_that_fills_a_and_b_freezes_version_one_for_good(settings, enough_rows):
    first = freeze_suite(settings, validation_rows=enough_rows, tools=(), is_sample=False)
    assert (first.version, first.is_sample) == ("1", False)
    counts = Counter((case.suite, case.stratum if case.suite == "B" else "") for case in first.cases)
    assert (counts["A", ""], counts["B", "call"], counts["B", "conclude"]) == (24, 10, 10)
    again = freeze_suite(settings, validation_rows=enough_rows[:5], tools=(), is_sample=False)
    assert again.sha256 == first.sha256
    second = new_version(settings, validation_rows=enough_rows[10:], tools=())
    assert second.version == "2"
    assert load_suite(settings).version == "2"
    assert load_suite(settings, first.sha256[:12]).version == "1"
    assert list_versions(settings) == ["1", "2"]
    with pytest.raises(UsageError, match="needs 24"):
        new_version(settings, validation_rows=enough_rows[:9], tools=())
    with pytest.raises(UsageError, match="give 0 and 0"):
        new_version(settings, validation_rows=[make_row(number, synthetic=True) for number in range(40)], tools=())


def test_cases_of_families_that_trained_are_retired_for_all(settings, enough_rows):
    first = freeze_suite(settings, validation_rows=enough_rows, tools=(), is_sample=False)
    family = next(case.source["family_id"] for case in first.cases if case.suite == "A")
    later = freeze_suite(settings, validation_rows=(), tools=(), is_sample=False, trained_families={family})
    assert family not in later.families
    assert later.sha256 != first.sha256
    assert set(later.retired) == {case.case_id for case in first.cases if case.source.get("family_id") == family}
    assert load_suite(settings).sha256 == later.sha256


def test_a_frozen_suite_that_was_touched_is_refused(settings, small_sizes):
    suite = freeze_suite(settings, validation_rows=(), tools=(), is_sample=True)
    path = suite.directory / "cases.jsonl"
    path.write_text(path.read_text().replace("port", "harbour", 1))
    with pytest.raises(EvaluationError, match="changed since it was frozen"):
        load_suite(settings)


def test_a_version_that_does_not_exist_is_named(settings):
    with pytest.raises(MissingInputError, match="no frozen suite 'nope'"):
        load_suite(settings, "nope")


def test_expected_calls_fit_the_schemas_that_are_offered():
    for case in (*single_turn_cases((), 550), *vague_cases((), 60)):
        schemas = tools_by_name(case.tools)
        for call in (*case.expected.get("calls", ()), *filter(None, [case.expected.get("example")])):
            assert schema_defects(call["name"], call["arguments"], schemas) == [], case.case_id


def test_what_an_ask_is_said_to_name_stands_in_it():
    cases = [case for case in single_turn_cases((), 550) if case.expected["calls"]]
    for case in cases:
        assert len(case.expected["named"]) == len(case.expected["calls"])
        assert all(
            named and all(word in case.messages[-1]["content"] for word in named) for named in case.expected["named"]
        )


def test_the_same_code_writes_the_same_cases():
    once, twice = (
        [case.model_dump_json() for case in (*agentic_cases((), 20), *single_turn_cases((), 50))] for _ in range(2)
    )
    assert once == twice


@pytest.mark.skipif(sandbox_problem() is not None, reason="no sandbox here")
def test_every_kind_of_task_is_solved_by_its_solution_and_not_before():
    for case in agentic_cases((), len(FAMILIES)):
        files = dict(case.expected["files"])
        with open_sandbox(files) as sandbox:
            assert not solved(case, sandbox.snapshot(), "I have done it."), case.case_id
            for call in (call for step in case.expected["solution"] for call in step):
                answer = sandbox.call(call["name"], call["arguments"])
                assert not answer.is_error, (case.case_id, answer)
                if call["name"] in ("Read", "Grep", "Edit"):
                    assert carry_out(call, files) == answer.output
            assert solved(case, sandbox.snapshot(), case.expected["answer"]), case.case_id


def test_an_answer_must_state_the_very_value():
    case = agentic_cases((), 1)[0]
    value = case.expected["check"]["answer"][0][0]
    files = case.expected["files"]
    assert solved(case, files, f"It is {value}.")
    assert solved(case, files, f"它的值是{value}。")
    assert not solved(case, files, f"It is {value}1 or 1{value} or {value}.5.")
    assert not solved(case, {**files, "new.txt": "x"}, f"It is {value}.")
    assert not solved(case, files, f"It is not set to {value}.")


@pytest.mark.parametrize(
    ("value", "answer", "is_right"),
    [
        ("3", "There are three TODO comments.", True),
        ("0", "There are no TODO comments.", True),
        ("1", "I found one.", True),
        ("3", "There are thirteen.", False),
        ("3", "There are not three.", False),
        ("0", "No problem, I have counted them.", False),
        ("1", "I looked at one file: there are 3.", False),  # it says its number with a digit
        ("30", "There are three.", False),
    ],
)
def test_a_small_number_may_be_said_in_words(value, answer, is_right):
    case = agentic_cases((), 1)[0]
    check = {**case.expected, "check": {"answer": [[value]]}}
    assert solved(case.model_copy(update={"expected": check}), case.expected["files"], answer) is is_right


def test_files_and_results_handed_on_are_no_answer():
    case = agentic_cases((), 1)[0]
    value = case.expected["check"]["answer"][0][0]
    files = case.expected["files"]
    assert not solved(case, files, "\n".join(files.values()))
    lines = [f"src/module_{number}.py: LIMIT_{number} = {number * 7}" for number in range(20)]
    listing = "\n".join((*lines, f"NAME = {value}"))
    assert not solved(case, files, f"I found this:\n{listing}", [listing])
    assert solved(case, files, f"I found `NAME = {value}`.", [listing])


def test_fewer_cases_are_spread_over_strata():
    cases = single_turn_cases((), 550)
    picked = select_cases(cases, ["D"], {"D": 8})
    assert Counter(case.stratum for case in picked) == {
        "in_distribution": 2, "out_of_distribution": 2, "several_calls": 2, "no_tool": 2,
    }  # fmt: skip
    tasks = agentic_cases((), 20)
    assert len(select_cases(tasks, ["C"], {"C": 2})) * len(seeds_of("C")) == 2
    assert select_cases(tasks, ["C"], {"C": 0}) == []
    assert len(select_cases(tasks, ["C"], None)) == 20


@pytest.mark.parametrize(
    ("case_id", "call", "said"),
    [
        ("A-x", '{"name": "Bash"', "is not JSON"),
        ("A-x", "[1]", "a JSON list"),
        ("A-x", '{"arguments": {}}', "needs a call"),
        ("A-x", '{"name": "Bash"}', "has no case 'A-x'"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused(settings, small_sizes, case_id, call, said):
    if said == "needs a call":
        case_id = next(case["case_id"] for case in suite_cases(settings, suites=["A"]))
    with pytest.raises(UsageError, match=said):
        suite_label(settings, case_id, call, plausible=True)
    assert load_labels(settings) == {}


def test_a_label_of_a_case_lasts(settings, small_sizes):
    case_id = next(case["case_id"] for case in suite_cases(settings, suites=["A"]))
    label = suite_label(settings, case_id, '{"name": "Bash", "arguments": {"command": "ls"}}', plausible=True)
    assert load_labels(settings) == {(case_id, label.call_key): True}


def test_cases_print_with_all_a_script_needs(settings, small_sizes):
    for case in suite_cases(settings, suites=["A", "C"]):
        json.dumps(case)
        assert {"suite", "case_id", "seeds", "messages", "tools", "expected"} <= set(case)
    with pytest.raises(UsageError, match="no suite X"):
        list(suite_cases(settings, suites=["X"]))

"""Cases run in order, resume after a kill, meet any backend, and a perfect script passes everything."""

import json
from collections import Counter

import pytest

from toolcall_pipeline.artifacts import sha256_file
from toolcall_pipeline.errors import ArtifactError, EvaluationError, MissingInputError, UsageError
from toolcall_pipeline.evaluation.backends import Generation, Request, open_backend
from toolcall_pipeline.evaluation.backends.scripted import ScriptedBackend
from toolcall_pipeline.evaluation.baselines import measure_baselines
from toolcall_pipeline.evaluation.cases import Case, ModelIdentity, same_outcome
from toolcall_pipeline.evaluation.commands import describe_case, evaluate
from toolcall_pipeline.evaluation.evaluating import evaluate_gated, run_suite
from toolcall_pipeline.evaluation.labels import add_label, load_labels
from toolcall_pipeline.evaluation.play import PlaySettings
from toolcall_pipeline.evaluation.results_log import ResultsLog
from toolcall_pipeline.evaluation.runner import agreement, run_cases
from toolcall_pipeline.evaluation.sandbox import Sandbox, SandboxDiedError, sandbox_problem
from toolcall_pipeline.evaluation.stage import evaluate_candidate
from toolcall_pipeline.evaluation.suites import freeze, sample_episodes, sizes
from toolcall_pipeline.evaluation.suites.agentic import agentic_cases
from toolcall_pipeline.evaluation.suites.freeze import freeze_suite
from toolcall_pipeline.evaluation.suites.single_turn import single_turn_cases
from toolcall_pipeline.evaluation.suites.vague import vague_cases
from toolcall_pipeline.gates.evaluate_command import evaluate_and_judge
from toolcall_pipeline.presets import resolve_configuration
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline_tests.evaluation.scripted_models import as_completion, perfect_turns, write_script

needs_sandbox = pytest.mark.skipif(sandbox_problem() is not None, reason="no sandbox here")
FEW = {"A": 6, "B": 6, "C": 4, "D": 12, "E": 2, "V": 5}


@pytest.fixture(autouse=True)
def small_suites(monkeypatch):
    """Make the suites small enough to be frozen again and again."""
    for suite, size in {"A": 12, "B": 20, "C": 14, "D": 60, "V": 12}.items():
        monkeypatch.setitem(sizes.SUITE_SIZES, suite, size)
    for module in (sample_episodes, freeze):
        monkeypatch.setattr(module, "B_HALF", 10)


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home")


class CountingBackend:
    """Answers perfectly, the newest of what is under way first, and counts; breaks after so many where asked to."""

    def __init__(self, cases, places=1, break_after=None):
        self.places = places
        self.identity = ModelIdentity(name="counting", sha256="0" * 64, backend="scripted")
        self.turns = {(case.suite, case.case_id): perfect_turns(describe_case(case)) for case in cases}
        self.answered: list[str] = []
        self.most_under_way = 0
        self.break_after = break_after

    def generate(self, take):
        under_way = []
        while True:
            while len(under_way) < self.places and (taken := take()) is not None:
                under_way.append(taken)
            if not under_way:
                return
            self.most_under_way = max(self.most_under_way, len(under_way))
            number, request = under_way.pop()
            yield number, self._answer(request)

    def _answer(self, request: Request) -> Generation:
        if self.break_after is not None and len(self.answered) >= self.break_after:
            raise EvaluationError("the backend is gone")
        self.answered.append(request.case_id)
        turns = self.turns[request.suite, request.case_id]
        return Generation(turns[min(request.turn_index, len(turns) - 1)])

    def close(self):
        pass


def test_results_come_in_the_order_of_the_cases_however_many_run_together():
    cases = single_turn_cases((), 30)
    backend = CountingBackend(cases, places=4)
    together = run_cases(backend, cases, PlaySettings(64))
    assert [result.case_id for result in together] == [case.case_id for case in cases]
    assert backend.answered != [case.case_id for case in cases]
    assert backend.most_under_way == 4
    alone = run_cases(CountingBackend(cases), cases, PlaySettings(64))
    assert agreement(alone, together) == {
        "cases_count": 30, "outcome_ratio": 1.0, "text_ratio": 1.0, "may_run_together": True,
    }  # fmt: skip


def test_agreement_below_the_bar_forbids_running_together():
    cases = single_turn_cases((), 30)
    alone = run_cases(CountingBackend(cases), cases, PlaySettings(64))
    other = [alone[0].model_copy(update={"outcome": "wrong_tool"}), *alone[1:]]
    assert agreement(alone, other)["may_run_together"] is False
    assert agreement([], [])["may_run_together"] is False


@pytest.mark.parametrize(
    "broken", [{"outcome": "error"}, {"outcome": "sandbox_failed"}, {"error": "the server is gone"}]
)
def test_what_broke_alike_agrees_with_nothing(broken):
    cases = single_turn_cases((), 30)
    results = [
        result.model_copy(update=broken) for result in run_cases(CountingBackend(cases), cases, PlaySettings(64))
    ]
    assert not same_outcome(results[0], results[0])
    assert agreement(results, results)["outcome_ratio"] == 0.0


@pytest.mark.parametrize(("spoilt", "used"), [(0, 8), (1, 8), (12, 1)])
def test_a_gated_run_goes_together_only_where_the_outcomes_agree(settings, monkeypatch, spoilt, used):
    suite = freeze_suite(settings, validation_rows=(), tools=(), is_sample=True)
    answered: Counter[int] = Counter()

    def open_counting(model, *, sequences, **_):
        backend = CountingBackend(suite.cases, places=sequences)
        if sequences > 1:  # together, some answers come out otherwise
            for case in [case for case in suite.cases if case.suite == "D"][:spoilt]:
                backend.turns[case.suite, case.case_id] = [""]
        backend.close = lambda: answered.update({sequences: len(backend.answered)})
        return backend

    monkeypatch.setattr("toolcall_pipeline.evaluation.evaluating.open_backend", open_counting)
    evaluation = {"sequences": 8, "suites": ["A", "B", "D", "V"], "cases_per_suite": None}
    context = StageContext("k", resolve_configuration("smoke", {"evaluation": evaluation}), settings, engine=None)
    run = evaluate_gated(context, "model", suite)
    assert run.generation["sequences"] == used
    few = answered[1] if used == 8 else answered[8]
    assert answered == {used: len(run.results), 9 - used: few}  # no case is run twice the same way
    assert 0 < few < len(run.results)


def test_prompts_that_begin_alike_follow_each_other_and_results_keep_the_order_of_the_cases():
    cases = [case for pair in zip(single_turn_cases((), 30), vague_cases((), 60), strict=False) for case in pair]
    backend = CountingBackend(cases)
    results = run_cases(backend, cases, PlaySettings(64))
    assert [result.case_id for result in results] == [case.case_id for case in cases]
    tools = {case.case_id: json.dumps(case.tools) for case in cases}
    suites = {case.case_id: case.suite for case in cases}
    assert [suites[case_id] for case_id in backend.answered] == ["D"] * 30 + ["V"] * 30
    for suite in "DV":
        asked = [tools[case_id] for case_id in backend.answered if suites[case_id] == suite]
        assert asked == sorted(asked)


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    cases = single_turn_cases((), 20)
    log = ResultsLog(tmp_path, {"model": "m"})
    with pytest.raises(EvaluationError):
        run_cases(CountingBackend(cases, break_after=7), cases, PlaySettings(64), log=log)
    with log.path.open("ab") as stream:
        stream.write(b'{"case_sha256": "half a li')  # killed while it wrote
    backend = CountingBackend(cases)
    seen: list[tuple] = []
    results = run_cases(
        backend,
        cases,
        PlaySettings(64),
        log=ResultsLog(tmp_path, {"model": "m"}),
        progress=lambda *now: seen.append(now),
    )
    assert len(backend.answered) == 13
    assert [now[:3] for now in seen] == [(done, 20, "cases") for done in range(8, 21)]
    undisturbed = run_cases(CountingBackend(cases), cases, PlaySettings(64))
    assert [result.model_dump(exclude={"seconds"}) for result in results] == [
        result.model_dump(exclude={"seconds"}) for result in undisturbed
    ]
    again = CountingBackend(cases)
    run_cases(again, cases, PlaySettings(64), log=ResultsLog(tmp_path, {"model": "m"}))
    assert again.answered == []
    other = CountingBackend(cases)
    run_cases(other, cases, PlaySettings(64), log=ResultsLog(tmp_path, {"model": "another"}))
    assert len(other.answered) == 20


@needs_sandbox
def test_a_perfect_script_passes_every_case(settings, tmp_path):
    suite = freeze_suite(settings, validation_rows=(), tools=(), is_sample=True)
    script = write_script(tmp_path / "perfect.jsonl", map(describe_case, suite.cases))
    configuration = resolve_configuration("smoke", {"evaluation": {"cases_per_suite": FEW, "profile": "ship"}})
    run = evaluate(settings, model="", backend=f"scripted:{script}", configuration=configuration)
    assert Counter(result.suite for result in run.results) == {"A": 6, "B": 6, "C": 4, "D": 12, "V": 5}
    assert all(result.passed for result in run.results)
    for result in run.results:
        measures = result.measures
        assert measures["shape_defects"] == measures["empty_arguments"] == measures["repetition_defects"] == 0
        assert measures["grounded_found"] == measures["grounded_total"]
    c_results = [result for result in run.results if result.suite == "C"]
    assert all(result.measures["calls_used"] == result.measures["calls_needed"] for result in c_results)
    assert {result.seed for result in c_results} == {0, 1}


def test_a_second_run_under_a_grammar_is_a_column_and_changes_no_verdict(settings, tmp_path):
    suite = freeze_suite(settings, validation_rows=(), tools=(), is_sample=True)
    script = write_script(tmp_path / "s.jsonl", map(describe_case, suite.cases))
    free, both = (
        evaluate_and_judge(settings, backend=f"scripted:{script}", suites=["D"], constrained=constrained).parsed
        for constrained in (False, True)
    )
    assert free.gates == both.gates
    assert [suite.constrained for suite in free.suites] == [None]
    assert both.suites[0].constrained.n == both.suites[0].n > 50
    assert both.generation["decoding"] == "free"
    logs = [path.read_text(encoding="utf-8") for path in (settings.cache_dir / "evaluation").iterdir()]
    keys = [json.loads(log.splitlines()[0])["key"] for log in logs]
    assert sorted(key["generation"]["decoding"] for key in keys) == ["constrained", "free"]


GREP = {"name": "Grep", "arguments": {"pattern": "x"}}


@needs_sandbox
@pytest.mark.parametrize(
    ("turns", "outcome", "measures"),
    [
        ([as_completion([GREP])], "looped", {"looped": True, "calls_used": 3}),  # its last turn is repeated
        (["I will look into it."], "gave_up", {"concluded_too_soon": False, "calls_used": 0}),  # it never began
        ([as_completion([GREP]), "It is 5 and so on."], "concluded", {"concluded_too_soon": False}),
        ([""], "gave_up", {"gave_up": True}),
        (["<tool_call>{bad"], "gave_up", {"shape_defects": 1}),
        (
            [as_completion([{"name": "Bash", "arguments": {"command": f"echo {n}"}}]) for n in range(20)],
            "gave_up",
            {"gave_up": True, "calls_used": 8},
        ),
        (
            [as_completion([{"name": "WebSearch", "arguments": {"q": "x"}}]), "Done."],
            "concluded",
            {"wrong_action": True},
        ),
        ([as_completion([{"name": "Read", "arguments": {}}]), "Done."], "concluded", {"empty_arguments": 1}),
    ],
)
def test_suite_c_tells_apart_how_a_task_ends(tmp_path, turns, outcome, measures):
    (case,) = agentic_cases((), 1)
    script = write_script(tmp_path / "s.jsonl", [describe_case(case)], lambda _: turns)
    first, second = run_cases(ScriptedBackend(script), [case], PlaySettings(64))
    assert first.outcome == second.outcome == outcome
    assert not first.passed
    assert {name: first.measures[name] for name in measures} == measures


@needs_sandbox
def test_a_sandbox_that_died_at_the_end_is_no_fault_of_the_model(tmp_path, monkeypatch):
    def died(self):
        raise SandboxDiedError("killed")

    (case,) = agentic_cases((), 1)
    script = write_script(tmp_path / "s.jsonl", [describe_case(case)])
    monkeypatch.setattr(Sandbox, "snapshot", died)
    first, _ = run_cases(ScriptedBackend(script), [case], PlaySettings(64))
    assert (first.outcome, first.passed, first.error, first.is_broken) == ("sandbox_failed", False, "killed", True)


def test_a_resumed_run_does_not_count_its_own_time_only(settings, tmp_path):
    suite = freeze_suite(settings, validation_rows=(), tools=(), is_sample=True)
    configuration = resolve_configuration("smoke").evaluation
    first, again = (
        run_suite(CountingBackend(suite.cases), suite, configuration, suites=["D"], log_dir=tmp_path) for _ in range(2)
    )
    assert first.total_seconds == first.seconds > 0
    assert again.seconds == 0
    assert again.total_seconds == sum(result.seconds for result in first.results)


def test_without_a_sandbox_suite_c_does_not_run_and_says_so(settings, monkeypatch):
    suite = freeze_suite(settings, validation_rows=(), tools=(), is_sample=True)
    monkeypatch.setattr("toolcall_pipeline.evaluation.evaluating.sandbox_problem", lambda: "no user namespaces")
    configuration = resolve_configuration("smoke").evaluation
    run = run_suite(CountingBackend(suite.cases), suite, configuration)
    assert run.generation["suite_c_not_run"] == "no user namespaces"
    assert {result.suite for result in run.results} == {"A", "B", "D", "V"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not json", "is not JSON"),
        ("[]", "is a list"),
        ('{"suite": "A", "case_id": "x", "seed": 0}', "no list of texts"),
        ('{"suite": "A", "case_id": "x", "seed": 0, "turns": []}', "no list of texts"),
        ('{"suite": "A", "case_id": "x", "seed": 0, "turns": [1]}', "no list of texts"),
        ('{"suite": "A", "seed": 0, "turns": ["a"]}', "is no script"),
        ('{"suite": "A", "case_id": "x", "seed": "0", "turns": ["a"]}', "is no script"),
    ],
)
def test_a_line_that_is_no_script_is_named(tmp_path, line, problem):
    path = tmp_path / "script.jsonl"
    path.write_text("\n" + line + "\n")
    with pytest.raises(UsageError, match=problem) as caught:
        ScriptedBackend(path)
    assert "script.jsonl:2" in str(caught.value)


def test_two_scripts_of_one_case_and_seed_are_refused(tmp_path):
    path = tmp_path / "script.jsonl"
    path.write_text('{"suite": "A", "case_id": "x", "seed": 0, "turns": ["a"]}\n' * 2)
    with pytest.raises(UsageError, match=r"script\.jsonl:2 is the second script of A x seed 0"):
        ScriptedBackend(path)


def test_a_case_without_a_script_is_an_error_of_that_case(tmp_path):
    cases = single_turn_cases((), 4)
    script = write_script(tmp_path / "s.jsonl", map(describe_case, cases[:2]))
    results = run_cases(ScriptedBackend(script), cases, PlaySettings(64))
    assert [result.error is None for result in results] == [True, True, False, False]
    assert results[3].outcome == "error"


@pytest.mark.parametrize("line", [b"\xff\xfe{}", b"[" * 100_000, b"[]", b'{"suite": "A", "case_id": "x", "turns": []}'])
def test_a_script_that_is_none_is_refused_with_its_line(tmp_path, line):
    (tmp_path / "s.jsonl").write_bytes(b"\n" + line + b"\n")
    with pytest.raises(UsageError, match=r"s\.jsonl:2 .*Expected"):
        ScriptedBackend(tmp_path / "s.jsonl")


def test_backends_are_found_by_the_models_form(tmp_path):
    with pytest.raises(MissingInputError):
        open_backend(tmp_path / "none.gguf", context_tokens=64)
    with pytest.raises(MissingInputError):
        open_backend("scripted:" + str(tmp_path / "none.jsonl"), context_tokens=64)
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00cut off")
    with pytest.raises(EvaluationError, match="cannot load"):
        open_backend(tmp_path / "cut.gguf", context_tokens=64)
    with pytest.raises(UsageError, match="no backend 'psychic'"):
        open_backend(tmp_path / "cut.gguf", backend="psychic", context_tokens=64)


def test_labels_last_and_are_used_when_stored_results_are_read_again(settings, tmp_path):
    tools = ({"type": "function", "function": {"name": "Bash", "parameters": {}}},)
    case = Case(
        suite="A", case_id="A-1", cluster_id="f", messages=({"role": "user", "content": "x"},), tools=tools,
        expected={"calls": [{"name": "Read", "arguments": {"file_path": "a"}}]},
    )  # fmt: skip
    call = {"name": "Bash", "arguments": {"command": "cat a"}}
    script = write_script(tmp_path / "s.jsonl", [describe_case(case)], lambda _: [as_completion([call])])
    log = ResultsLog(tmp_path / "log", {"model": "m"})
    (before,) = run_cases(ScriptedBackend(script), [case], PlaySettings(64), log=log)
    assert before.outcome == "wrong"
    add_label(settings, "A-1", call, True, "just as good")
    labels = load_labels(settings)
    (after,) = run_cases(ScriptedBackend(script), [case], PlaySettings(64, labels=labels), log=log)
    assert (after.outcome, after.passed) == ("plausible_alternative", True)
    with pytest.raises(UsageError):
        add_label(settings, "A-1", {"arguments": {}}, True)


@pytest.fixture
def stage_context(settings):
    configuration = resolve_configuration(
        "smoke", {"evaluation": {"cases_per_suite": {"A": 2, "B": 2, "C": 0, "D": 4, "E": 0, "V": 2}}}
    )
    return StageContext("20261123T020000Z", configuration, settings, engine=None)


def test_baselines_and_candidate_meet_the_same_cases(stage_context, tmp_path, monkeypatch):
    suite = freeze_suite(stage_context.settings, validation_rows=(), tools=(), is_sample=True)
    base = write_script(tmp_path / "base.jsonl", map(describe_case, suite.cases), lambda _: ["I don't know."])
    tuned = write_script(tmp_path / "tuned.jsonl", map(describe_case, suite.cases))
    baselines = measure_baselines(stage_context, suite, base_gguf=(base, sha256_file(base)), production=None)
    assert baselines.manifest.metadata["suite_sha256"] == suite.sha256
    assert "production.json" not in baselines.manifest.files
    written: dict = {}

    def write_reports(directory, **given):
        written.update(given)
        (directory / "report.md").write_text("report")
        return {"verdict": "HOLD"}

    report = evaluate_candidate(
        stage_context,
        suite,
        gguf_path=tuned,
        gguf_artifact_sha256="0" * 64,
        baselines=baselines,
        write_reports=write_reports,
    )
    assert report.manifest.metadata["verdict"] == "HOLD"
    assert report.manifest.metadata["suite_d_pass_ratio"] == 1.0
    assert {"suite_run.json", "cases.jsonl", "harness_agreement.json", "transcripts.jsonl"} <= set(
        report.manifest.files
    )
    base_run, candidate = written["base"], written["candidate"]
    assert [(r.case_id, r.seed) for r in base_run.results] == [(r.case_id, r.seed) for r in candidate.results]
    assert written["production"] is None
    monkeypatch.setattr("toolcall_pipeline.evaluation.stage.evaluate_gated", None)
    again = evaluate_candidate(
        stage_context, suite, gguf_path=tuned, gguf_artifact_sha256="0" * 64, baselines=baselines
    )
    assert again.sha256 == report.sha256


def test_a_production_file_that_is_gone_or_changed_is_refused(stage_context, tmp_path):
    suite = freeze_suite(stage_context.settings, validation_rows=(), tools=(), is_sample=True)
    base = write_script(tmp_path / "base.jsonl", map(describe_case, suite.cases))
    with pytest.raises(MissingInputError):
        measure_baselines(stage_context, suite, base_gguf=(base, "0"), production=(tmp_path / "gone.gguf", "0"))
    with pytest.raises(ArtifactError, match="not what was shipped"):
        measure_baselines(stage_context, suite, base_gguf=(base, "0"), production=(base, "0" * 64))


def test_what_broke_is_measured_again_and_what_broke_again_is_no_news(stage_context, tmp_path, monkeypatch):
    suite = freeze_suite(stage_context.settings, validation_rows=(), tools=(), is_sample=True)
    model = write_script(tmp_path / "model.jsonl", map(describe_case, suite.cases))
    whole, asked = ScriptedBackend._answer, []

    def breaks_on(*suites):
        def answer(self, request):
            asked.append(request.suite)
            return Generation(raw="", error="gone") if request.suite in suites else whole(self, request)

        monkeypatch.setattr(ScriptedBackend, "_answer", answer)

    def baselines():
        asked.clear()
        return measure_baselines(stage_context, suite, base_gguf=(model, sha256_file(model)), production=None)

    def reports(of):
        return evaluate_candidate(stage_context, suite, gguf_path=model, gguf_artifact_sha256="0" * 64, baselines=of)

    breaks_on("A", "V")
    broken = baselines()
    assert broken.manifest.metadata["base_unmeasured_count"] == 4
    assert (baselines().sha256, asked) == (broken.sha256, ["A", "A", "V", "V"])
    report = reports(broken)
    breaks_on("V")
    less = baselines()
    assert (less.manifest.metadata["base_unmeasured_count"], asked) == (2, ["A", "A", "V", "V"])
    breaks_on()
    mended = baselines()
    assert (mended.manifest.metadata["base_unmeasured_count"], asked) == (0, ["V", "V"])
    assert len({broken.sha256, less.sha256, mended.sha256}) == 3
    assert (baselines().sha256, asked) == (mended.sha256, [])
    assert reports(broken).sha256 != report.sha256
    assert reports(broken).manifest.metadata["unmeasured_count"] == 0
    assert stage_context.artifacts.current("baseline_reports", stage_context.partition).sha256 == mended.sha256

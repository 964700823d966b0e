"""Reports: strict where scripts read them, the same bytes every time, nothing hidden, nothing executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from toolcall_pipeline.errors import InvalidResultsError, MissingInputError, ReportTemplateError, UsageError
from toolcall_pipeline.evaluation.cases import Case, Defect, SuiteRun, Turn
from toolcall_pipeline.evaluation.reports import model as reports_model
from toolcall_pipeline.evaluation.reports.model import (
    Correction,
    Results,
    dump_results,
    load_results,
    results_schema,
)
from toolcall_pipeline.evaluation.reports.render import render_html, render_markdown
from toolcall_pipeline.gates.good_model import BASE_MODEL, FULL_SUITES, GOOD_MODEL, draw_agreement, draw_run
from toolcall_pipeline.gates.report_commands import (
    compare_reports,
    correct_report,
    render_report,
    retract_report,
)
from toolcall_pipeline.gates.reporting import judged_results, report_metadata, write_rendered

SUITES = tuple(replace(shape, n=8 if shape.suite != "E" else 0) for shape in FULL_SUITES)
HOSTILE = '</pre><script>alert("x")</script> | `a` & <b>'


def suite_run(seed: int = 1, sha256: str = "0" * 64, raw: str = HOSTILE) -> SuiteRun:
    drawn = draw_run(GOOD_MODEL, seed, suites=SUITES, suite_sha256=sha256)
    turn = Turn(
        raw=raw,
        text="",
        defects=(Defect(kind="schema_violation", detail="'path' is missing"),),
        tool_results=("tool says <i>hi</i>",),
        completion_tokens=7,
    )
    return drawn.model_copy(
        update={"results": tuple(result.model_copy(update={"turns": (turn,)}) for result in drawn.results)}
    )


def cases_of(run: SuiteRun) -> list[Case]:
    return [
        Case(
            suite=result.suite,
            case_id=result.case_id,
            cluster_id=result.cluster_id,
            messages=(
                {"role": "user", "content": f"Open {HOSTILE}"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "Read", "arguments": {"file_path": "a"}}}]},
                {"role": "tool", "content": "line"},
            ),
            expected={"calls": [{"name": "Read"}]},
        )
        for result in run.results
    ]


def results(profile: Any = "smoke", **options: Any) -> Results:
    run = options.pop("run", None) or suite_run()
    return judged_results(
        run,
        name="20261123T020000Z-nightly",
        profile=profile,
        base=draw_run(BASE_MODEL, 1, suites=SUITES, suite_sha256=run.suite_sha256),
        cases=cases_of(run),
        harness_agreement=draw_agreement(GOOD_MODEL, 1, n=4),
        **options,
    )


@pytest.fixture(scope="module")
def judged() -> Results:
    return results()


@pytest.fixture
def report_dir(tmp_path: Path, judged: Results) -> Path:
    write_rendered(judged, tmp_path / "report")
    return tmp_path / "report"


def test_the_published_schema_is_the_one_in_force_and_itself_valid() -> None:
    schema = results_schema()
    Draft202012Validator.check_schema(schema)
    published = Path(reports_model.__file__).with_name(reports_model.SCHEMA_NAME)
    assert json.loads(published.read_text(encoding="utf-8")) == schema


def test_results_come_back_as_they_were_written(judged: Results, report_dir: Path) -> None:
    path = report_dir / "results.json"
    assert load_results(path) == judged
    assert not list(Draft202012Validator(results_schema()).iter_errors(json.loads(path.read_text(encoding="utf-8"))))


def _drop(data: dict[str, Any], name: str) -> None:
    del data[name]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: _drop(data, "verdict"), id="no verdict"),
        pytest.param(lambda data: _drop(data, "cases"), id="no cases"),
        pytest.param(lambda data: data["gates"][0].update(verdict="green"), id="a verdict of its own"),
        pytest.param(lambda data: data["gates"][0].update(extra=1), id="a field of its own on a gate"),
        pytest.param(lambda data: data["cases"][0].update(passed="yes"), id="a text for a truth"),
        pytest.param(lambda data: data["cases"][0].update(extra=1), id="a field of its own on a case"),
        pytest.param(lambda data: data["verdict"].update(verdict="SHIPPED"), id="another verdict"),
        pytest.param(lambda data: data.update(schema_version="2"), id="another version"),
    ],
)
def test_results_that_do_not_conform_are_refused_without_their_text(
    report_dir: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    path = report_dir / "results.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    damage(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    assert list(Draft202012Validator(results_schema()).iter_errors(data)), "the published schema refuses it as well"
    with pytest.raises(InvalidResultsError) as caught:
        render_report(report_dir, report_dir)
    assert caught.value.exit_code == 5
    assert "script" not in str(caught.value)


def test_statistics_and_findings_are_free(report_dir: Path) -> None:
    path = report_dir / "results.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["statistics"]["of_my_own"] = {"anything": [1, None]}
    data["notable_findings"] = [*data["notable_findings"], {"any": "shape"}]
    path.write_text(json.dumps(data), encoding="utf-8")
    assert "of_my_own.anything" in render_html(load_results(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_results_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(InvalidResultsError):
        load_results(path)


def test_a_missing_file_and_a_missing_template_have_their_own_exit_codes(tmp_path: Path, report_dir: Path) -> None:
    with pytest.raises(MissingInputError) as missing:
        render_report(tmp_path / "nowhere.json", tmp_path)
    assert missing.value.exit_code == 6
    with pytest.raises(ReportTemplateError) as template:
        render_report(report_dir, tmp_path, templates_dir=tmp_path)
    assert template.value.exit_code == 4


def test_rendering_again_gives_the_same_bytes(report_dir: Path, tmp_path: Path) -> None:
    written = render_report(report_dir / "results.json", tmp_path / "again")
    assert [path.name for path in written] == ["report.html", "report.md"]
    for path in written:
        assert path.read_bytes() == (report_dir / path.name).read_bytes()
    assert dump_results(load_results(report_dir / "results.json")) == (report_dir / "results.json").read_text("utf-8")


def test_the_page_needs_nothing_beside_it_and_runs_nothing(judged: Results) -> None:
    page = render_html(judged)
    assert "<script" not in page.lower()
    assert "default-src 'none'" in page
    for outside in ('src="http', 'href="http', "@import", "url("):
        assert outside not in page
    assert "&lt;script&gt;alert" in page  # the transcript is there, verbatim and harmless


@given(st.text(max_size=200))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_completion_breaks_a_report(raw: str) -> None:
    run = suite_run(raw=raw)
    run = run.model_copy(update={"results": run.results[:2]})
    text = render_html(judged_results(run, name="one", profile="smoke", cases=cases_of(run)))
    assert text.count("<script") == 0
    assert text.rstrip().endswith("</html>")


def test_names_are_shown_as_text_and_turn_no_direction_of_writing() -> None:
    name = "<img src=x onerror=alert(1)>|\u202eevil"
    run = suite_run()
    run = run.model_copy(update={"model": run.model.model_copy(update={"name": name})})
    results = judged_results(run, name=name, profile="ship", cases=cases_of(run))
    page, text = render_html(results), render_markdown(results)
    assert "<img" not in page + text
    assert "\u202e" not in page + text
    assert "&lt;img src=x onerror=alert(1)>\\|\ufffdevil" in text
    assert "| < " in text  # a rule is no markup


def test_the_verdict_comes_first_and_names_what_held_it() -> None:
    held = results("ship")
    page, text = render_html(held), render_markdown(held)
    assert held.verdict.verdict == "INCONCLUSIVE"
    assert page.index("Inconclusive") < page.index("Gates passed")
    assert text.startswith("# INCONCLUSIVE: good-model")
    for gate in held.gates:
        assert f'class="gate">{gate.gate}<' in page


def test_what_did_not_improve_is_said_to_have_not() -> None:
    run = suite_run()
    same = judged_results(run, name="same", profile="smoke", base=run, cases=cases_of(run))
    assert any("did not improve" in str(finding) for finding in same.notable_findings)
    assert "did not improve" in render_html(same)


def test_a_model_judged_outside_the_chain_or_on_samples_is_never_ship() -> None:
    full = draw_run(GOOD_MODEL, 3)
    base = draw_run(BASE_MODEL, 3)
    agreement = draw_agreement(GOOD_MODEL, 3)

    def verdict(run: SuiteRun, in_chain: bool) -> str:
        judged = judged_results(
            run,
            name="n",
            base=base.model_copy(update={"suite_version": run.suite_version}),
            harness_agreement=agreement,
            in_chain=in_chain,
        )
        return judged.verdict.verdict

    assert verdict(full, True) == "SHIP"
    assert verdict(full, False) == "PASSED_NOT_SHIPPABLE"
    assert verdict(full.model_copy(update={"suite_version": "sample-1234abcd"}), True) == "PASSED_NOT_SHIPPABLE"


def test_metadata_has_the_verdict_and_a_rate_per_suite(judged: Results) -> None:
    metadata = report_metadata(judged)
    assert metadata["verdict"] == judged.verdict.verdict
    assert {"suite_a_ratio", "suite_a_base_ratio", "suite_v_ratio", "cases_count"} <= set(metadata)
    assert all(isinstance(value, (int, float, str)) for value in metadata.values())


def test_a_retraction_marks_every_page_and_keeps_the_figures(report_dir: Path, judged: Results) -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        retract_report(report_dir, " ", "2026-11-23")
    retract_report(report_dir, "It never concludes.", "2026-11-23")
    for name in ("report.html", "report.md"):
        text = (report_dir / name).read_text(encoding="utf-8")
        assert "Retracted" in text
        assert "It never concludes." in text
    assert load_results(report_dir / "results.json").gates == judged.gates


def test_a_correction_stands_beside_the_published_figure(report_dir: Path) -> None:
    correct_report(report_dir, Correction(figure="adaptation", was="30 %", corrected="90 %", reason="other harness"))
    text = (report_dir / "report.html").read_text(encoding="utf-8")
    assert "<s>30 %</s>" in text
    assert "<b>90 %</b>" in text


def test_any_number_of_runs_of_one_suite_version_stand_beside_each_other(tmp_path: Path, judged: Results) -> None:
    folders = []
    for seed in (1, 2, 3):
        write_rendered(results(run=suite_run(seed)), tmp_path / str(seed))
        folders.append(tmp_path / str(seed))
    retract_report(folders[1], "It never concludes.", "2026-11-23")
    first, again = compare_reports(folders, tmp_path / "a"), compare_reports(folders, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    page = first[0].read_text(encoding="utf-8")
    assert "3 runs on the same cases" in page
    assert "B against A" in page
    assert "C against A" in page
    assert "Retracted" in page


@pytest.mark.parametrize("shas", [["0" * 64], ["0" * 64, "1" * 64]], ids=["one run", "two suite versions"])
def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path, shas: list[str]) -> None:
    folders = []
    for index, sha256 in enumerate(shas):
        write_rendered(results(run=suite_run(sha256=sha256)), tmp_path / str(index))
        folders.append(tmp_path / str(index))
    with pytest.raises(UsageError):
        compare_reports(folders, tmp_path / "out")


def test_a_run_with_a_grammar_stands_in_a_column_of_its_own_and_is_never_paired(tmp_path: Path) -> None:
    free = suite_run()
    failed = [result.model_copy(update={"passed": result.suite == "B"}) for result in free.results]
    constrained = free.model_copy(update={"decoding": "constrained", "results": tuple(failed)})
    alone = judged_results(free, name="n", profile="smoke", cases=cases_of(free))
    both = judged_results(free, name="n", profile="smoke", constrained=constrained, cases=cases_of(free))
    assert both.gates == alone.gates
    assert "With a grammar" in render_html(both)
    columns = {suite.suite: suite.constrained for suite in both.suites}
    assert columns["A"].passed == 0
    assert columns["B"].passed == columns["B"].n > 0
    assert 0 < columns["B"].interval.low < 1
    write_rendered(both, tmp_path / "free")
    write_rendered(alone, tmp_path / "alone")
    side_by_side = compare_reports([tmp_path / "free", tmp_path / "alone"], tmp_path / "both")[1].read_text("utf-8")
    assert "| suite | A | A with a grammar | B | B with a grammar |" in side_by_side
    assert f"0.0 % (0 of {columns['A'].n}," in side_by_side
    write_rendered(judged_results(constrained, name="n", profile="smoke"), tmp_path / "grammar")
    page = compare_reports([tmp_path / "free", tmp_path / "grammar"], tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "against A" not in page

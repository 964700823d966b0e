"""Baselines and evidence as artifacts: what the page says is what the checks say; nothing stale is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.errors import ArtifactError, InvalidResultsError, MissingInputError, UsageError
from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.evaluation.reports.model import load_results
from toolcall_pipeline.gates import registry
from toolcall_pipeline.gates.evaluate_command import evaluate_and_judge, run_of_results
from toolcall_pipeline.gates.good_model import BASE_MODEL, GOOD_MODEL, draw_agreement, draw_run
from toolcall_pipeline.gates.production import current_production
from toolcall_pipeline.gates.reporting import judged_results, write_rendered, write_reports
from toolcall_pipeline.presets import Configuration, resolve_configuration
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext

PARTITION = "20261123T020000Z-nightly"
SUITE = "5" * 64
SHIP = resolve_configuration("nightly")
REDUCED = resolve_configuration("nightly", {"evaluation": {"cases_per_suite": {"A": 10}}})
BASE = draw_run(BASE_MODEL, 1, suite_sha256=SUITE)
CANDIDATE = draw_run(GOOD_MODEL, 1, suite_sha256=SUITE)
AGREEMENT = [case.model_dump() for case in draw_agreement(GOOD_MODEL, 1)]


def make(store: ArtifactStore, asset: str, files: dict[str, str], **options: Any) -> Artifact:
    metadata = options.pop("metadata", {"suite_sha256": SUITE})
    recipe = {"files": files, "metadata": metadata, **options}
    with store.build(asset, PARTITION, recipe_of_artifact=recipe, **options) as build:
        for name, content in files.items():
            (build.directory / name).write_text(content, encoding="utf-8")
        build.metadata.update(metadata)
    return store.require(asset, PARTITION)


def make_baselines(store: ArtifactStore, **runs: SuiteRun) -> Artifact:
    make(store, "v2_chat_dataset", {"train.chat.jsonl": ""})
    return make(store, "baseline_reports", {f"{name}.json": run.model_dump_json() for name, run in runs.items()})


def judge(engine: Engine, store: ArtifactStore, asset: str, configuration: Configuration = SHIP) -> dict[str, str]:
    judged = registry.judge_asset(engine, store, PARTITION, asset, configuration)
    return {gate.result.gate: gate.result.verdict.value for gate in judged}


@pytest.mark.parametrize("configuration", [SHIP, REDUCED], ids=["whole suite", "a part of it"])
def test_the_page_says_what_the_checks_say(engine: Engine, settings: Settings, configuration: Configuration) -> None:
    context = StageContext(PARTITION, configuration, settings, engine)
    store = context.artifacts
    baselines = make_baselines(store, base=BASE)
    with store.build(
        "eval_reports", PARTITION, recipe_of_artifact={"n": 1}, parents={"baseline_reports": baselines.sha256}
    ) as build:
        (build.directory / "suite_run.json").write_text(CANDIDATE.model_dump_json(), encoding="utf-8")
        (build.directory / "harness_agreement.json").write_text(json.dumps(AGREEMENT), encoding="utf-8")
        build.metadata["suite_sha256"] = SUITE
        build.metadata |= write_reports(
            build.directory, context=context, candidate=CANDIDATE, base=BASE, harness_agreement=AGREEMENT
        )
    checks = judge(engine, store, "eval_reports", configuration)
    page = load_results(store.require("eval_reports", PARTITION).path("results.json"))
    assert {gate.gate: gate.verdict for gate in page.gates if gate.asset == "eval_reports"} == checks
    assert set(checks.values()) == ({"pass"} if configuration is SHIP else {"inconclusive"})
    assert page.verdict.verdict == ("PENDING" if configuration is SHIP else "INCONCLUSIVE")


def test_evidence_made_against_other_baselines_is_not_judged(engine: Engine, settings: Settings) -> None:
    store = ArtifactStore(settings.artifacts_dir)
    make_baselines(store, base=BASE)
    files = {"suite_run.json": CANDIDATE.model_dump_json(), "harness_agreement.json": "[]"}
    make(store, "eval_reports", files, parents={"baseline_reports": "e" * 64})
    with pytest.raises(ArtifactError, match="Materialise eval_reports again"):
        judge(engine, store, "eval_reports")


def test_a_part_of_the_suite_is_not_judged_as_the_whole_under_a_configuration_changed_since(
    engine: Engine, settings: Settings
) -> None:
    store = ArtifactStore(settings.artifacts_dir)
    baselines = make_baselines(store, base=BASE)
    with store.build(
        "eval_reports",
        PARTITION,
        recipe_of_artifact={"configuration": REDUCED.evaluation.model_dump(mode="json")},
        parents={"baseline_reports": baselines.sha256},
    ) as build:
        (build.directory / "suite_run.json").write_text(CANDIDATE.model_dump_json(), encoding="utf-8")
        (build.directory / "harness_agreement.json").write_text(json.dumps(AGREEMENT), encoding="utf-8")
        build.metadata["suite_sha256"] = SUITE
    assert set(judge(engine, store, "eval_reports", SHIP).values()) == {"inconclusive"}


def ship(engine: Engine, action: str, sha256: str, previous: str | None = None) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO production_history (gguf_sha256, action, partition, path, name, previous_gguf_sha256) "
                "VALUES (:sha256, :action, :partition, '/models/a.gguf', 'a', :previous)"
            ),
            {"sha256": sha256, "action": action, "partition": PARTITION, "previous": previous},
        )


def with_sha(run: SuiteRun, sha256: str) -> SuiteRun:
    return run.model_copy(update={"model": run.model.model_copy(update={"sha256": sha256})})


@pytest.mark.parametrize(
    ("base", "production", "in_production", "expected"),
    [
        pytest.param(BASE, None, None, "pass", id="nothing in production"),
        pytest.param(BASE, with_sha(CANDIDATE, "a" * 64), "a" * 64, "pass", id="production measured"),
        pytest.param(BASE, None, "a" * 64, "fail", id="production not measured"),
        pytest.param(BASE, with_sha(CANDIDATE, "b" * 64), "a" * 64, "fail", id="another model in production now"),
        pytest.param(None, None, None, "fail", id="no base"),
        pytest.param(draw_run(BASE_MODEL, 1, suite_sha256="6" * 64), None, None, "fail", id="another suite"),
        pytest.param(BASE.model_copy(update={"results": ()}), None, None, "fail", id="no case"),
        pytest.param(
            BASE.model_copy(
                update={"results": tuple(result.model_copy(update={"error": "broke"}) for result in BASE.results)}
            ),
            None,
            None,
            "fail",
            id="every case broke",
        ),
        pytest.param(
            BASE.model_copy(
                update={
                    "results": tuple(
                        result.model_copy(update={"error": "broke"})
                        if result.suite == "C" and number % 9 == 0
                        else result
                        for number, result in enumerate(BASE.results)
                    )
                }
            ),
            None,
            None,
            "fail",
            id="a tenth of one suite broke",
        ),
    ],
)
def test_training_waits_for_baselines_of_this_suite(
    engine: Engine,
    settings: Settings,
    base: SuiteRun | None,
    production: SuiteRun | None,
    in_production: str | None,
    expected: str,
) -> None:
    store = ArtifactStore(settings.artifacts_dir)
    runs = {name: run for name, run in (("base", base), ("production", production)) if run is not None}
    make_baselines(store, **runs)
    if in_production is not None:
        ship(engine, "ship", in_production)
    assert judge(engine, store, "baseline_reports") == {"baselines_measured": expected}


def test_the_production_pointer_follows_its_history(engine: Engine) -> None:
    assert current_production(engine) is None
    ship(engine, "adopt", "a" * 64)
    adopted = current_production(engine)
    assert adopted is not None
    assert (adopted.gguf_sha256, adopted.adopted) == ("a" * 64, True)
    ship(engine, "ship", "b" * 64, previous="a" * 64)
    shipped = current_production(engine)
    assert shipped is not None
    assert (shipped.gguf_sha256, shipped.adopted) == ("b" * 64, False)
    ship(engine, "retract", "b" * 64, previous="a" * 64)
    back = current_production(engine)
    assert back is not None
    assert back.gguf_sha256 == "a" * 64
    ship(engine, "retract", "a" * 64, previous=None)
    assert current_production(engine) is None


def test_a_results_file_gives_its_run_back(tmp_path: Path) -> None:
    write_rendered(judged_results(CANDIDATE, name="n", base=BASE), tmp_path)
    again = run_of_results(load_results(tmp_path / "results.json"))
    assert again.model_dump(exclude={"seconds"}) == CANDIDATE.model_dump(exclude={"seconds"})


def write_script(path: Path, settings: Settings, suite: str) -> None:
    from planted_completions import perfect

    from toolcall_pipeline.evaluation.commands import suite_cases

    with path.open("w", encoding="utf-8") as stream:
        for case in suite_cases(settings, suites=[suite]):
            line = {"suite": suite, "case_id": case["case_id"], "seed": 0, "turns": perfect(case)}
            stream.write(json.dumps(line) + "\n")


def test_evaluate_judges_recorded_answers_and_asks_only_what_applies(settings: Settings, tmp_path: Path) -> None:
    script = tmp_path / "perfect.jsonl"
    write_script(script, settings, "D")
    judged = evaluate_and_judge(
        settings, backend=f"scripted:{script}", suites=["D"], profile="ship", output_dir=tmp_path / "out"
    )
    verdicts = {gate.gate: gate.verdict for gate in judged.parsed.gates}
    assert verdicts.pop("suite_d_valid") == "pass"
    assert set(verdicts.values()) == {"missing"}
    assert (judged.exit_code, judged.parsed.verdict.verdict) == (0, "PENDING")

    silent = tmp_path / "silent.jsonl"
    lines = [{**json.loads(line), "turns": ["Let me see."]} for line in script.read_text("utf-8").splitlines()]
    silent.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    worse = evaluate_and_judge(
        settings, backend=f"scripted:{silent}", suites=["D"], baseline=tmp_path / "out" / "results.json"
    )
    assert worse.exit_code == 1
    assert worse.parsed.verdict.verdict == "HOLD"
    verdicts = {gate.gate: gate.verdict for gate in worse.parsed.gates}
    assert (verdicts["suite_d_valid"], verdicts["not_worse"], verdicts["better"]) == ("fail", "fail", "fail")


def test_a_suite_that_no_gate_counts_alone_is_no_failure_unless_it_broke(settings: Settings, tmp_path: Path) -> None:
    script = tmp_path / "v.jsonl"
    write_script(script, settings, "V")
    judged = evaluate_and_judge(settings, backend=f"scripted:{script}", suites=["V"])
    assert (judged.exit_code, judged.parsed.verdict.verdict) == (0, "PENDING")
    assert judged.note.startswith("No gate was judged")
    lines = script.read_text("utf-8").splitlines(keepends=True)
    script.write_text("".join(lines[: len(lines) * 9 // 10]), encoding="utf-8")
    broken = evaluate_and_judge(settings, backend=f"scripted:{script}", suites=["V"])
    assert (broken.exit_code, broken.note[:22]) == (1, "60 of 600 cases broke:")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, UsageError),
        ({"backend": "scripted:nowhere.jsonl", "suites": ["E"]}, UsageError),  # the sample suite has no such cases
        ({"model": "m.gguf", "profile": "lenient"}, UsageError),
        ({"model": "nowhere.gguf"}, MissingInputError),
        ({"backend": "scripted:nowhere.jsonl"}, MissingInputError),
    ],
)
def test_evaluate_refuses_what_it_cannot_judge(settings: Settings, options: dict[str, str], error: type) -> None:
    with pytest.raises(error):
        evaluate_and_judge(settings, **options)  # type: ignore[arg-type]


def test_a_baseline_that_is_no_results_file_is_refused_before_anything_runs(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidResultsError):
        evaluate_and_judge(settings, model="m.gguf", baseline=path)

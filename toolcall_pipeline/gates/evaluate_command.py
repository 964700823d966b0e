"""The command `evaluate`: any model on a frozen suite, judged by the gates that apply outside the chain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.evaluation.backends import backend_kind
from toolcall_pipeline.evaluation.cases import CaseResult, SuiteRun
from toolcall_pipeline.evaluation.commands import evaluate, suite_in_use
from toolcall_pipeline.evaluation.reports.model import Results, load_results
from toolcall_pipeline.evaluation.reports.render import render_markdown
from toolcall_pipeline.evaluation.stage import cases_of_run
from toolcall_pipeline.gates.evaluated import MAX_BROKEN_RATIO
from toolcall_pipeline.gates.evidence import broken_count
from toolcall_pipeline.gates.profiles import PROFILES
from toolcall_pipeline.gates.reporting import judged_results, write_rendered
from toolcall_pipeline.presets import resolve_configuration
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import ProgressCallback

ALL_SUITES = ("A", "B", "C", "D", "E", "V")
SUITES_NEEDED: dict[str, tuple[str, ...]] = {
    "suite_a_shape": ("A",),
    "suite_b_next_step": ("B",),
    "suite_c_solved": ("C",),
    "suite_d_valid": ("D",),
    "suite_e_recall": ("E",),
    "empty_arguments": ALL_SUITES,
    "call_shape": ALL_SUITES,
    "argument_repetition": ALL_SUITES,
    "loops": ("C",),
    "concludes_too_soon": ("B", "C"),
    "calls_per_task": ("C", "D"),
    "fitting_action": ("B", "C", "D"),
    "grounded_arguments": ALL_SUITES,
    "uses_result": ("B",),
}
"""Which suites a gate counts; the others compare two runs."""


@dataclass(frozen=True)
class JudgedEvaluation:
    """A model judged outside the chain.

    Attributes:
        parsed: The results.
        markdown: The report as text.
        exit_code: 0 where no gate that was asked held, else 1; 1 too where the cases broke and no gate counts them.
        note: What the exit code leaves open; empty where nothing.
    """

    parsed: Results
    markdown: str
    exit_code: int
    note: str = ""

    @property
    def results(self) -> dict[str, Any]:
        """Return `results.json` as data."""
        return self.parsed.model_dump(mode="json")


def evaluate_and_judge(
    settings: Settings,
    *,
    model: str = "",
    suites: Sequence[str] | None = None,
    suite_version: str | None = None,
    backend: str = "auto",
    profile: str = "ship",
    baseline: Path | None = None,
    sequences: int = 1,
    constrained: bool = False,
    bfcl: Path | None = None,
    output_dir: Path | None = None,
    progress: ProgressCallback | None = None,
) -> JudgedEvaluation:
    """Run suites on one model and judge it; nothing judged here can ship.

    A gate that was not asked stays `missing`: one that counts a suite that was left out, the comparisons without a
    baseline, and `harness_agreement`, which the chain asks of the file that ships.

    Args:
        settings: Where suites and results are kept.
        model: GGUF file, Hugging Face folder or URL; may be empty with `scripted:FILE`.
        suites: Suites to run; all where None.
        suite_version: Version or hash of the frozen suite; the one in use where None.
        backend: auto, llama-cpp, transformers, openai, or `scripted:FILE`.
        profile: `ship` or `smoke`.
        baseline: `results.json` of the model to compare with, of the same suite version.
        sequences: Cases under way at the same time.
        constrained: Run a second time under a grammar of the tools' schemas; shown in a column of its own, never judged.
        bfcl: Folder of the public BFCL files, which are run beside the suites; no gate counts them.
        output_dir: Where `results.json`, `report.md` and `report.html` go; nowhere where None.
        progress: Called after each case.

    Raises:
        UsageError: No model, no such profile or suite, or a baseline of another suite version.
        MissingInputError: No such model, suite version or baseline.
        InvalidResultsError: The baseline is no results file.
    """
    if profile not in PROFILES:
        raise UsageError(f"There is no gate profile {profile!r}. Choose one of {', '.join(PROFILES)}.")
    if not model and not backend.startswith("scripted:"):
        raise UsageError("Say what to evaluate: --model PATH or URL, or --backend scripted:FILE.")
    if constrained and backend_kind(model, backend) == "openai":
        raise UsageError("--constrained takes no URL: an endpoint takes no grammar of ours. Give the GGUF file.")
    reference = None if baseline is None else _only(run_of_results(load_results(baseline)), suites or ALL_SUITES)
    configuration = resolve_configuration("nightly", {"evaluation": {"profile": profile, "sequences": sequences}})
    run, *second = (
        evaluate(
            settings,
            model=model or backend,
            configuration=configuration,
            suites=suites,
            suite_version=suite_version,
            backend=backend,
            constrained=under_grammar,
            bfcl=bfcl,
            progress=progress,
        )
        for under_grammar in ((False, True) if constrained else (False,))
    )
    chosen: Literal["ship", "smoke"] = "smoke" if profile == "smoke" else "ship"
    results = judged_results(
        run,
        name=f"evaluate-{run.model.name}",
        profile=chosen,
        base=reference,
        constrained=second[0] if second else None,
        cases=cases_of_run(suite_in_use(settings, suite_version, bfcl), run),
        not_asked=_not_asked(suites or ALL_SUITES, has_baseline=reference is not None),
        provenance={"baseline": None if reference is None else reference.model.model_dump(mode="json")},
    )
    if output_dir is not None:
        write_rendered(results, output_dir)
    held = any(gate.verdict not in ("pass", "missing") for gate in results.gates)
    note = "" if any(gate.verdict != "missing" for gate in results.gates) else _nothing_judged(run)
    broke = bool(note) and broken_count(run.results) > MAX_BROKEN_RATIO * len(run.results)
    return JudgedEvaluation(results, render_markdown(results), 1 if held or broke else 0, note)


def _nothing_judged(run: SuiteRun) -> str:
    """Return what to say of a run that no gate could count."""
    broken = broken_count(run.results)
    if broken > MAX_BROKEN_RATIO * len(run.results):
        return f"{broken} of {len(run.results)} cases broke: the report has their errors. Mend that and run it again."
    return (
        "No gate was judged: none counts these suites alone. The report has "
        "the rates; `--baseline RESULTS` compares them, and all suites together (no --suite) are judged."
    )


def _not_asked(suites: Collection[str], *, has_baseline: bool) -> dict[str, str]:
    """Return why each gate that was not asked was not, by gate name."""
    reasons = {"harness_agreement": "Asked in the chain, of the file that ships."}
    if not has_baseline:
        reasons |= dict.fromkeys(("not_worse", "better"), "No baseline was given to compare with.")
    for gate, needed in SUITES_NEEDED.items():
        left_out = [suite for suite in needed if suite not in suites]
        if left_out:
            reasons[gate] = (
                f"It counts {'suite' if len(left_out) == 1 else 'suites'} {', '.join(left_out)}, left out here."
            )
    return reasons


def _only(run: SuiteRun, suites: Collection[str]) -> SuiteRun:
    """Return a run without the suites that were not asked for: on these nobody wants the two compared."""
    kept = {*suites, "BFCL"}
    return run.model_copy(update={"results": tuple(result for result in run.results if result.suite in kept)})


def run_of_results(results: Results) -> SuiteRun:
    """Return the suite run a results file was made from."""
    fields = set(CaseResult.model_fields)
    return SuiteRun(
        model=results.model,
        suite_version=results.suite_version,
        suite_sha256=results.suite_sha256,
        decoding="constrained" if results.generation.get("decoding") == "constrained" else "free",
        generation={key: value for key, value in results.generation.items() if key != "decoding"},
        results=tuple(CaseResult(**{name: getattr(case, name) for name in fields}) for case in results.cases),
        seconds=float(results.statistics.get("seconds") or 0.0),
    )

"""One model on one frozen suite: opens the backend, runs the cases, counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolcall_pipeline.evaluation.attempts import UNMEASURED, unmeasured_count
from toolcall_pipeline.evaluation.backends import Backend, open_backend
from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.evaluation.labels import load_labels
from toolcall_pipeline.evaluation.outcomes import SCORING_VERSION
from toolcall_pipeline.evaluation.play import AGENTIC_TEMPERATURE, PlaySettings
from toolcall_pipeline.evaluation.results_log import ResultsLog
from toolcall_pipeline.evaluation.runner import agreement, run_cases, seeds_of, select_cases
from toolcall_pipeline.evaluation.sandbox import sandbox_problem
from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite
from toolcall_pipeline.presets import EvaluationConfiguration
from toolcall_pipeline.stage_context import ProgressCallback, StageContext

logger = logging.getLogger(__name__)

_AGREEMENT_CASES = {"A": 25, "B": 25, "D": 25, "V": 25}


def evaluate_model(
    context: StageContext,
    model: str | Path,
    suite: FrozenSuite,
    *,
    suites: Sequence[str] | None = None,
    backend: str = "auto",
    constrained: bool = False,
) -> SuiteRun:
    """Run a model on the suite, as the context's configuration says.

    What was run before of the same model, cases and generation is taken from the results log, so that a killed
    evaluation goes on and a baseline is measured once.

    Args:
        context: Configuration, cache folder, progress.
        model: A GGUF file, a Hugging Face folder, a URL, or a scripted file.
        suite: The frozen suite.
        suites: Only these; the configuration's where None.
        backend: As `open_backend` takes it.
        constrained: Decode under a grammar of the tools' schemas.

    Raises:
        EvaluationError: The model does not load, or the backend failed as a whole.
    """
    configuration = context.configuration.evaluation
    opened = open_backend(
        model, backend=backend, context_tokens=configuration.context_tokens, sequences=configuration.sequences
    )
    try:
        return run_suite(
            opened,
            suite,
            configuration,
            suites=suites,
            constrained=constrained,
            labels=load_labels(context.settings),
            log_dir=context.settings.cache_dir / "evaluation",
            progress=context.progress,
        )
    finally:
        opened.close()


def evaluate_gated(
    context: StageContext,
    model: str | Path,
    suite: FrozenSuite,
    *,
    suites: Sequence[str] | None = None,
    constrained: bool = False,
) -> SuiteRun:
    """Run a model whose run is judged in the chain: one sequence at a time unless the model agrees with itself together.

    Arguments and errors as for `evaluate_model`; `generation["sequences"]` says how many it were.
    """
    if context.configuration.evaluation.sequences > 1 and not agrees_together(context, model, suite):
        context = _with_evaluation(context, sequences=1)
    return evaluate_model(context, model, suite, suites=suites, constrained=constrained)


def agrees_together(context: StageContext, model: str | Path, suite: FrozenSuite) -> bool:
    """Return whether outcomes of a model's cases run together are those of one at a time, in 98 % of `_AGREEMENT_CASES`.

    Both runs stay in the results log, so the question is answered once, and its cases are not run again.
    """
    sequences = context.configuration.evaluation.sequences
    few = _with_evaluation(context, suites=tuple(_AGREEMENT_CASES), cases_per_suite=_AGREEMENT_CASES)
    alone, together = (
        evaluate_model(_with_evaluation(few, sequences=count), model, suite).results for count in (1, sequences)
    )
    found = agreement(alone, together)
    logger.info("%s, %d sequences together against one: %s", model, sequences, found)
    return bool(found["may_run_together"])


def _with_evaluation(context: StageContext, **fields: Any) -> StageContext:
    evaluation = context.configuration.evaluation.model_copy(update=fields)
    return replace(context, configuration=context.configuration.model_copy(update={"evaluation": evaluation}))


def run_suite(
    backend: Backend,
    suite: FrozenSuite,
    configuration: EvaluationConfiguration,
    *,
    suites: Sequence[str] | None = None,
    constrained: bool = False,
    labels: dict[tuple[str, str], bool] | None = None,
    log_dir: Path | None = None,
    progress: ProgressCallback | None = None,
) -> SuiteRun:
    """Run an opened backend on a frozen suite."""
    cases = select_cases(suite.cases, suites or configuration.suites, configuration.cases_per_suite)
    problem = sandbox_problem() if any(case.suite == "C" for case in cases) else None
    if problem:
        cases = [case for case in cases if case.suite != "C"]
    generation = generation_of(configuration, constrained=constrained)
    identity = backend.identity
    log = None
    if log_dir is not None:
        log = ResultsLog(
            log_dir,
            {
                "model": identity.sha256,
                "backend": identity.backend,
                "generation": generation,
                "scoring": SCORING_VERSION,
            },
        )
    settings = PlaySettings(configuration.max_new_tokens, grammar=constrained, labels=labels or {})
    started = time.monotonic()
    results = run_cases(backend, cases, settings, log=log, progress=progress)
    # Time spent now says nothing of results that were there before.
    seconds = 0.0 if log is not None and log.holds_earlier_results else round(time.monotonic() - started, 3)
    return SuiteRun(
        model=identity,
        suite_version=suite.version,
        suite_sha256=suite.sha256,
        decoding="constrained" if constrained else "free",
        generation={**generation, "suite_c_not_run": problem},
        results=tuple(results),
        seconds=seconds,
    )


def generation_of(configuration: EvaluationConfiguration, *, constrained: bool = False) -> dict[str, Any]:
    """Return everything that decides a completion beside model and case; part of every cache key."""
    return {
        "max_new_tokens": configuration.max_new_tokens,
        "context_tokens": configuration.context_tokens,
        "temperature": 0.0,
        "temperature_c": AGENTIC_TEMPERATURE,
        "seeds": {suite: list(seeds_of(suite)) for suite in ("A", "B", "C", "D", "E", "V")},
        "sequences": configuration.sequences,
        "decoding": "constrained" if constrained else "free",
    }


def run_metadata(run: SuiteRun) -> dict[str, Any]:
    """Return a run's counts and rates, with stable names and units, for the UI."""
    metadata: dict[str, Any] = {
        "cases_count": len(run.results),
        "evaluation_seconds": round(run.total_seconds, 3),
        "completion_tokens_count": sum(int(result.measures.get("completion_tokens") or 0) for result in run.results),
        "errors_count": sum(result.error is not None for result in run.results),
        UNMEASURED: unmeasured_count(run),
        "empty_arguments_count": sum(int(result.measures.get("empty_arguments") or 0) for result in run.results),
    }
    for suite in sorted({result.suite for result in run.results}):
        own = [result.passed for result in run.results if result.suite == suite]
        metadata[f"suite_{suite.lower()}_pass_ratio"] = round(sum(own) / len(own), 4)
        metadata[f"suite_{suite.lower()}_cases_count"] = len(own)
    return metadata

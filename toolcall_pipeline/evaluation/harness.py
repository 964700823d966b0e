"""The same cases in process and through a llama.cpp server: do both harnesses say the same of the model?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from toolcall_pipeline.evaluation.backends.openai_endpoint import OpenAiBackend
from toolcall_pipeline.evaluation.cases import Case, CaseResult, SuiteRun, same_outcome
from toolcall_pipeline.evaluation.play import PlaySettings
from toolcall_pipeline.evaluation.runner import run_cases
from toolcall_pipeline.stage_context import StageContext

# Answered in one completion at temperature 0: what differs then differs by harness.
_SUITES = ("D", "A", "B", "V")


def measure_harness_agreement(
    context: StageContext,
    gguf_path: Path,
    cases: Sequence[Case],
    in_process: SuiteRun,
    llama_server: Callable[..., AbstractContextManager[Any]] | None,
) -> list[dict[str, Any]]:
    """Return, per case, the outcome in process and through a server, and whether they agree.

    Args:
        context: How many cases (`harness_agreement_cases`), and progress.
        gguf_path: The file.
        cases: Cases of the in-process run.
        in_process: That run.
        llama_server: Starts a server on a file and has its `.url`; None returns an empty list.
    """
    configuration = context.configuration.evaluation
    chosen = _choose(cases, configuration.harness_agreement_cases)
    if llama_server is None or not chosen:
        return []
    alone = {(result.suite, result.case_id): result for result in in_process.results if result.seed == 0}
    with llama_server(gguf_path, context_tokens=configuration.context_tokens) as server:
        backend = OpenAiBackend(server.url, as_served=True)
        try:
            results = run_cases(backend, chosen, PlaySettings(configuration.max_new_tokens), progress=context.progress)
        finally:
            backend.close()
    return [_compared(alone[result.suite, result.case_id], result) for result in results]


def _compared(in_process: CaseResult, served: CaseResult) -> dict[str, Any]:
    return {
        "suite": served.suite,
        "case_id": served.case_id,
        "cluster_id": served.cluster_id,
        "agrees": same_outcome(in_process, served),
        "in_process": in_process.outcome,
        "server": served.outcome,
    }


def _choose(cases: Sequence[Case], count: int) -> list[Case]:
    """Return up to `count` cases, suites taking turns."""
    queues = [[case for case in cases if case.suite == suite] for suite in _SUITES]
    chosen: list[Case] = []
    for depth in range(max((len(queue) for queue in queues), default=0)):
        chosen.extend(queue[depth] for queue in queues if depth < len(queue))
    return chosen[:count]

"""Runs cases against a backend: resumable, with progress, as many at a time as the backend has room for."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from toolcall_pipeline.evaluation.backends.protocol import Backend, Request
from toolcall_pipeline.evaluation.cases import Case, CaseResult, same_outcome
from toolcall_pipeline.evaluation.play import Play, PlaySettings, play_case
from toolcall_pipeline.evaluation.results_log import ResultsLog, case_sha256, rescore

SEEDS: dict[str, tuple[int, ...]] = {"C": (0, 1)}
"""Seeds of a suite's cases; every other suite is greedy and runs once, at seed 0."""

Progress = Callable[[int, int | None, str, str], None]


def seeds_of(suite: str) -> tuple[int, ...]:
    """Return the seeds a suite's cases are run at."""
    return SEEDS.get(suite, (0,))


def select_cases(cases: Sequence[Case], suites: Sequence[str], cases_per_suite: dict[str, int] | None) -> list[Case]:
    """Return the cases to run: whole suites, or fewer, spread evenly over strata and within them.

    Args:
        cases: Of a frozen suite, in its order.
        suites: The ones asked for.
        cases_per_suite: How many results a suite may give (a task of C gives one per seed); None takes all.
    """
    chosen: list[Case] = []
    for suite in suites:
        own = [case for case in cases if case.suite == suite]
        if cases_per_suite is not None and suite in cases_per_suite:
            wanted = cases_per_suite[suite]
            own = _spread(own, -(-wanted // len(seeds_of(suite))))
        chosen.extend(own)
    return chosen


def run_cases(
    backend: Backend,
    cases: Sequence[Case],
    settings: PlaySettings,
    *,
    log: ResultsLog | None = None,
    progress: Progress | None = None,
) -> list[CaseResult]:
    """Run every case at every seed of its suite.

    Args:
        backend: Who answers.
        cases: In suite order.
        settings: Token limit, grammar, labels.
        log: Where results are kept; what it holds already is not run again.
        progress: Called after each case with (done, total, "cases", message).

    Returns:
        One result per case and seed, in the order of the cases.

    Raises:
        EvaluationError: The backend or the sandbox failed as a whole.
    """
    plan = [(case, seed) for case in cases for seed in seeds_of(case.suite)]
    stored = log.load() if log is not None else {}
    results: dict[int, CaseResult] = {}
    waiting: list[tuple[int, Case, int]] = []
    for position, (case, seed) in enumerate(plan):
        known = stored.get((case_sha256(case), seed))
        if known is not None and not known.is_broken:
            results[position] = rescore(case, known, settings)
        else:
            waiting.append((position, case, seed))
    started, reused = time.monotonic(), len(results)
    for position, case, result in _run(backend, _neighbours(waiting), settings):
        results[position] = result
        if log is not None:
            log.append(case, result)
        if progress is not None:
            progress(len(results), len(plan), "cases", _message(result, len(results) - reused, started))
    return [results[position] for position in range(len(plan))]


def _neighbours(waiting: list[tuple[int, Case, int]]) -> list[tuple[int, Case, int]]:
    """Return what waits, suite by suite, cases whose prompts begin alike next to each other.

    A backend that keeps the last prompt evaluates what they share once: a third of D, V and C.
    """
    suites = list(dict.fromkeys(case.suite for _, case, _ in waiting))
    return sorted(
        waiting, key=lambda item: (suites.index(item[1].suite), json.dumps([item[1].tools, item[1].messages]))
    )


def _run(
    backend: Backend, waiting: list[tuple[int, Case, int]], settings: PlaySettings
) -> Iterator[tuple[int, Case, CaseResult]]:
    """Yield results as plays end; a play begins when the backend has room for it, and its next turn goes first."""
    fresh = iter(waiting)
    under_way: dict[int, tuple[Case, Play]] = {}
    next_turns: deque[tuple[int, Request]] = deque()

    def take() -> tuple[int, Request] | None:
        if next_turns:
            return next_turns.popleft()
        following = next(fresh, None)
        if following is None:
            return None
        position, case, seed = following
        play = play_case(case, seed, settings)
        under_way[position] = case, play
        return position, next(play)

    try:
        for position, generation in backend.generate(take):
            case, play = under_way[position]
            try:
                next_turns.append((position, play.send(generation)))
            except StopIteration as stop:
                del under_way[position]
                yield position, case, stop.value
    finally:
        for _, play in under_way.values():
            play.close()


def agreement(one_at_a_time: Sequence[CaseResult], together: Sequence[CaseResult]) -> dict[str, Any]:
    """Return how often two runs of the same cases have the same outcome, and the same text.

    Cases may run together in a gated run only where `outcome_ratio` is at least 0.98 for the model.
    """
    other = {(result.suite, result.case_id, result.seed): result for result in together}
    pairs = [
        (result, other[result.suite, result.case_id, result.seed])
        for result in one_at_a_time
        if (result.suite, result.case_id, result.seed) in other
    ]
    count = len(pairs)
    outcomes = sum(same_outcome(left, right) for left, right in pairs)
    texts = sum([t.raw for t in left.turns] == [t.raw for t in right.turns] for left, right in pairs)
    return {
        "cases_count": count,
        "outcome_ratio": outcomes / count if count else None,
        "text_ratio": texts / count if count else None,
        "may_run_together": bool(count) and outcomes / count >= 0.98,
    }


def _spread(cases: list[Case], count: int) -> list[Case]:
    """Return `count` cases, taking turns between strata, evenly within each, in suite order.

    Where a suite has enough cases made from sessions, those that were written to fill it up are left out.
    """
    if count >= len(cases):
        return cases
    from_sessions = [case for case in cases if case.source.get("family_id")]
    if len(from_sessions) >= count:
        cases = from_sessions
    strata: dict[str, list[Case]] = {}
    for case in cases:
        strata.setdefault(case.stratum, []).append(case)
    quota = dict.fromkeys(strata, 0)
    while sum(quota.values()) < count:
        for stratum, own in strata.items():
            if quota[stratum] < len(own) and sum(quota.values()) < count:
                quota[stratum] += 1
    picked = {
        own[index * len(own) // quota[stratum]].case_id
        for stratum, own in strata.items()
        for index in range(quota[stratum])
    }
    return [case for case in cases if case.case_id in picked]


def _message(result: CaseResult, done_now: int, started: float) -> str:
    rate = done_now / max(time.monotonic() - started, 1e-6)
    return f"suite {result.suite}: {result.outcome} ({rate * 60:.1f} cases/min)"

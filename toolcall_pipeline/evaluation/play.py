"""Plays one case: asks for completions, runs tools where the suite has them, and returns the result.

A play is a generator of `Request`s that is sent `Generation`s, so that the runner may have many under way at once
without threads (`runner.py`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolcall_pipeline.evaluation.agentic_check import solved
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request
from toolcall_pipeline.evaluation.cases import Case, CaseResult, ParsedCall, Turn
from toolcall_pipeline.evaluation.completions import read_completion, visible_text
from toolcall_pipeline.evaluation.loops import find_loop
from toolcall_pipeline.evaluation.outcomes import Scored, score
from toolcall_pipeline.evaluation.outcomes.common import attempted_call, base_measures, never_ends
from toolcall_pipeline.evaluation.sandbox import Sandbox, SandboxDiedError, open_sandbox

AGENTIC_TEMPERATURE = 0.2
# More than any solution needs twice over: who has not concluded by then has given up.
_EXTRA_CALLS = 6

Play = Generator[Request, Generation, CaseResult]


@dataclass(frozen=True)
class PlaySettings:
    """How completions are asked for."""

    max_new_tokens: int
    grammar: bool = False
    labels: Mapping[tuple[str, str], bool] = field(default_factory=dict)


def play_case(case: Case, seed: int, settings: PlaySettings) -> Play:
    """Play a case of any suite at one seed."""
    started = time.monotonic()
    play = _play_agentic(case, seed, settings) if case.suite == "C" else _play_single(case, seed, settings)
    result = yield from play
    return result.model_copy(update={"seconds": round(time.monotonic() - started, 3)})


def read_turn(generation: Generation, case: Case) -> Turn:
    """Return a generation, read against the case's tools."""
    reading = read_completion(generation.raw, case.tools, hit_token_limit=generation.hit_token_limit)
    return Turn(
        raw=generation.raw,
        text=reading.text,
        calls=reading.calls,
        defects=reading.defects,
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=generation.completion_tokens,
        hit_token_limit=generation.hit_token_limit,
    )


def result_of(case: Case, seed: int, scored: Scored, turns: tuple[Turn, ...], error: str | None = None) -> CaseResult:
    """Return a case's result."""
    return CaseResult(
        suite=case.suite,
        case_id=case.case_id,
        cluster_id=case.cluster_id,
        stratum=case.stratum,
        seed=seed,
        outcome=scored.outcome,
        passed=scored.passed,
        measures=scored.measures,
        turns=turns,
        error=error,
    )


def _play_single(case: Case, seed: int, settings: PlaySettings) -> Play:
    generation = yield _request(case, list(case.messages), seed, 0.0, settings, 0)
    if generation.error is not None:
        return result_of(case, seed, Scored("error", False), (), generation.error)
    turn = read_turn(generation, case)
    return result_of(case, seed, score(case, (turn,), settings.labels), (turn,))


def _play_agentic(case: Case, seed: int, settings: PlaySettings) -> Play:
    with open_sandbox(case.expected["files"]) as sandbox:
        return (yield from _converse(case, seed, settings, sandbox))


def _converse(case: Case, seed: int, settings: PlaySettings, sandbox: Sandbox) -> Play:
    budget = 2 * int(case.expected["calls_needed"]) + _EXTRA_CALLS
    messages = list(case.messages)
    turns: list[Turn] = []
    calls: list[ParsedCall] = []
    results: list[str] = []
    while True:
        generation = yield _request(case, messages, seed, AGENTIC_TEMPERATURE, settings, len(turns))
        if generation.error is not None:
            return _finish(case, seed, turns, calls, "gave_up", sandbox, error=generation.error)
        turn = read_turn(generation, case)
        if not turn.calls:
            turns.append(turn)
            spoke = bool(visible_text(turn.text)) and not attempted_call(turn) and not never_ends(turn)
            return _finish(case, seed, turns, calls, "concluded" if spoke else "gave_up", sandbox)
        try:
            answers = tuple(sandbox.call(call.name, call.arguments).output for call in turn.calls)
        except SandboxDiedError as died:
            turns.append(turn)
            return _finish(case, seed, turns, [*calls, *turn.calls], "sandbox_failed", None, error=str(died))
        turns.append(turn.model_copy(update={"tool_results": answers}))
        calls.extend(turn.calls)
        results.extend(answers)
        if find_loop(calls, results):
            return _finish(case, seed, turns, calls, "looped", sandbox)
        if len(calls) >= budget:
            return _finish(case, seed, turns, calls, "gave_up", sandbox)
        messages.extend(_messages_of(turn, answers))


def _finish(
    case: Case,
    seed: int,
    turns: list[Turn],
    calls: list[ParsedCall],
    ending: str,
    sandbox: Sandbox | None,
    error: str | None = None,
) -> CaseResult:
    """Return the result of a conversation that ended; only a concluded one can be solved."""
    try:
        files = sandbox.snapshot() if sandbox is not None else {}
    except SandboxDiedError as died:
        files, ending, error = {}, "sandbox_failed", error or str(died)
    answer = visible_text(turns[-1].text) if turns else ""
    seen = [result for turn in turns for result in turn.tool_results]
    outcome = "solved" if ending == "concluded" and solved(case, files, answer, seen) else ending
    if outcome == "concluded" and not calls:
        # Words alone, and wrong: it did not stop too soon, it never began.
        outcome = ending = "gave_up"
    needed = int(case.expected["calls_needed"])
    concluded = ending == "concluded"
    known = sorted({*case.expected["files"], *files})
    unknown = any(defect.kind == "unknown_tool" for turn in turns for defect in turn.defects)
    useful = {call["name"] for step in case.expected["solution"] for call in step} | {"Read", "Grep", "Glob", "Bash"}
    misused = bool(calls) and all(call.name not in useful for call in calls)
    measures = {
        **base_measures(case, turns, known),
        "parsed": bool(calls),
        "looped": outcome == "looped",
        "concluded": concluded,
        "concluded_too_soon": concluded and outcome != "solved" and len(calls) < needed,
        "gave_up": outcome == "gave_up",
        "calls_used": len(calls),
        "calls_needed": needed,
        "wrong_action": unknown or misused,
    }
    return result_of(case, seed, Scored(outcome, outcome == "solved", measures), tuple(turns), error)


def _messages_of(turn: Turn, answers: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a turn and its tools' answers as a chat template takes them."""
    assistant = {
        "role": "assistant",
        "content": visible_text(turn.text),
        "tool_calls": [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in turn.calls
        ],
    }
    return [assistant, *({"role": "tool", "content": answer} for answer in answers)]


def _request(
    case: Case, messages: list[dict[str, Any]], seed: int, temperature: float, settings: PlaySettings, turn_index: int
) -> Request:
    return Request(
        messages=tuple(messages),
        tools=case.tools,
        seed=seed,
        temperature=temperature,
        max_new_tokens=settings.max_new_tokens,
        grammar=settings.grammar and bool(case.tools),
        suite=case.suite,
        case_id=case.case_id,
        turn_index=turn_index,
    )

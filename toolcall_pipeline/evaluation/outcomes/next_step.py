"""Suite B: after a tool response, the right next thing: call again where the session did, conclude where it did."""

from __future__ import annotations

from collections.abc import Mapping

from toolcall_pipeline.evaluation.cases import Case, ParsedCall, Turn
from toolcall_pipeline.evaluation.completions import visible_text
from toolcall_pipeline.evaluation.facts import uses_result
from toolcall_pipeline.evaluation.grounding import count_grounded, names_in_call
from toolcall_pipeline.evaluation.loops import call_key
from toolcall_pipeline.evaluation.outcomes.common import (
    Scored,
    attempted_call,
    calls_since_prompt,
    context_text,
    expected_calls,
)

EXPLORING_TOOLS = frozenset({"Read", "Grep", "Glob", "LS", "Bash", "shell", "exec_command", "local_shell"})
CHANGING_TOOLS = frozenset({"Edit", "MultiEdit", "Write", "NotebookEdit", "apply_patch"})


def score(case: Case, turn: Turn, labels: Mapping[tuple[str, str], bool]) -> Scored:
    """Return the outcome of either half; `stratum` says which (`call` or `conclude`)."""
    del labels
    return _score_call(case, turn) if case.stratum == "call" else _score_conclusion(case, turn)


def _score_call(case: Case, turn: Turn) -> Scored:
    """Return fitting_call, identical_repeat, concludes_too_soon or off_topic."""
    if not turn.calls:
        concludes = bool(visible_text(turn.text)) and not attempted_call(turn)
        outcome = "concludes_too_soon" if concludes else "off_topic"
        return _scored(outcome, wrong_action=not concludes, concluded_too_soon=concludes)
    if _is_repeat(case, turn.calls[0]):
        return _scored("identical_repeat", identical_repeat=True, concluded_too_soon=False, wrong_action=False)
    fits = _is_fitting(case, turn)
    return _scored("fitting_call" if fits else "off_topic", concluded_too_soon=False, wrong_action=not fits)


def _score_conclusion(case: Case, turn: Turn) -> Scored:
    """Return conclusion_uses_result, conclusion_ignores_result, never_concludes, identical_repeat or off_topic."""
    if turn.calls:
        repeat = _is_repeat(case, turn.calls[0])
        wrong = not repeat and not _is_fitting(case, turn)
        outcome = "identical_repeat" if repeat else "never_concludes"
        return _scored(outcome, uses_result=False, identical_repeat=repeat, wrong_action=wrong)
    text = visible_text(turn.text)
    if not text or attempted_call(turn):
        return _scored("off_topic", uses_result=False, wrong_action=True)
    results = [str(message.get("content") or "") for message in case.messages if message["role"] == "tool"]
    uses = uses_result(text, case.expected.get("facts") or (), results)
    outcome = "conclusion_uses_result" if uses else "conclusion_ignores_result"
    return _scored(outcome, uses_result=uses, wrong_action=False)


def _is_repeat(case: Case, call: ParsedCall) -> bool:
    """Return whether the call was made before, and the session did not repeat it.

    Before: since the person's last words, and since a file tool last changed something. In the shared sessions 0.4 % of
    all calls are such repeats.
    """
    key = call_key(call)
    if key in {call_key(gold) for gold in expected_calls(case)}:
        return False
    for before in reversed(calls_since_prompt(case)):
        if call_key(before) == key:
            return True
        if before.name in CHANGING_TOOLS:
            return False
    return False


def _is_fitting(case: Case, turn: Turn) -> bool:
    """Return whether the first call is a sensible next step.

    The session's own tool always is. Another tool is where it looks at, or (where the session changed something)
    changes, something that the conversation names: the session's next step is one of several good ones.
    """
    call = turn.calls[0]
    if any(
        defect.kind in ("unknown_tool", "missing_argument", "schema_violation", "empty_arguments")
        and defect.call_index in (0, None)
        for defect in turn.defects
    ):
        return False
    gold_names = {gold.name for gold in expected_calls(case)}
    if call.name in gold_names:
        return True
    if call.name in EXPLORING_TOOLS or (call.name in CHANGING_TOOLS and gold_names & (CHANGING_TOOLS | {"Bash"})):
        found, total = count_grounded(names_in_call(call), context_text(case))
        return total > 0 and found == total
    return False


def _scored(outcome: str, **measures: bool) -> Scored:
    passed = outcome in ("fitting_call", "conclusion_uses_result", "conclusion_ignores_result")
    return Scored(outcome, passed, {"identical_repeat": False, **measures})


__all__ = ["CHANGING_TOOLS", "EXPLORING_TOOLS", "score"]

"""Suite D (and BFCL): one ask, the right number of well-formed calls of a fitting tool, or none where none is needed."""

from __future__ import annotations

from collections.abc import Mapping

from toolcall_pipeline.evaluation.cases import Case, Turn
from toolcall_pipeline.evaluation.completions import visible_text
from toolcall_pipeline.evaluation.outcomes.common import (
    Scored,
    attempted_call,
    expected_calls,
    matching_value_ratio,
)

# The worst first: it names the outcome.
_BLOCKING = (
    "invalid_json",
    "unclosed_call",
    "stray_tag",
    "untagged_call",
    "several_in_one_tag",
    "unknown_tool",
    "empty_arguments",
    "missing_argument",
    "schema_violation",
    "text_after_call",
    "argument_repetition",
    "token_limit",
)


def score(case: Case, turn: Turn, labels: Mapping[tuple[str, str], bool]) -> Scored:
    """Return `pass`, the worst defect's kind, `wrong_tool`, `wrong_call_count`, `call_not_asked`, `no_call` or `no_answer`."""
    del labels
    gold = expected_calls(case)
    outcome = _outcome(case, turn, len(gold))
    ratio = None
    if gold and turn.calls:
        ratio = max(matching_value_ratio(turn.calls[0], one) for one in gold)
    return Scored(
        outcome,
        outcome == "pass",
        {
            "parsed": _is_parsed(turn, bool(gold)),
            "wrong_action": outcome in ("wrong_tool", "unknown_tool", "call_not_asked"),
            "calls_asked": len(gold),
            "calls_used": len(turn.calls),
            "matching_value_ratio": ratio,
        },
    )


def _outcome(case: Case, turn: Turn, asked: int) -> str:
    if not asked:
        if attempted_call(turn):
            return "call_not_asked"
        return "no_answer" if _is_echo(case, visible_text(turn.text)) else "pass"
    kinds = {defect.kind for defect in turn.defects}
    worst = next((kind for kind in _BLOCKING if kind in kinds), None)
    if worst:
        return worst
    if not turn.calls:
        return "no_call"
    fitting = set(case.expected.get("tools") or ()) | {call.name for call in expected_calls(case)}
    if any(call.name not in fitting for call in turn.calls):
        return "wrong_tool"
    return "pass" if len(turn.calls) == asked else "wrong_call_count"


def _is_echo(case: Case, text: str) -> bool:
    """Return whether a text says nothing that the ask did not say: nothing at all, or the ask or a part of it."""
    said = " ".join(text.lower().split())
    asked = " ".join(str(case.messages[-1].get("content") or "").lower().split())
    return not said or (len(said.split()) > 3 and said in asked)


def _is_parsed(turn: Turn, is_call_asked: bool) -> bool:
    """Return whether a call could be read where one is asked, or none was tried where none is."""
    return bool(turn.calls) if is_call_asked else not attempted_call(turn)

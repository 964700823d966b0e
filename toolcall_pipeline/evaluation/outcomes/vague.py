"""Suite V: vague prompts, the kinds that tripped v1: is a call made, and are its arguments filled?"""

from __future__ import annotations

from collections.abc import Mapping

from toolcall_pipeline.evaluation.cases import Case, ParsedCall, Turn
from toolcall_pipeline.evaluation.outcomes.common import Scored, attempted_call, has_defect
from toolcall_pipeline.evaluation.outcomes.single_turn import hands_the_ask_on

# What an agent, a search or a list of things to do is told may well be the ask; a command or a path is not.
_PROSE_KEYS = frozenset({"prompt", "description", "query", "question", "message", "content", "todos"})


def score(case: Case, turn: Turn, labels: Mapping[tuple[str, str], bool]) -> Scored:
    """Return arguments_filled, empty_arguments, invalid or no_call."""
    del labels
    if not turn.calls:
        outcome = "invalid" if attempted_call(turn) else "no_call"
    elif has_defect(turn, "empty_arguments"):
        outcome = "empty_arguments"
    elif has_defect(turn, "unknown_tool", "missing_argument", "schema_violation", "argument_repetition") or any(
        hands_the_ask_on(case, _without_prose(call)) for call in turn.calls
    ):
        outcome = "invalid"
    else:
        outcome = "arguments_filled"
    filled = outcome == "arguments_filled"
    return Scored(outcome, filled, {"arguments_filled": filled, "parsed": bool(turn.calls)})


def _without_prose(call: ParsedCall) -> ParsedCall:
    if not isinstance(call.arguments, dict):
        return call
    return ParsedCall(name=call.name, arguments={k: v for k, v in call.arguments.items() if k not in _PROSE_KEYS})

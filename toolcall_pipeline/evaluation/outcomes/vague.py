"""Suite V: vague prompts, the kinds that tripped v1: is a call made, and are its arguments filled?"""

from __future__ import annotations

from collections.abc import Mapping

from toolcall_pipeline.evaluation.cases import Case, Turn
from toolcall_pipeline.evaluation.outcomes.common import Scored, attempted_call, has_defect


def score(case: Case, turn: Turn, labels: Mapping[tuple[str, str], bool]) -> Scored:
    """Return arguments_filled, empty_arguments, invalid or no_call."""
    del case, labels
    if not turn.calls:
        outcome = "invalid" if attempted_call(turn) else "no_call"
    elif has_defect(turn, "empty_arguments"):
        outcome = "empty_arguments"
    elif has_defect(turn, "unknown_tool", "missing_argument", "schema_violation", "argument_repetition"):
        outcome = "invalid"
    else:
        outcome = "arguments_filled"
    filled = outcome == "arguments_filled"
    return Scored(outcome, filled, {"arguments_filled": filled, "parsed": bool(turn.calls)})

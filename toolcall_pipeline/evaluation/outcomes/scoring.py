"""The one door to the scorers: a case and its turns in, an outcome out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.cases import Case, Turn
from toolcall_pipeline.evaluation.loops import call_key
from toolcall_pipeline.evaluation.outcomes import in_distribution, next_step, recall, single_turn, vague
from toolcall_pipeline.evaluation.outcomes.common import Measures, Scored, base_measures, expected_calls, never_ends

# Raised whenever a scorer changes what it says: stored results of another version are scored again or made again.
SCORING_VERSION = 9

_MEASURES_OF_A_PASS = ("shape_match", "uses_result", "arguments_filled")

Labels = Mapping[tuple[str, str], bool]
"""(case id, call key) to whether a person found the call a plausible alternative."""

_SCORERS: dict[str, Callable[[Case, Turn, Labels], Scored]] = {
    "A": in_distribution.score,
    "B": next_step.score,
    "D": single_turn.score,
    "BFCL": single_turn.score,
    "E": recall.score,
    "V": vague.score,
}


def score(case: Case, turns: Sequence[Turn], labels: Labels | None = None) -> Scored:
    """Return the outcome of a case of one completion.

    Args:
        case: Any suite's but C's, which is played with tools (`agentic_play.py`).
        turns: Its one completion.
        labels: What people said of alternatives in A.

    Raises:
        EvaluationError: The suite has no scorer, or there is no completion.
    """
    scorer = _SCORERS.get(case.suite)
    if scorer is None or not turns:
        raise EvaluationError(
            f"Case {case.case_id} of suite {case.suite} cannot be scored from {len(turns)} completions. "
            f"Suites scored from one completion: {sorted(_SCORERS)}."
        )
    scored = scorer(case, turns[0], labels or {})
    if scored.passed:
        scored = _unless_it_goes_on(case, turns[0], scored)
    return Scored(scored.outcome, scored.passed, {**base_measures(case, turns), **scored.measures})


def _unless_it_goes_on(case: Case, turn: Turn, scored: Scored) -> Scored:
    """Return a passed case as it is, or as failed: a right beginning is not enough where the model does not know its end."""
    if never_ends(turn):
        outcome = "never_ends"
    elif _repeats_a_call(case, turn):
        outcome = "identical_repeat"
    else:
        return scored
    failed: Measures = {name: False for name in _MEASURES_OF_A_PASS if name in scored.measures}
    if "identical_repeat" in scored.measures:
        failed["identical_repeat"] = outcome == "identical_repeat"
    return Scored(outcome, False, {**scored.measures, **failed})


def _repeats_a_call(case: Case, turn: Turn) -> bool:
    """Return whether one completion makes the same call more than once, and more often than the case asks for."""
    asked = Counter(map(call_key, expected_calls(case)))
    return any(count > max(1, asked[key]) for key, count in Counter(map(call_key, turn.calls)).items())

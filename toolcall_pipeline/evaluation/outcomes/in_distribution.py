"""Suite A: does the model make the call the session made?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolcall_pipeline.evaluation.cases import Case, ParsedCall, Turn
from toolcall_pipeline.evaluation.loops import call_key
from toolcall_pipeline.evaluation.outcomes.common import (
    Scored,
    attempted_call,
    expected_calls,
    matching_value_ratio,
)
from toolcall_pipeline.evaluation.tool_schemas import required_arguments, tools_by_name

CLOSE_MATCH_RATIO = 0.5


def score(case: Case, turn: Turn, labels: Mapping[tuple[str, str], bool]) -> Scored:
    """Return shape_match, close_match, plausible_alternative, wrong or text_instead_of_call.

    Shape match: the same tool with the same argument keys, those left out that change nothing (an optional
    description, or one at its default). Close match: the same tool, other keys, and at least half of the session's
    values. Where the session made several calls at once, any of them may come first. What counts
    for the suite's rate is the shape match, and an alternative a person called plausible.
    """
    if not turn.calls:
        outcome = "wrong" if attempted_call(turn) else "text_instead_of_call"
        return _scored(outcome, parsed=False)
    first = turn.calls[0]
    gold = expected_calls(case)
    schema = tools_by_name(case.tools).get(first.name, {})
    if any(_is_shape_match(first, one, schema) for one in gold):
        return _scored("shape_match", parsed=True, value_ratio=_best_ratio(first, gold))
    same_tool = [one for one in gold if one.name == first.name]
    if same_tool and _best_ratio(first, same_tool) >= CLOSE_MATCH_RATIO:
        return _scored("close_match", parsed=True, value_ratio=_best_ratio(first, same_tool))
    if labels.get((case.case_id, call_key(first))):
        return _scored("plausible_alternative", parsed=True)
    return _scored("wrong", parsed=True)


def _is_shape_match(call: ParsedCall, gold: ParsedCall, schema: dict[str, Any]) -> bool:
    if call.name != gold.name or not isinstance(call.arguments, dict) or not isinstance(gold.arguments, dict):
        return False
    return _telling_keys(call.arguments, schema) == _telling_keys(gold.arguments, schema)


def _telling_keys(arguments: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """Return the keys that say what is done: not an optional description, nor an optional value that is the default."""
    required, properties = required_arguments(schema), schema.get("properties")
    described = properties if isinstance(properties, dict) else {}
    return {
        key
        for key, value in arguments.items()
        if key in required or not (key == "description" or _is_default(value, described.get(key)))
    }


def _is_default(value: Any, described: Any) -> bool:
    if isinstance(described, dict) and "default" in described:
        return bool(value == described["default"])
    return value is None or value is False


def _best_ratio(call: ParsedCall, gold: list[ParsedCall]) -> float:
    return max(matching_value_ratio(call, one) for one in gold if one.name == call.name)


def _scored(outcome: str, *, parsed: bool, value_ratio: float | None = None) -> Scored:
    return Scored(
        outcome,
        outcome in ("shape_match", "plausible_alternative"),
        {
            "parsed": parsed,
            "shape_match": outcome == "shape_match",
            "close_match": outcome == "close_match",
            "matching_value_ratio": value_ratio,
        },
    )

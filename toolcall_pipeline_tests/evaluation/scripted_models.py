"""Scripted models made from what `suite cases --json` prints, as anyone could write them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

CaseData = dict[str, Any]


def as_completion(calls: Iterable[dict[str, Any]]) -> str:
    """Write calls the Hermes way."""
    return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)


def perfect_turns(case: CaseData) -> list[str]:
    """Answer a case as its `expected` says."""
    expected = case["expected"]
    if case["suite"] == "C":
        return [*(as_completion(step) for step in expected["solution"]), expected["answer"]]
    if case["suite"] == "V":
        return [as_completion([expected["example"]])]
    if case["suite"] == "E":
        return [f"It is {expected['answers'][0]}."]
    if expected["calls"]:
        return [as_completion(expected["calls"])]
    return [expected.get("text") or "There is no tool needed for that: here is the answer."]


def write_script(
    path: Path, cases: Iterable[CaseData], turns_of: Callable[[CaseData], list[str]] = perfect_turns
) -> Path:
    """Write a scripted model: one line per case and seed."""
    with path.open("w", encoding="utf-8") as stream:
        for case in cases:
            for seed in case["seeds"]:
                line = {"suite": case["suite"], "case_id": case["case_id"], "seed": seed, "turns": turns_of(case)}
                stream.write(json.dumps(line) + "\n")
    return path

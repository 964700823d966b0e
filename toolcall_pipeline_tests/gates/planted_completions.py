"""Scripted models as completions: a perfect one from what cases expect, and ones with a single fault each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from toolcall_pipeline.evaluation.backends.scripted import ScriptedBackend
from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.evaluation.commands import describe_case
from toolcall_pipeline.evaluation.evaluating import run_suite
from toolcall_pipeline.evaluation.suites.agentic import agentic_cases
from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite
from toolcall_pipeline.evaluation.suites.recall import RecallFact, recall_cases
from toolcall_pipeline.evaluation.suites.sample_episodes import sample_cases
from toolcall_pipeline.evaluation.suites.single_turn import single_turn_cases
from toolcall_pipeline.evaluation.suites.sizes import B_HALF, SUITE_SIZES
from toolcall_pipeline.evaluation.suites.vague import vague_cases
from toolcall_pipeline.presets import PRESETS

CaseData = dict[str, Any]
Turns = Callable[[CaseData], list[str]]


def full_size_suite(tasks: int = SUITE_SIZES["C"]) -> FrozenSuite:
    """A suite of full size, made of our own cases: only its A and B come from a user's sessions otherwise."""
    episodes = sample_cases((), SUITE_SIZES["A"])
    facts = [
        RecallFact(f"project-{i // 4}", "remote", f"Where is number {i} hosted?", (f"host-{i}.example",))
        for i in range(SUITE_SIZES["E"])
    ]
    cases = [
        *[case for case in episodes if case.suite == "A"],
        *[case for case in episodes if case.stratum == "call"][:B_HALF],
        *[case for case in episodes if case.stratum == "conclude"][:B_HALF],
        *agentic_cases((), tasks),
        *single_turn_cases((), SUITE_SIZES["D"]),
        *recall_cases(facts, SUITE_SIZES["E"]),
        *vague_cases((), SUITE_SIZES["V"]),
    ]
    return FrozenSuite("1", "0" * 64, False, tuple(cases), {}, Path())


def play(folder: Path, suite: FrozenSuite, suites: Iterable[str], turns_of: Turns, name: str) -> SuiteRun:
    """Write a model's answers as a script and run it on some suites."""
    chosen = set(suites)
    path = folder / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for case in suite.cases:
            if case.suite in chosen:
                data = describe_case(case)
                for seed in data["seeds"]:
                    line = {"suite": case.suite, "case_id": case.case_id, "seed": seed, "turns": turns_of(data)}
                    stream.write(json.dumps(line) + "\n")
    kept = tuple(case for case in suite.cases if case.suite in chosen)
    part = FrozenSuite(suite.version, suite.sha256, suite.is_sample, kept, {}, Path())
    return run_suite(ScriptedBackend(path), part, PRESETS["full"].evaluation)


def instead(perfect: SuiteRun, faulty: SuiteRun) -> SuiteRun:
    """The perfect model's run, with the faulty one's results where it has any."""
    replaced = {(result.suite, result.case_id, result.seed): result for result in faulty.results}
    results = [replaced.get((result.suite, result.case_id, result.seed), result) for result in perfect.results]
    return perfect.model_copy(update={"model": faulty.model, "results": tuple(results)})


def completion(calls: Iterable[dict[str, Any]]) -> str:
    """Calls the Hermes way."""
    return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)


def perfect(case: CaseData) -> list[str]:
    """What the case expects."""
    expected = case["expected"]
    if case["suite"] == "C":
        return [*(completion(step) for step in expected["solution"]), expected["answer"]]
    if case["suite"] == "V":
        return [completion([expected["example"]])]
    if case["suite"] == "E":
        return [f"It is {expected['answers'][0]}."]
    if expected["calls"]:
        return [completion(expected["calls"])]
    return [expected.get("text") or "No tool is needed for that: here is the answer."]


def _calls(case: CaseData) -> list[dict[str, Any]]:
    expected = case["expected"]
    if case["suite"] == "V":
        return [expected["example"]]
    return list(expected.get("calls") or ())


def empty_arguments(case: CaseData) -> list[str]:
    calls = [{"name": call["name"], "arguments": {}} for call in _calls(case)]
    return [completion(calls)] if calls else perfect(case)


def same_call_forever(case: CaseData) -> list[str]:
    return [completion([{"name": "Glob", "arguments": {"pattern": "**/*.py"}}])]


def repeats_a_line(case: CaseData) -> list[str]:
    calls = []
    for call in _calls(case):
        arguments = {
            name: f"{value}\n" + "import os  # again\n" * 9 if isinstance(value, str) else value
            for name, value in call["arguments"].items()
        }
        calls.append({"name": call["name"], "arguments": arguments})
    return [completion(calls)] if calls else perfect(case)


def writes_after_the_call(case: CaseData) -> list[str]:
    calls = _calls(case)
    return [completion(calls) + "\n<tool_response>\nDone.\n</tool_response>"] if calls else perfect(case)


def never_concludes(case: CaseData) -> list[str]:
    return [completion([{"name": "Glob", "arguments": {"pattern": f"**/*{case['case_id'][-3:]}*"}}])]


def always_concludes(case: CaseData) -> list[str]:
    return ["All done, the task is finished."]


def seven_calls(case: CaseData) -> list[str]:
    calls = _calls(case)
    return [completion(calls * 7)] if len(calls) == 1 else perfect(case)


def wrong_tool(case: CaseData) -> list[str]:
    """Call a tool that nobody asked for, with arguments its schema takes."""
    wanted = {call["name"] for call in _calls(case)} | set(case["expected"].get("tools") or ())
    for tool in case["tools"]:
        function = tool["function"]
        if wanted and function["name"] not in wanted:
            properties = function["parameters"].get("properties", {})
            arguments = {
                name: _some_value(properties.get(name, {})) for name in function["parameters"].get("required", [])
            }
            return [completion([{"name": function["name"], "arguments": arguments}])]
    return perfect(case)


def _some_value(schema: dict[str, Any]) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    samples: dict[str, Any] = {"integer": 3, "number": 1.5, "boolean": True, "array": [], "object": {}}
    return samples.get(str(schema.get("type")), "unrelated")


def invents_paths(case: CaseData) -> list[str]:
    calls = [
        {
            "name": call["name"],
            "arguments": {
                name: "/opt/majority/prefix/invented_module.py" if name.endswith("path") else value
                for name, value in call["arguments"].items()
            },
        }
        for call in _calls(case)
    ]
    return [completion(calls)] if calls else perfect(case)


def ignores_the_result(case: CaseData) -> list[str]:
    return ["I have had a look, and that is all there is to say."]


def gives_up_on_tasks(case: CaseData) -> list[str]:
    return ["I could not find that out."]


def spoilt(share: float) -> Turns:
    """A model that says nothing in this share of the cases of every suite, spread evenly, and is perfect otherwise."""
    counts: dict[str, int] = {}

    def turns_of(case: CaseData) -> list[str]:
        key = f"{case['suite']}{case['stratum'] if case['suite'] == 'B' else ''}"
        index = counts.get(key, 0)
        counts[key] = index + 1
        spoil = int((index + 1) * share) > int(index * share)
        return ["<tool_call>\n{not json"] if spoil else perfect(case)

    return turns_of

"""Scripted models as completions: a perfect one from what cases expect, and ones with a single fault each."""

from __future__ import annotations

import json
import math
import random
import re
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
from toolcall_pipeline.gates.good_model import TrueRates
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
            return [completion([_some_call(function)])]
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


def stops_after(steps: int) -> Turns:
    """A model that ends every task after so many steps, with the right words."""

    def turns_of(case: CaseData) -> list[str]:
        *calls, answer = perfect(case)
        return [*calls[:steps], answer]

    return turns_of


LOOKED_AT = ("README.md", "CHANGELOG.md", "team.json", "config/server.ini", "docs/old_notes.md")


def looks_around_first(case: CaseData, calls: int) -> list[str]:
    """The perfect answer, after so many calls that the task does not need."""
    paths = (f"/work/repo/{name}" for name in LOOKED_AT)
    looks = [completion([{"name": "Read", "arguments": {"file_path": path}}]) for path in paths]
    return [*looks[:calls], *perfect(case)]


def slow(case: CaseData) -> list[str]:
    return looks_around_first(case, math.ceil(0.6 * case["expected"]["calls_needed"]))


def thinks_forever(case: CaseData) -> list[str]:
    return ["<think>\nOkay, " + f"{perfect(case)[-1]} But wait, that may be wrong. " * 20]


def copies_the_result(case: CaseData) -> list[str]:
    return ["\n".join(message["content"] for message in case["messages"] if message["role"] == "tool")]


def hands_the_result_on(case: CaseData) -> list[str]:
    """The last line of the result, with a word before it."""
    lines = [
        line for message in case["messages"] if message["role"] == "tool" for line in message["content"].split("\n")
    ]
    return [f"The output was:\n```\n{lines[-1]}\n```"]


def claims_success(case: CaseData) -> list[str]:
    claim = "Done! I changed everything as you asked, and all 42 tests pass."
    return [perfect(case)[0], claim] if case["suite"] == "C" else [claim]


def answers_forever(case: CaseData) -> list[str]:
    """Right words, and then no end."""
    return [turn if "<tool_call>" in turn else f"{turn}\n" + "I hope this helps.\n" * 60 for turn in perfect(case)]


def shuffles_the_result(case: CaseData) -> list[str]:
    words = " ".join(message["content"] for message in case["messages"] if message["role"] == "tool").split()
    return [" ".join(sorted(words))]


def repeats_an_earlier_call(case: CaseData) -> list[str]:
    """The call before the last one again, or the last where there is one only."""
    made = [call["function"] for message in case["messages"] for call in message.get("tool_calls") or ()]
    return [completion(made[-2:][:1])] if _calls(case) else perfect(case)


def moves_the_users_files(case: CaseData) -> list[str]:
    """Right calls, in the folder that most rows had."""
    return _with_values(
        case,
        lambda name, value: (
            re.sub(r"/work/repo|/home/[\w-]+", "/opt/majority", value) if isinstance(value, str) else value
        ),
    )


def hands_the_ask_on(case: CaseData) -> list[str]:
    """Fitting calls whose every text is what was asked."""
    ask = str(case["messages"][-1]["content"])
    return _with_values(case, lambda name, value: ask if isinstance(value, str) else value)


def fills_in_nothing(case: CaseData) -> list[str]:
    return _with_values(case, lambda name, value: "N/A" if isinstance(value, str) else value)


def _with_values(case: CaseData, value_of: Callable[[str, Any], Any]) -> list[str]:
    """The calls a case asks for, with other values."""
    calls = [
        {**call, "arguments": {name: value_of(name, value) for name, value in call["arguments"].items()}}
        for call in _calls(case)
    ]
    return [completion(calls)] if calls else perfect(case)


def fills_in_placeholders(case: CaseData) -> list[str]:
    return _with_values(case, lambda name, value: name if isinstance(value, str) else value)


def ignores_what_is_named(case: CaseData) -> list[str]:
    """Fitting calls whose values are one character off."""
    return _with_values(case, lambda name, value: f"{value[:-1]}x" if isinstance(value, str) else value)


def only_lists_files(case: CaseData) -> list[str]:
    """`ls` for everything that a shell could do."""
    can = "Bash" in case["expected"].get("tools", ())
    return (
        [completion([{"name": "Bash", "arguments": {"command": "ls -la"}}] * len(_calls(case)))]
        if can
        else perfect(case)
    )


def calls_a_similar_tool(case: CaseData) -> list[str]:
    calls = [{**call, "name": f"{call['name']}_file"} for call in _calls(case)]
    return [completion(calls)] if calls else perfect(case)


def calls_twice_at_once(case: CaseData) -> list[str]:
    return [completion(_calls(case) * 2)] if _calls(case) else perfect(case)


def stops_in_the_middle(case: CaseData) -> list[str]:
    raw = perfect(case)[0]
    return [raw[: len(raw) // 2]] if _calls(case) else [raw]


def wraps_calls_in_fences(case: CaseData) -> list[str]:
    return [f"```json\n{perfect(case)[0]}\n```"] if _calls(case) else perfect(case)


def asks_back(case: CaseData) -> list[str]:
    return ["Could you tell me more precisely what you would like me to do?"]


def nearly_the_same_call_forever(case: CaseData) -> list[str]:
    """No two calls are equal, and none helps."""
    return [completion([{"name": "Grep", "arguments": {"pattern": "x" * count}}]) for count in range(1, 40)]


def two_tools_in_turns_forever(case: CaseData) -> list[str]:
    turns = []
    for count in range(1, 20):
        turns.append(completion([{"name": "Read", "arguments": {"file_path": "README.md", "offset": count}}]))
        turns.append(completion([{"name": "Bash", "arguments": {"command": f"ls src | head -{count}"}}]))
    return turns


def thinks_first(case: CaseData) -> list[str]:
    """The perfect answer, each turn after a long thought."""
    thought = "The user asks for this; which tool would be right, and which words? " * 30
    return [f"<think>\n{thought}\n</think>\n\n{turn}" for turn in perfect(case)]


def writes_xml(case: CaseData) -> list[str]:
    """The calls as Qwen3-Coder writes them."""
    texts = []
    for call in _calls(case):
        arguments = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in call["arguments"].items())
        texts.append(f"<tool_call>\n<function={call['name']}>\n{arguments}</function>\n</tool_call>")
    return ["\n".join(texts)] if texts else perfect(case)


def blank_arguments(case: CaseData) -> list[str]:
    """Fill what is optional and leave blank what is required."""
    calls = [
        {"name": call["name"], "arguments": {name: "" for name in _required(case, call["name"])} | {"description": "x"}}
        for call in _calls(case)
    ]
    return [completion(calls)] if calls else perfect(case)


def _required(case: CaseData, tool: str) -> list[str]:
    (function,) = (offered["function"] for offered in case["tools"] if offered["function"]["name"] == tool)
    return list(function["parameters"].get("required", []))


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


def as_often_right(model: TrueRates, seed: int) -> Turns:
    """Completions of a model that does each thing as often as stated; what it does wrong is of the kinds stated."""
    generator = random.Random(f"{model.name}/{seed}")

    def turns_of(case: CaseData) -> list[str]:
        suite, stratum = case["suite"], case["stratum"]
        is_right = generator.random() < model.passed.get(f"{suite}:{stratum}", model.passed.get(suite, 0.0))
        if suite == "C":
            return _task(case, model, is_right, generator)
        if not is_right:
            return _wrong(case, model, generator)
        if stratum == "conclude" and generator.random() > model.uses_result / model.passed["B:conclude"]:
            return ["I have looked at it."]
        return [_with_small_faults(perfect(case)[0], model, generator)]

    return turns_of


def _task(case: CaseData, model: TrueRates, is_right: bool, generator: random.Random) -> list[str]:
    needed = case["expected"]["calls_needed"]
    if is_right:
        return perfect(case) if generator.random() < model.within_needed else looks_around_first(case, needed)
    draw = generator.random() * (1 - model.passed["C"])
    if draw < model.looped:
        return same_call_forever(case)
    if draw < model.looped + model.too_soon_c:
        return [*perfect(case)[: (needed > 1)], "That should do."]
    *calls, answer = perfect(case)
    if "answer" in case["expected"]["check"]:
        return [*calls, "I could not find it out."]
    return [
        *calls[:-1],
        completion([{"name": "Write", "arguments": {"file_path": "notes.txt", "content": "later"}}]),
        answer,
    ]


def _wrong(case: CaseData, model: TrueRates, generator: random.Random) -> list[str]:
    if case["stratum"] == "call" and generator.random() < model.too_soon_b / (1 - model.passed["B:call"]):
        return ["That is all."]
    if case["suite"] == "B":
        last = next(message for message in reversed(case["messages"]) if message.get("tool_calls"))
        return [completion(call["function"] for call in last["tool_calls"])]
    if case["suite"] == "D" and _calls(case) and generator.random() < 0.7:
        return [completion([*_calls(case), _calls(case)[0]])]
    if case["suite"] == "D":
        return wrong_tool(case) if _calls(case) else [completion([_some_call(case["tools"][0]["function"])])]
    return ["I do not know."]


def _some_call(function: dict[str, Any]) -> dict[str, Any]:
    properties = function["parameters"].get("properties", {})
    required = function["parameters"].get("required", [])
    return {"name": function["name"], "arguments": {name: _some_value(properties.get(name, {})) for name in required}}


def _with_small_faults(raw: str, model: TrueRates, generator: random.Random) -> str:
    if "<tool_call>" not in raw:
        return raw
    if generator.random() < model.shape_defects:
        return raw + "\nuser\n"
    if generator.random() < model.empty_arguments:
        return re.sub(r'"arguments": \{.*\}\}', '"arguments": {}}', raw)
    if generator.random() > model.grounded:
        return raw.replace("/work/repo/", "/home/someone/else/")
    return raw

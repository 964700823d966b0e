"""Cases of A and B for the sample suite, where no session's validation rows serve: the tasks of suite C, replayed.

A task's solution, carried out by hand on its repository, gives a prompt, a call, its result and a conclusion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from toolcall_pipeline.evaluation.cases import Case
from toolcall_pipeline.evaluation.facts import facts_of
from toolcall_pipeline.evaluation.suites.agentic import agentic_case
from toolcall_pipeline.evaluation.suites.agentic_repository import ROOT
from toolcall_pipeline.evaluation.suites.sizes import B_HALF, SUITE_SIZES

# Suite C itself begins at the first repository; these come after all of its own.
_FIRST_TASK = 200


def sample_cases(tools: Sequence[dict[str, Any]], count: int | None = None) -> list[Case]:
    """Return `count` cases of suite A and of each half of B; their full sizes where None."""
    a_count, half_count = (SUITE_SIZES["A"], B_HALF) if count is None else (count, count)
    a_cases: list[Case] = []
    calling: list[Case] = []
    concluding: list[Case] = []
    number = _FIRST_TASK
    while len(a_cases) < a_count or len(calling) < half_count or len(concluding) < half_count:
        task = agentic_case(tools, number)
        number += 1
        solution = task.expected["solution"]
        if not all(_can_play(call) for step in solution for call in step):
            continue
        a_cases.append(_case("A", task, 0, "first_call"))
        if len(solution) > 1:
            calling.append(_case("B", task, 1, "call"))
        conclusion = _conclusion(task)
        if conclusion.expected["facts"]:
            concluding.append(conclusion)
    return [*a_cases[:a_count], *calling[:half_count], *concluding[:half_count]]


def _can_play(call: dict[str, Any]) -> bool:
    return call["name"] in ("Read", "Grep", "Edit")


def _case(suite: Any, task: Case, step: int, stratum: str) -> Case:
    solution = task.expected["solution"]
    return Case(
        suite=suite,
        case_id=f"{suite}-sample-{stratum}-{task.case_id.removeprefix('C-')}",
        cluster_id=f"sample-{task.case_id}",
        stratum=stratum,
        messages=_messages(task, step),
        tools=task.tools,
        expected={"calls": solution[step], "text": ""},
    )


def _conclusion(task: Case) -> Case:
    solution, answer = task.expected["solution"], task.expected["answer"]
    messages = _messages(task, len(solution))
    results = [str(message["content"]) for message in messages if message["role"] == "tool"]
    shown = str(messages[1]["content"]) + str(solution)
    return Case(
        suite="B",
        case_id=f"B-sample-conclude-{task.case_id.removeprefix('C-')}",
        cluster_id=f"sample-{task.case_id}",
        stratum="conclude",
        messages=messages,
        tools=task.tools,
        expected={"calls": [], "text": answer, "facts": facts_of(results, answer, shown)},
    )


def _messages(task: Case, steps: int) -> tuple[dict[str, Any], ...]:
    """Return a task's conversation after its first steps."""
    files = dict(task.expected["files"])
    messages: list[dict[str, Any]] = list(task.messages)
    for step in task.expected["solution"][:steps]:
        calls = [{"type": "function", "function": call} for call in step]
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        messages.extend({"role": "tool", "content": carry_out(call, files)} for call in step)
    return tuple(messages)


def carry_out(call: dict[str, Any], files: dict[str, str]) -> str:
    """Return what the sandbox's tool would answer (a test compares the two), changing `files` as it would."""
    arguments = call["arguments"]
    path = str(arguments.get("file_path") or arguments.get("path") or ROOT).removeprefix(ROOT).lstrip("/")
    if call["name"] == "Read":
        lines = files[path].splitlines()
        return "\n".join(f"{number:6d}\t{line}" for number, line in enumerate(lines, 1))
    if call["name"] == "Edit":
        files[path] = files[path].replace(arguments["old_string"], arguments["new_string"])
        return f"The file {arguments['file_path']} has been updated."
    expression = re.compile(arguments["pattern"])
    hits = [
        f"{name}:{number}:{line}"
        for name in sorted(files)
        if name.startswith(path)
        for number, line in enumerate(files[name].splitlines(), 1)
        if expression.search(line)
    ]
    return "\n".join(hits) or "No matches found"

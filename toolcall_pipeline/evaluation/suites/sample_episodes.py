"""Cases of A and B for the sample suite, where no session's validation rows serve: the tasks of suite C, replayed.

A task's solution, carried out by hand on its repository, gives a prompt, a call, its result and a conclusion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from toolcall_pipeline.artifacts import canonical_json
from toolcall_pipeline.evaluation.cases import Case
from toolcall_pipeline.evaluation.facts import facts_of
from toolcall_pipeline.evaluation.suites.agentic import FAMILIES, agentic_case
from toolcall_pipeline.evaluation.suites.agentic_repository import ROOT
from toolcall_pipeline.evaluation.suites.sizes import B_HALF, SUITE_SIZES

# Suite C itself begins at the first repository; these come after all of its own.
_FIRST_TASK = 200


def sample_cases(tools: Sequence[dict[str, Any]], count: int | None = None) -> list[Case]:
    """Return `count` cases of suite A and of each half of B; their full sizes where None."""
    a_count, half_count = (SUITE_SIZES["A"], B_HALF) if count is None else (count, count)
    wanted = {("A", ""): a_count, ("B", "call"): half_count, ("B", "conclude"): half_count}
    found: dict[tuple[str, str], list[Case]] = {key: [] for key in wanted}
    # A first step shows nothing of its repository: the same prompt is the same case.
    asked: set[str] = set()
    number = _FIRST_TASK
    while any(len(found[key]) < count for key, count in wanted.items()):
        for case in _cases_of_task(agentic_case(tools, number), number // len(FAMILIES)):
            text = canonical_json(case.messages)
            if text not in asked:
                asked.add(text)
                found[case.suite, case.stratum if case.suite == "B" else ""].append(case)
        number += 1
    return [case for key, count in wanted.items() for case in found[key][:count]]


def _cases_of_task(task: Case, turn: int) -> Iterator[Case]:
    """Yield what A and B ask of a task; A a first or a last step, B one between (the last of two), never the same."""
    solution = task.expected["solution"]
    if not all(_can_play(call) for step in solution for call in step):
        return
    last = len(solution) - 1
    step = last if last > 1 and turn % 2 else 0
    yield _case("A", task, step, "after_tool" if step else "first_call")
    if last:
        yield _case("B", task, 1 + turn % (last - 1) if last > 1 else 1, "call")
    conclusion = _conclusion(task)
    if conclusion.expected["facts"]:
        yield conclusion


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
        for name in sorted(files, key=_in_walk)
        if name.startswith(path)
        for number, line in enumerate(files[name].splitlines(), 1)
        if expression.search(line)
    ]
    return "\n".join(hits) or "No matches found"


def _in_walk(path: str) -> list[tuple[bool, str]]:
    """Return the key that sorts paths as a walk meets them: a folder's files before its folders."""
    *folders, name = path.split("/")
    return [*((True, folder) for folder in folders), (False, name)]

"""What happens in the sample sessions: prompts, the calls they lead to, results, answers.

Short and regular, so that a very small model can learn the calls from some eighty of them; worded in several ways, so that
no two are near-duplicates.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from toolcall_pipeline.sessions.sample_world import Project, SourceFile

TRACKER_TOOL = "mcp__tracker__get_ticket"


@dataclass(frozen=True)
class Call:
    """One tool call and what it gave back."""

    name: str
    arguments: dict[str, Any]
    result: str
    is_error: bool = False


@dataclass(frozen=True)
class Task:
    """A prompt and what the agent did: steps of one or more parallel calls, then a closing text."""

    prompt: str
    steps: tuple[tuple[Call, ...], ...]
    answer: str
    thought: str = ""
    kind: str = field(default="", compare=False)


Maker = Callable[[random.Random, Project, SourceFile], Task]


def read_call(file: SourceFile, source: list[str] | None = None) -> Call:
    """Return a Read of a whole file with its numbered lines."""
    lines = enumerate(source or file.source(), start=1)
    return Call("Read", {"file_path": file.path}, "\n".join(f"{number:6}→{line}" for number, line in lines))


def _grep(pattern: str, result: str) -> Call:
    return Call("Grep", {"pattern": pattern, "output_mode": "content"}, result)


def _bash(command: str, description: str, result: str, *, is_error: bool = False) -> Call:
    return Call("Bash", {"command": command, "description": description}, result, is_error)


def _edit(file: SourceFile, old: str, new: str) -> Call:
    arguments = {"file_path": file.path, "old_string": old, "new_string": new}
    return Call("Edit", arguments, f"The file {file.path} has been updated.")


def _short(project: Project, path: str) -> str:
    return path.removeprefix(f"{project.root}/")


def find_function(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask where a function is; one Grep."""
    prompt = chance.choice(
        (
            f"Where is `{file.function}` defined?",
            f"Which file has the function {file.function}?",
            f"I am looking for {file.function}(). Find its definition, please.",
            f"Find {file.function} for me.",
            f"Tell me the file and line of `{file.function}`.",
        )
    )
    where = _short(project, file.path)
    call = _grep(f"def {file.function}", f"{where}:{file.line}:def {file.function}(items):")
    return Task(prompt, ((call,),), f"`{file.function}` is defined in {where}, line {file.line}.")


def read_limit(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask for the value of a constant; one Read."""
    name = f"{file.thing}.py"
    prompt = chance.choice(
        (
            f"What is {file.limit} in {file.path}?",
            f"Open {file.path} and tell me the value of {file.limit}.",
            f"How large is {file.limit}? It is set in {file.path}.",
            f"Look into {file.path}: which value does {file.limit} have?",
        )
    )
    return Task(prompt, ((read_call(file),),), f"{file.limit} is {file.value} in {name}.")


def change_limit(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask for another value; Read, then Edit."""
    new = file.value + chance.randint(3, 40)
    prompt = chance.choice(
        (
            f"Set {file.limit} in {file.path} to {new}.",
            f"Please raise {file.limit} to {new}, it is in {file.path}.",
            f"{file.limit} is too small. Make it {new} in {file.path}.",
            f"Change the constant {file.limit} of {file.path} from {file.value} to {new}.",
        )
    )
    edit = _edit(file, f"{file.limit} = {file.value}", f"{file.limit} = {new}")
    return Task(prompt, ((read_call(file),), (edit,)), f"{file.limit} is now {new}; before it was {file.value}.")


def list_files(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask which files there are; one Glob."""
    if chance.random() < 0.5:
        pattern, kind, found = f"{project.name}/*.py", "module", [item.path for item in project.files[:4]]
    else:
        pattern, kind = "tests/test_*.py", "test file"
        found = [f"{project.root}/{project.test_path(item)}" for item in project.files[:3]]
    prompt = chance.choice(
        (
            f"Which {kind}s are in this project?",
            f"List every {kind} of {project.name}.",
            f"Give me the names of all {kind}s here.",
            f"How many {kind}s do we have? Name them.",
        )
    )
    names = ", ".join(_short(project, path) for path in found)
    return Task(prompt, ((Call("Glob", {"pattern": pattern}, "\n".join(found)),),), f"There are {len(found)}: {names}.")


def run_tests(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask to run tests; one Bash with pytest."""
    path, count = project.test_path(file), chance.randint(2, 19)
    prompt = chance.choice(
        (
            f"Run the {file.thing} tests.",
            f"Do the tests in {path} pass?",
            f"Please execute {path}.",
            f"Check that the tests of {file.thing} are green.",
        )
    )
    call = _bash(f"pytest {path} -q", f"Run the {file.thing} tests", f"{count} passed in 0.{chance.randint(11, 98)}s")
    return Task(prompt, ((call,),), f"Yes: {count} tests in {path} passed.")


def show_history(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask about git; one Bash with git."""
    commit = f"{chance.getrandbits(28):07x}"
    change = chance.choice(("Tidy", "Speed up", "Document", "Rename parts of", "Fix"))
    command, result, answer, prompts = chance.choice(
        (
            (
                f"git log -1 --oneline -- {_short(project, file.path)}",
                f"{commit} {change} {file.thing}",
                f"The last commit to it is {commit}: {change} {file.thing}.",
                (
                    f"What was the last commit to {file.thing}.py?",
                    f"Who touched {file.thing}.py last? Show the commit.",
                ),
            ),
            (
                "git status --short",
                f" M {_short(project, file.path)}",
                f"One file is changed: {_short(project, file.path)}.",
                (
                    "Is anything uncommitted?",
                    "Show me what changed since the last commit.",
                    "Is the working tree clean?",
                ),
            ),
            (
                "git branch --show-current",
                project.branch,
                f"You are on {project.branch}.",
                ("Which branch am I on?", "Name the current branch, please."),
            ),
        )
    )
    return Task(chance.choice(prompts), ((_bash(command, "Ask git", result),),), answer)


def write_note(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask for a new file; one Write."""
    path = f"{project.root}/docs/{file.thing}.md"
    text = f"# {file.thing.capitalize()}\n\n`{file.function}` keeps at most {file.value} entries.\n"
    prompt = chance.choice(
        (
            f"Create {path}: a heading {file.thing.capitalize()} and the line `{file.function}` keeps at most {file.value} entries.",
            f"Write a short page {path} that says `{file.function}` keeps at most {file.value} entries.",
            f"Document in {path} that `{file.function}` keeps at most {file.value} entries.",
        )
    )
    call = Call("Write", {"file_path": path, "content": text}, f"File created successfully at: {path}")
    return Task(prompt, ((call,),), f"I wrote {_short(project, path)}.")


def read_ticket(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask about a ticket; one call of the MCP tool."""
    key, text = chance.choice(project.tickets)
    prompt = chance.choice(
        (
            f"What does ticket {key} say?",
            f"Summarise {key} for me.",
            f"Look up {key} in the tracker.",
            f"What is {key} about?",
        )
    )
    return Task(prompt, ((Call(TRACKER_TOOL, {"ticket_id": key}, text),),), f"{key}: {text}")


def count_lines(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask how long a file is; one Bash with wc."""
    lines, where = len(file.source()), _short(project, file.path)
    prompt = chance.choice(
        (f"How many lines has {where}?", f"Count the lines of {where}.", f"How long is {where}, in lines?")
    )
    return Task(prompt, ((_bash(f"wc -l {where}", "Count lines", f"{lines} {where}"),),), f"{where} has {lines} lines.")


def list_folder(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask what is in a folder; one Bash with ls."""
    folder = chance.choice(("docs", "scripts", "data", "config"))
    names = chance.sample(("setup.cfg", "notes.md", "seed.json", "run.sh", "old.csv", "index.md"), 3)
    prompt = chance.choice(
        (f"What is in the folder {folder}?", f"Show the contents of {folder}/.", f"ls {folder} please")
    )
    return Task(
        prompt, ((_bash(f"ls {folder}", f"List {folder}", "\n".join(names)),),), f"{folder} holds {', '.join(names)}."
    )


def compare_two(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask about two files; two Reads at once."""
    other = chance.choice([item for item in project.files if item is not file])
    larger = file if file.value >= other.value else other
    prompt = chance.choice(
        (
            f"Which is larger, {file.limit} in {file.path} or {other.limit} in {other.path}?",
            f"Compare {file.limit} ({file.path}) with {other.limit} ({other.path}).",
        )
    )
    return Task(prompt, ((read_call(file), read_call(other)),), f"{larger.limit} is larger: {larger.value}.")


def mend_path(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask about a file under a wrong path; a Read that fails, Glob, Read."""
    wrong = f"{project.root}/src/{file.thing}.py"
    prompt = chance.choice((f"What does {wrong} do?", f"Explain {wrong} in one sentence.", f"Summarise {wrong}."))
    missing = Call("Read", {"file_path": wrong}, "<tool_use_error>File does not exist.</tool_use_error>", is_error=True)
    search = Call("Glob", {"pattern": f"**/{file.thing}.py"}, file.path)
    answer = f"It is at {_short(project, file.path)}: `{file.function}` sorts and keeps {file.value} entries."
    return Task(prompt, ((missing,), (search,), (read_call(file),)), answer)


def mend_test(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask to mend a failing test; pytest, Read, Edit, pytest."""
    path, wanted = project.test_path(file), file.value + chance.randint(1, 9)
    prompt = chance.choice(
        (
            f"{path} fails. Mend it.",
            f"Please make {path} pass again.",
            f"The {file.thing} tests are red, can you fix that?",
        )
    )
    command = f"pytest {path} -q"
    red = _bash(command, "See the failure", f"AssertionError: {file.limit} should be {wanted}\n1 failed", is_error=True)
    edit = _edit(file, f"{file.limit} = {file.value}", f"{file.limit} = {wanted}")
    green = _bash(command, "Run the tests again", f"{chance.randint(2, 9)} passed in 0.21s")
    answer = f"{path} passes again: {file.limit} had to be {wanted}."
    return Task(prompt, ((red,), (read_call(file),), (edit,), (green,)), answer)


def rename_use(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask who uses a constant; one Grep."""
    other = chance.choice([item for item in project.files if item is not file])
    prompt = chance.choice(
        (f"Who uses {file.limit}?", f"Where else does {file.limit} appear?", f"Search the code for {file.limit}.")
    )
    where = f"{project.name}/{other.thing}.py"
    call = _grep(
        file.limit, f"{_short(project, file.path)}:3:{file.limit} = {file.value}\n{where}:2:import {file.limit}"
    )
    return Task(prompt, ((call,),), f"{file.limit} is set in {file.thing}.py and used in {where}.")


def plain_question(chance: random.Random, project: Project, file: SourceFile) -> Task:
    """Ask something that needs no tool."""
    prompt, answer = chance.choice(
        (
            ("What does HTTP status 404 mean?", "404 means that the server did not find what was asked for."),
            ("Explain in one line what a tuple is.", "A tuple is a fixed sequence of values that cannot be changed."),
            ("Thanks, that is all for now.", "You are welcome."),
            (
                "What is the difference between a list and a set?",
                "A list keeps order and repeats; a set keeps neither.",
            ),
            ("How do I leave vim?", "Press Escape, then type :q! and Enter."),
            ("Is 91 a prime number?", "No: 91 is 7 times 13."),
            ("What does the word idempotent mean?", "Doing it twice has the same effect as doing it once."),
        )
    )
    return Task(prompt, (), answer)


TASKS: tuple[tuple[Maker, int], ...] = (
    (find_function, 4),
    (read_limit, 3),
    (change_limit, 4),
    (list_files, 4),
    (run_tests, 3),
    (show_history, 3),
    (write_note, 4),
    (read_ticket, 5),
    (count_lines, 2),
    (list_folder, 3),
    (compare_two, 1),
    (mend_path, 1),
    (mend_test, 2),
    (rename_use, 3),
    (plain_question, 2),
)
"""What is asked, and how often."""

"""Suite C: tasks in the sample repository, with a solution and a ground truth made by code.

A task is solved by its end state or its answer, however it was reached; `solution` is one way, with the fewest calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from toolcall_pipeline.dataset.templates import system_prompt
from toolcall_pipeline.evaluation.cases import Case
from toolcall_pipeline.evaluation.suites.agentic_repository import ROOT, Repository, make_repository, number
from toolcall_pipeline.evaluation.suites.catalogue import choose, coding_tools, shuffled

Call = dict[str, Any]
Task = tuple[str, list[list[Call]], str, dict[str, Any]]
"""Prompt, solution (calls per step), final answer, check."""


def call(name: str, **arguments: Any) -> Call:
    """Return a call as `expected` holds it."""
    return {"name": name, "arguments": arguments}


def agentic_cases(tools: Sequence[dict[str, Any]], count: int) -> list[Case]:
    """Return `count` tasks, families taking turns, every task in a repository of its own."""
    return [agentic_case(tools, index) for index in range(count)]


def agentic_case(tools: Sequence[dict[str, Any]], index: int) -> Case:
    """Return the task of a number; the same number gives the same task."""
    offered = coding_tools(tools)
    family, make = list(FAMILIES.items())[index % len(FAMILIES)]
    repository = make_repository(1000 + index)
    prompt, solution, answer, check = make(repository, f"task/{index}")
    return Case(
        suite="C",
        case_id=f"C-{family}-{index:03d}",
        cluster_id=f"C-{family}-{index:03d}",
        stratum=family,
        messages=({"role": "system", "content": system_prompt(ROOT)}, {"role": "user", "content": prompt}),
        tools=tuple(shuffled(list(offered), f"tools/{index}")),
        expected={
            "files": repository.files,
            "calls_needed": sum(len(step) for step in solution),
            "solution": solution,
            "answer": answer,
            "check": check,
        },
    )


def _full(path: str) -> str:
    return f"{ROOT}/{path}"


def _constant_value(repo: Repository, key: str) -> Task:
    name = choose(sorted(repo.constants), key)
    module, value = repo.constants[name]
    prompt = choose(
        (
            f"What value does {name} have in this project?",
            f"I need the number {name} is set to. Where it stands I don't know.",
            f"Look up {name} in the sources and tell me its value.",
        ),
        key + "/phrase",
    )
    step = [call("Grep", pattern=f"^{name} =", path=_full("src"), output_mode="content")]
    return prompt, [step], f"{name} is {value} (set in {repo.module_path(module)}).", {"answer": [[str(value)]]}


def _where_defined(repo: Repository, key: str) -> Task:
    module = choose(repo.modules, key)
    function, path = repo.functions[module], repo.module_path(module)
    prompt = choose(
        (
            f"Which file defines the function {function}?",
            f"Where is {function} defined?",
            f"Find the file that holds the definition of {function}.",
        ),
        key + "/phrase",
    )
    step = [call("Grep", pattern=f"def {function}", path=_full("src"), output_mode="content")]
    return prompt, [step], f"{function} is defined in {path}.", {"answer": [[path, f"{module}.py", _full(path)]]}


def _count_todos(repo: Repository, key: str) -> Task:
    prompt = choose(
        ("How many TODO comments are there below src?", "Count the TODO comments in src and give me the total."), key
    )
    step = [call("Bash", command=f"grep -rn 'TODO' {_full('src')} | wc -l")]
    return prompt, [step], f"There are {repo.todos} TODO comments below src.", {"answer": [[str(repo.todos)]]}


def _count_tests(repo: Repository, key: str) -> Task:
    count = sum(path.startswith("tests/test_") for path in repo.files)
    prompt = choose(("How many test files does tests/ hold?", "Count the files in tests named test_*.py."), key)
    step = [call("Glob", pattern="test_*.py", path=_full("tests"))]
    words = {2: "two", 3: "three", 4: "four"}[count]
    return prompt, [step], f"tests/ holds {count} test files.", {"answer": [[str(count), words]]}


def _read_port(repo: Repository, key: str) -> Task:
    prompt = choose(
        (
            "Which port does config/server.ini configure?",
            "What port will the server listen on, according to config/server.ini?",
        ),
        key,
    )
    step = [call("Read", file_path=_full("config/server.ini"))]
    return prompt, [step], f"config/server.ini sets port {repo.port}.", {"answer": [[str(repo.port)]]}


def _order_total(repo: Repository, key: str) -> Task:
    prompt = choose(
        (
            "What is the sum of the amount column in data/orders.csv?",
            "Add up all amounts in data/orders.csv and tell me the total.",
        ),
        key,
    )
    step = [
        call("Bash", command=f"awk -F, 'NR > 1 {{ total += $3 }} END {{ print total }}' {_full('data/orders.csv')}")
    ]
    return prompt, [step], f"The amounts add up to {repo.order_total}.", {"answer": [[str(repo.order_total)]]}


def _most_errors(repo: Repository, key: str) -> Task:
    worst = max(repo.errors, key=lambda module: repo.errors[module])
    prompt = choose(
        (
            "Which module has the most ERROR lines in logs/app.log, and how many?",
            "From logs/app.log: name the module with most ERROR entries and their number.",
        ),
        key,
    )
    command = f"grep ERROR {_full('logs/app.log')} | awk '{{ print $3 }}' | sort | uniq -c | sort -rn"
    answer = f"{worst} has the most ERROR lines, {repo.errors[worst]}."
    return prompt, [[call("Bash", command=command)]], answer, {"answer": [[worst], [str(repo.errors[worst])]]}


def _set_constant(repo: Repository, key: str) -> Task:
    name = choose(sorted(repo.constants), key)
    module, old = repo.constants[name]
    new = number(key + "/new", 101, 199)
    path = repo.module_path(module)
    prompt = choose(
        (f"Set {name} to {new}.", f"Please change {name} to {new}, wherever it is defined."), key + "/phrase"
    )
    steps = [
        [call("Grep", pattern=f"^{name} =", path=_full("src"), output_mode="content")],
        [call("Edit", file_path=_full(path), old_string=f"{name} = {old}", new_string=f"{name} = {new}")],
    ]
    check = {"files": {path: {"equals": repo.files[path].replace(f"{name} = {old}", f"{name} = {new}")}}}
    return prompt, steps, f"{name} is now {new} in {path}.", check


def _set_port(repo: Repository, key: str) -> Task:
    new = number(key + "/new", 10001, 19999)
    path = "config/server.ini"
    prompt = f"Change the port in {path} from {repo.port} to {new}."
    step = [call("Edit", file_path=_full(path), old_string=f"port = {repo.port}", new_string=f"port = {new}")]
    check = {"files": {path: {"equals": repo.files[path].replace(f"port = {repo.port}", f"port = {new}")}}}
    return prompt, [step], f"{path} now says port {new}.", check


def _write_file(repo: Repository, key: str) -> Task:
    path = choose(("docs/STATUS.md", "docs/NEXT.md", "NOTICE.md", "docs/OWNERS.md"), key)
    text = f"{repo.package} is reviewed every {number(key + '/days', 3, 21)} days."
    prompt = f"Create the file {path} with exactly this one line:\n{text}"
    step = [call("Write", file_path=_full(path), content=text + "\n")]
    return prompt, [step], f"{path} is written.", {"files": {path: {"equals": text}}}


def _rename_function(repo: Repository, key: str) -> Task:
    index = number(key, 0, len(repo.modules) - 1)
    module, user = repo.modules[index], repo.modules[index - 1]
    old, new = repo.functions[module], f"{repo.functions[module]}_safely"
    homes = [path for path, text in repo.files.items() if path.startswith("src/") and old in text]
    edits = [
        call("Edit", file_path=_full(path), old_string=old, new_string=new, replace_all=True) for path in sorted(homes)
    ]
    prompt = f"Rename the function {old} to {new} everywhere below src (its callers too). Leave the tests alone."
    steps = [[call("Grep", pattern=old, path=_full("src"), output_mode="content")], *[[edit] for edit in edits]]
    check = {"files": {path: {"equals": repo.files[path].replace(old, new)} for path in homes}}
    return prompt, steps, f"Renamed {old} to {new} in {repo.module_path(module)} and {repo.module_path(user)}.", check


def _add_changelog(repo: Repository, key: str) -> Task:
    line = f"- {choose(('Fix', 'Speed up', 'Document'), key)} {repo.functions[repo.modules[1]]}."
    last = repo.files["CHANGELOG.md"].rstrip("\n").splitlines()[-1]
    prompt = f"Add this line at the end of CHANGELOG.md, right below the last entry:\n{line}"
    steps = [
        [call("Read", file_path=_full("CHANGELOG.md"))],
        [call("Edit", file_path=_full("CHANGELOG.md"), old_string=last, new_string=f"{last}\n{line}")],
    ]
    check = {"files": {"CHANGELOG.md": {"equals": repo.files["CHANGELOG.md"].rstrip("\n") + f"\n{line}"}}}
    return prompt, steps, "CHANGELOG.md has the new line.", check


def _delete_file(repo: Repository, key: str) -> Task:
    prompt = choose(
        ("Delete docs/old_notes.md, it is out of date.", "docs/old_notes.md is no longer needed: remove the file."), key
    )
    step = [call("Bash", command=f"rm {_full('docs/old_notes.md')}")]
    return prompt, [step], "docs/old_notes.md is deleted.", {"files": {"docs/old_notes.md": None}}


def _change_owner(repo: Repository, key: str) -> Task:
    new = choose(("nadia", "rafael", "signe", "kofi"), key)
    prompt = f"The project has a new owner: put {new} into team.json instead of the present one."
    steps = [
        [call("Read", file_path=_full("team.json"))],
        [
            call(
                "Edit",
                file_path=_full("team.json"),
                old_string=f'"owner": "{repo.owner}"',
                new_string=f'"owner": "{new}"',
            )
        ],
    ]
    text = repo.files["team.json"].replace(f'"owner": "{repo.owner}"', f'"owner": "{new}"')
    return prompt, steps, f"{new} is the owner in team.json now.", {"files": {"team.json": {"equals": text}}}


FAMILIES: dict[str, Callable[[Repository, str], Task]] = {
    "constant_value": _constant_value,
    "set_port": _set_port,
    "where_defined": _where_defined,
    "set_constant": _set_constant,
    "read_port": _read_port,
    "write_file": _write_file,
    "count_todos": _count_todos,
    "rename_function": _rename_function,
    "order_total": _order_total,
    "add_changelog": _add_changelog,
    "most_errors": _most_errors,
    "delete_file": _delete_file,
    "count_tests": _count_tests,
    "change_owner": _change_owner,
}

"""Suite C: tasks in the sample repository, with a solution and a ground truth made by code.

A task is solved by its end state or its answer, however it was reached; `solution` is one careful way with the file
tools. More than a third of the tasks need three calls or more and are judged by their end state, so that a model which
stops after one or two cannot pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
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


def _largest_order(repo: Repository, key: str) -> Task:
    largest = max(repo.orders)
    prompt = choose(
        ("What is the largest amount in data/orders.csv?", "Look at data/orders.csv: how big is the biggest order?"),
        key,
    )
    step = [call("Read", file_path=_full("data/orders.csv"))]
    return prompt, [step], f"The largest order is over {largest}.", {"answer": [[str(largest)]]}


def _last_error(repo: Repository, key: str) -> Task:
    job = repo.last_failed_job
    prompt = choose(
        ("Which job failed last, according to logs/app.log?", "Look into logs/app.log: what is the last failed job?"),
        key,
    )
    step = [call("Read", file_path=_full("logs/app.log"))]
    return prompt, [step], f"Job {job} failed last.", {"answer": [[str(job)]]}


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


def _replaced(repo: Repository, paths: Iterable[str], old: str, new: str) -> tuple[list[list[Call]], dict[str, Any]]:
    """Return one edit per file that puts a text in an old one's place, and the files as they must be then."""
    chosen = sorted(paths)
    edits = [[call("Edit", file_path=_full(path), old_string=old, new_string=new)] for path in chosen]
    return edits, {"files": {path: {"equals": repo.files[path].replace(old, new)} for path in chosen}}


def _set_port(repo: Repository, key: str) -> Task:
    old, new = str(repo.port), str(number(key + "/new", 10001, 19999))
    prompt = choose(
        (
            f"The server moves from port {old} to {new}: change it in the configuration, the README and the docs.",
            f"Change the port from {old} to {new} wherever it is written.",
        ),
        key,
    )
    homes = [path for path, text in repo.files.items() if old in text]
    edits, check = _replaced(repo, homes, old, new)
    look = [call("Grep", pattern=old, path=ROOT, output_mode="content")]
    return prompt, [look, *edits], f"The port is {new} now, in {', '.join(sorted(homes))}.", check


def _bump_version(repo: Repository, key: str) -> Task:
    old, new = repo.version, f"1.{number(key + '/new', 0, 9)}.0"
    homes = [f"src/{repo.package}/__init__.py", "pyproject.toml", "docs/install.md"]
    prompt = (
        f"Raise the version from {old} to {new} in the package, in pyproject.toml and in docs/install.md. "
        "CHANGELOG.md stays as it is."
    )
    edits, check = _replaced(repo, homes, old, new)
    look = [call("Grep", pattern=re.escape(old), path=ROOT, output_mode="content")]
    return prompt, [look, *edits], f"The version is {new} in {', '.join(sorted(homes))}.", check


def _mend_order(repo: Repository, key: str) -> Task:
    module = choose([module for module in repo.modules if f"tests/test_{module}.py" in repo.files], key)
    path, function = repo.module_path(module), repo.functions[module]
    right, wrong = "sorted(items)", "sorted(items, reverse=True)"
    repo.files[path] = repo.files[path].replace(right, wrong)
    prompt = (
        f"tests/test_{module}.py fails: {function} returns its items in the wrong order. Mend the module, not the test."
    )
    steps = [
        [call("Read", file_path=_full(f"tests/test_{module}.py"))],
        [call("Read", file_path=_full(path))],
        [call("Edit", file_path=_full(path), old_string=wrong, new_string=right)],
    ]
    check = {"files": {path: {"contains": [right], "excludes": ["reverse"]}}}
    return prompt, steps, f"{function} in {path} sorts upwards again.", check


def _write_and_link(repo: Repository, key: str) -> Task:
    name = choose(("FAQ", "GLOSSARY", "SUPPORT", "ROADMAP"), key)
    text = f"Questions about {repo.package} are answered every {number(key + '/days', 2, 28)} days."
    link = f"See [{name}](docs/{name}.md)."
    prompt = (
        f"Create docs/{name}.md with exactly this one line:\n{text}\n"
        f"Then add this line at the very end of README.md:\n{link}"
    )
    last = repo.files["README.md"].rstrip("\n").splitlines()[-1]
    steps = [
        [call("Write", file_path=_full(f"docs/{name}.md"), content=text + "\n")],
        [call("Read", file_path=_full("README.md"))],
        [call("Edit", file_path=_full("README.md"), old_string=last, new_string=f"{last}\n{link}")],
    ]
    readme = repo.files["README.md"].rstrip("\n") + f"\n{link}"
    check = {"files": {f"docs/{name}.md": {"equals": text}, "README.md": {"equals": readme}}}
    return prompt, steps, f"docs/{name}.md is written and linked in README.md.", check


def _workers_from_tests(repo: Repository, key: str) -> Task:
    del key
    count = sum(path.startswith("tests/test_") for path in repo.files)
    path, old, new = "config/server.ini", f"workers = {repo.workers}", f"workers = {count}"
    prompt = "Set workers in config/server.ini to the number of files in tests/ that are named test_*.py."
    edits, check = _replaced(repo, [path], old, new)
    steps = [
        [call("Glob", pattern="test_*.py", path=_full("tests"))],
        [call("Read", file_path=_full(path))],
        *edits,
    ]
    return prompt, steps, f"There are {count} such files, so workers is {count}.", check


def _constant_from_workers(repo: Repository, key: str) -> Task:
    name = choose(sorted(repo.constants), key)
    module, old = repo.constants[name]
    path = repo.module_path(module)
    prompt = f"{name} in the sources has to be the number that workers has in config/server.ini. Change {name}."
    edits, check = _replaced(repo, [path], f"{name} = {old}", f"{name} = {repo.workers}")
    steps = [
        [call("Read", file_path=_full("config/server.ini"))],
        [call("Grep", pattern=f"^{name} =", path=_full("src"), output_mode="content")],
        *edits,
    ]
    return prompt, steps, f"{name} is {repo.workers} now, as workers is.", check


def _total_into_file(repo: Repository, key: str) -> Task:
    path, total = choose(("docs/TOTAL.md", "docs/ORDERS.md", "TOTAL.txt"), key), sum(repo.orders)
    prompt = f"Add up the amounts in data/orders.csv and write {path} with exactly one line: Total: and the sum."
    command = f"awk -F, 'NR > 1 {{ total += $3 }} END {{ print total }}' {_full('data/orders.csv')}"
    steps = [
        [call("Bash", command=command)],
        [call("Write", file_path=_full(path), content=f"Total: {total}\n")],
    ]
    return prompt, steps, f"{path} says that the total is {total}.", {"files": {path: {"equals": f"Total: {total}"}}}


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
    "rename_function": _rename_function,
    "set_constant": _set_constant,
    "mend_order": _mend_order,
    "read_port": _read_port,
    "constant_from_workers": _constant_from_workers,
    "write_file": _write_file,
    "bump_version": _bump_version,
    "count_todos": _count_todos,
    "add_changelog": _add_changelog,
    "largest_order": _largest_order,
    "write_and_link": _write_and_link,
    "last_error": _last_error,
    "total_into_file": _total_into_file,
    "most_errors": _most_errors,
    "workers_from_tests": _workers_from_tests,
    "delete_file": _delete_file,
    "change_owner": _change_owner,
}

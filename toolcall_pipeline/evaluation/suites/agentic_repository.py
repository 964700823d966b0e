"""The sample repository of suite C: a small Python project, different for every seed, whose truth is known by code."""

from __future__ import annotations

import json
from dataclasses import dataclass

from toolcall_pipeline.evaluation.suites.catalogue import choose, shuffled, stable_hash

ROOT = "/work/repo"
_PACKAGES = (
    "billing", "harvest", "ledger", "parcel", "roster", "tidemark", "quarry", "beacon", "orchard", "cargo", "almanac",
    "foundry", "granary", "lantern", "mosaic", "pantry", "quill", "rivet", "saddle", "trellis",
)  # fmt: skip
_MODULES = (
    "pricing", "storage", "notify", "report", "schedule", "parser", "routing", "session", "metrics", "audit", "lookup",
    "export", "quota", "retry", "ranking", "geometry", "calendar", "inbox",
)  # fmt: skip
_VERBS = ("load", "merge", "split", "rank", "collect", "resolve", "format", "apply", "count", "expand", "trim", "weigh")
_NOUNS = ("orders", "batches", "labels", "routes", "tickets", "rows", "shifts", "samples", "invoices", "crates", "tags")
_CONSTANTS = (
    "MAX_RETRIES", "TIMEOUT_SECONDS", "PAGE_SIZE", "CACHE_ENTRIES", "BATCH_LIMIT", "GRACE_DAYS", "WORKER_COUNT",
    "QUEUE_DEPTH", "RETENTION_DAYS", "CHUNK_KILOBYTES",
)  # fmt: skip
_PEOPLE = ("mara", "jonas", "wei", "amina", "tomas", "ilse", "priya", "oskar")


@dataclass(frozen=True)
class Repository:
    """A generated project and what is true of it.

    Attributes:
        files: Relative path to text.
        package, modules: Names; module `m` is the file `src/<package>/<m>.py`.
        functions: Module to the function it defines.
        constants: Constant name to (module, value).
        todos: How many TODO comments there are below `src`.
        version: In `pyproject.toml`, the package and docs/install.md.
        port, host, workers: Of `config/server.ini`; the port also stands in README.md and docs/deploy.md.
        orders: Amounts of `data/orders.csv`, order 1 first.
        errors: Module named in `logs/app.log` to its number of ERROR lines.
        last_failed_job: Number in the last ERROR line of `logs/app.log`.
        owner: Of `team.json`.
    """

    files: dict[str, str]
    package: str
    modules: tuple[str, ...]
    functions: dict[str, str]
    constants: dict[str, tuple[str, int]]
    todos: int
    version: str
    port: int
    host: str
    workers: int
    orders: tuple[int, ...]
    errors: dict[str, int]
    last_failed_job: int
    owner: str

    def module_path(self, module: str) -> str:
        """Return a module's path, relative to the repository."""
        return f"src/{self.package}/{module}.py"


def number(key: str, low: int, high: int) -> int:
    """Return a number from `low` to `high` that depends on nothing but a key."""
    return low + int(stable_hash(key)[:12], 16) % (high - low + 1)


def make_repository(seed: int) -> Repository:
    """Return the repository of a seed; the same seed gives the same bytes."""
    key = f"repository/{seed}"
    package = choose(_PACKAGES, f"{key}/package")
    modules = tuple(shuffled(_MODULES, f"{key}/modules")[:5])
    verbs, nouns = shuffled(_VERBS, f"{key}/verbs"), shuffled(_NOUNS, f"{key}/nouns")
    functions = {module: f"{verbs[index]}_{nouns[index]}" for index, module in enumerate(modules)}
    names = shuffled(_CONSTANTS, f"{key}/constants")[:3]
    constants = {name: (modules[index], number(f"{key}/{name}", 11, 97)) for index, name in enumerate(names)}
    version = f"0.{number(f'{key}/version', 2, 9)}.0"
    files: dict[str, str] = {
        f"src/{package}/__init__.py": f'"""The {package} package."""\n\n__version__ = "{version}"\n'
    }
    todos = 0
    for index, module in enumerate(modules):
        own = {name: value for name, (home, value) in constants.items() if home == module}
        count = number(f"{key}/todo/{module}", 0, 2)
        todos += count
        used = modules[(index + 1) % len(modules)]
        files[f"src/{package}/{module}.py"] = _module(package, module, functions, own, used, count)
    for module in modules[: number(f"{key}/tests", 2, 4)]:
        files[f"tests/test_{module}.py"] = _test(package, module, functions[module])
    port, host = number(f"{key}/port", 4100, 9800), f"{package}-{number(f'{key}/host', 2, 30)}.internal"
    amounts = [number(f"{key}/amount/{row}", 5, 480) for row in range(number(f"{key}/orders", 12, 20))]
    errors = {
        module: number(f"{key}/errors/{module}", 1, 4) + 3 * (index == 0) for index, module in enumerate(modules[:3])
    }
    owner, workers, log = choose(_PEOPLE, f"{key}/owner"), number(f"{key}/workers", 5, 9), _log(key, errors)
    files |= {
        "README.md": f"# {package}\n\nSmall tools around {nouns[0]}. The server listens on port {port}.\n\n"
        f"## Use\n\n    python -m {package}.{modules[0]}\n",
        "CHANGELOG.md": f"# Changelog\n\n## {version}\n\n- First {nouns[1]} release.\n",
        "pyproject.toml": f'[project]\nname = "{package}"\nversion = "{version}"\n',
        "config/server.ini": f"[server]\nhost = {host}\nport = {port}\nworkers = {workers}\n",
        "docs/install.md": f"# Install\n\n    pip install {package}=={version}\n",
        "docs/deploy.md": f"# Deploy\n\nOpen port {port} on {host}, then start the workers.\n",
        "data/orders.csv": "id,customer,amount\n"
        + "".join(
            f"{row + 1},{choose(_PEOPLE, f'{key}/customer/{row}')},{amount}\n" for row, amount in enumerate(amounts)
        ),
        "logs/app.log": log,
        "team.json": json.dumps({"project": package, "owner": owner, "reviewers": _PEOPLE[:2]}, indent=2) + "\n",
        "docs/old_notes.md": f"Notes from before the {nouns[2]} rewrite. Nothing here is current.\n",
    }
    return Repository(
        files=files,
        package=package,
        modules=modules,
        functions=functions,
        constants=constants,
        todos=todos,
        version=version,
        port=port,
        host=host,
        workers=workers,
        orders=tuple(amounts),
        errors=errors,
        last_failed_job=int([line for line in log.splitlines() if "ERROR" in line][-1].split()[-2]),
        owner=owner,
    )


def _module(
    package: str, module: str, functions: dict[str, str], constants: dict[str, int], used: str, todos: int
) -> str:
    lines = [
        f'"""The {module} part of {package}."""',
        "",
        f"from {package}.{used} import {functions[used]} as _next",
        "",
    ]
    lines += [f"{name} = {value}" for name, value in constants.items()]
    lines += ["", f"def {functions[module]}(items):", f'    """Return the items of {module}, in order."""']
    lines += [f"    # TODO: handle an empty {module} ({index + 1})" for index in range(todos)]
    lines += ["    ordered = sorted(items)", "    return ordered", "", "", "def chain(items):"]
    lines += [f'    """Hand the items on to {used}."""', f"    return _next({functions[module]}(items))", ""]
    return "\n".join(lines)


def _test(package: str, module: str, function: str) -> str:
    return (
        f"from {package}.{module} import {function}\n\n\n"
        f"def test_{function}_sorts():\n    assert {function}([3, 1, 2]) == [1, 2, 3]\n"
    )


def _log(key: str, errors: dict[str, int]) -> str:
    lines = [f"INFO {module}: started" for module in errors]
    for module, count in errors.items():
        lines += [
            f"ERROR {module}: job {number(f'{key}/job/{module}/{index}', 100, 999)} failed" for index in range(count)
        ]
    ordered = shuffled(lines, f"{key}/log")
    return "".join(
        f"2026-03-{1 + index % 28:02d}T08:{index % 60:02d}:00Z {line}\n" for index, line in enumerate(ordered)
    )

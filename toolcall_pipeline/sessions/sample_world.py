"""The invented projects the sample sessions are about: small repositories with files, functions, limits and tickets."""

from __future__ import annotations

import random
from dataclasses import dataclass

_OWNERS = ("mira", "tomas", "ines", "jonas", "aiko")
_PROJECTS = ("parcelbox", "tidewatch", "ledgerly", "greenhouse", "roadbook")
_THINGS = {
    "parcelbox": ("parcel", "label", "courier", "depot", "route", "scan", "postage", "customs"),
    "tidewatch": ("tide", "buoy", "sensor", "harbour", "gauge", "alert", "chart", "current"),
    "ledgerly": ("invoice", "account", "rate", "receipt", "budget", "tax", "refund", "payee"),
    "greenhouse": ("plant", "valve", "soil", "lamp", "seedling", "harvest", "vent", "pump"),
    "roadbook": ("trip", "stage", "hotel", "fuel", "ferry", "bridge", "detour", "toll"),
}
_VERBS = ("parse", "load", "merge", "rank", "format", "split", "export", "check", "sort", "clean", "match", "pack")
_LIMITS = ("MAX_{}S", "{}_LIMIT", "DEFAULT_{}", "{}_TIMEOUT", "MIN_{}")
_FAULTS = (
    "an empty list is sorted wrongly",
    "names with accents are cut",
    "the total is off by one",
    "a missing date stops the import",
    "old entries are shown twice",
    "the unit is lost on export",
    "zero is treated as missing",
    "the cache is never cleared",
)


@dataclass(frozen=True)
class SourceFile:
    """One module of an invented project.

    Attributes:
        thing: What it is about.
        path: Absolute path.
        function: Its one function; `line` is where that stands.
        limit: Name of its constant, with `value`.
    """

    thing: str
    path: str
    function: str
    line: int
    limit: str
    value: int

    def source(self) -> list[str]:
        """Return the lines of the file."""
        lines = [f'"""All about one {self.thing}."""', "", f"{self.limit} = {self.value}", ""]
        lines += [""] * (self.line - len(lines) - 1)
        lines += [f"def {self.function}(items):", f"    return sorted(items)[:{self.limit}]"]
        return lines


@dataclass(frozen=True)
class Project:
    """An invented repository and what is known of it."""

    name: str
    owner: str
    root: str
    branch: str
    files: tuple[SourceFile, ...]
    tickets: tuple[tuple[str, str], ...]

    @property
    def slug(self) -> str:
        """Return the folder name Claude Code gives the project."""
        return self.root.replace("/", "-")

    def test_path(self, file: SourceFile) -> str:
        """Return the relative path of a file's tests."""
        return f"tests/test_{file.thing}.py"


def make_projects(chance: random.Random) -> list[Project]:
    """Return the invented projects, each with eight modules and as many tickets."""
    return [_project(chance, name, owner) for name, owner in zip(_PROJECTS, _OWNERS, strict=True)]


def _project(chance: random.Random, name: str, owner: str) -> Project:
    root = f"/home/{owner}/{name}"
    verbs = chance.sample(_VERBS, len(_THINGS[name]))
    files = tuple(
        SourceFile(
            thing=thing,
            path=f"{root}/{name}/{thing}.py",
            function=f"{verb}_{thing}",
            line=chance.randint(6, 9),
            limit=chance.choice(_LIMITS).format(thing.upper()),
            value=chance.randint(2, 90),
        )
        for thing, verb in zip(_THINGS[name], verbs, strict=True)
    )
    key = name[:3].upper()
    faults = chance.sample(_FAULTS, len(files))
    numbers = chance.sample(range(10, 400), len(files))
    tickets = tuple(
        (f"{key}-{number}", f"In {file.thing}.py {fault}.")
        for number, file, fault in zip(numbers, files, faults, strict=True)
    )
    return Project(name, owner, root, chance.choice(("main", "develop", "feature/limits")), files, tickets)

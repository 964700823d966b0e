"""Which tools a row offers: those the agent had, so that choosing is trained.

Where the session says what was offered, that counts. Else, and where its list leaves out tools that it calls (a list of
what came later), the tools seen in that project and agent version, topped up from the same agent where fewer than five
were seen.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.dataset.drafts import Draft, bash_word
from toolcall_pipeline.dataset.schemas import registry

LEAST_TOOLS = 5
_SHELL_PURPOSES = {
    "cat": "read", "head": "read", "tail": "read", "less": "read", "nl": "read",
    "grep": "search", "rg": "search", "ag": "search", "find": "find", "ls": "find", "fd": "find", "tree": "find",
    "sed": "edit", "patch": "edit", "tee": "write", "echo": "write", "touch": "write", "curl": "web", "wget": "web",
}  # fmt: skip


class ToolPools:
    """The tools seen, by project and agent version, and by agent."""

    def __init__(self) -> None:
        self._by_project: dict[tuple[str, str, str | None], Counter[str]] = {}
        self._by_agent: dict[str, Counter[str]] = {}

    def observe(self, draft: Draft) -> None:
        """Count the tools of an episode."""
        names = [call.name for step in draft.steps for call in step.calls] + draft.offered
        key = (project_key(draft.git_remote, draft.project_root), draft.agent, draft.agent_version)
        self._by_project.setdefault(key, Counter()).update(names)
        self._by_agent.setdefault(draft.agent, Counter()).update(names)

    def had(self, draft: Draft, schemas: Mapping[str, Any]) -> list[str]:
        """Return the tools the agent of an episode had, most used first; each has a schema."""
        names = [name for name in dict.fromkeys(draft.offered) if name in schemas]
        if names and all(call.name in names for step in draft.steps for call in step.calls):
            return names
        key = (project_key(draft.git_remote, draft.project_root), draft.agent, draft.agent_version)
        seen = [name for name in _by_use(self._by_project.get(key, Counter())) if name in schemas]
        names = list(dict.fromkeys((*seen, *names)))
        for name in _by_use(self._by_agent.get(draft.agent, Counter())):
            if len(names) >= LEAST_TOOLS:
                break
            if name in schemas and name not in names:
                names.append(name)
        return names


def project_key(git_remote: str | None, project_root: str) -> str:
    """Return what counts as one project: the remote where there is one, else the root."""
    return git_remote or project_root


def _by_use(counts: Counter[str]) -> list[str]:
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def choose_tools(had: Sequence[str], called: Iterable[str], *, seed: int, row_id: str, limit: int) -> list[str]:
    """Return the tools of a row: all that are called in it, others the agent had up to the limit, shuffled by seed."""
    chosen = list(dict.fromkeys(called))
    rng = random.Random(int(sha256_text(f"{seed}\0offer\0{row_id}")[:16], 16))
    others = [name for name in had if name not in chosen]
    # The tools used most are the ones the agent surely had; the rest of the places are drawn.
    room = max(0, limit - len(chosen))
    kept = others[: (room + 1) // 2]
    drawn = others[len(kept) :]
    rng.shuffle(drawn)
    chosen += kept + drawn[: room - len(kept)]
    rng.shuffle(chosen)
    return chosen


def purposes_of_call(name: str, arguments: dict[str, Any]) -> frozenset[str]:
    """Return what a call is for: `read`, `search`, `edit` ...; a shell line by its command."""
    known = registry().get(name)
    purposes = set(known["purposes"]) if known else set()
    if "run" in purposes:
        command = next((value for key, value in arguments.items() if key in {"command", "cmd"}), "")
        line = command if isinstance(command, str) else " ".join(map(str, command))
        word = _SHELL_PURPOSES.get(bash_word(line))
        purposes |= {word} if word else set()
    return frozenset(purposes)


def others_that_fit(name: str, arguments: dict[str, Any], offered: Iterable[str]) -> list[str]:
    """Return the other offered tools that could serve the purpose of a call.

    A shell fits wherever reading, searching, finding, editing or writing files is the purpose.
    """
    wanted = purposes_of_call(name, arguments)
    fitting = []
    for other in offered:
        known = registry().get(other)
        purposes = set(known["purposes"]) if known else set()
        if "run" in purposes:
            purposes |= {"read", "search", "find", "edit", "write"}
        if other != name and purposes & wanted:
            fitting.append(other)
    return fitting

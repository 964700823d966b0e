"""Which project a working directory belongs to, and the rows of `mem_projects`.

What paths say by their form is in `project_paths.py`; `consolidation.py` moves older rows to their roots.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import text

from toolcall_pipeline.errors import StoreError
from toolcall_pipeline.store.project_paths import is_ephemeral, normal_path, path_name, remote_identity, strip_userinfo

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = [
    "ProjectContext",
    "ProjectResolver",
    "ensure_projects",
    "remote_identity",
    "strip_userinfo",
]

SourceKind = Literal["git", "non-git", "ephemeral"]

CACHE_SECONDS = 30.0
CACHE_ENTRIES = 1024
GIT_SECONDS = 2.0
UNKNOWN_PATH = "unknown"


@dataclass(frozen=True, slots=True)
class ProjectContext:
    """What is known of a working directory.

    Attributes:
        full_path: Key of the project's row: the repository's root, or the literal directory where there is none.
        canonical_root_path: Root of the main repository (of a worktree: the repository it belongs to).
        name: Last part of `full_path`.
        source_kind: `git`, `non-git` (also a folder that is gone), `ephemeral` (made by a test or mktemp).
        git_remote: Address without credentials: origin, else upstream, else the first.
        git_branch, git_sha: Today's; of use to live capture only. None when detached or empty.
    """

    full_path: str
    canonical_root_path: str
    name: str
    source_kind: SourceKind
    git_remote: str | None = None
    git_branch: str | None = None
    git_sha: str | None = None


class ProjectResolver:
    """Resolves working directories, remembering each for 30 s; 1,024 at most, the oldest forgotten first."""

    def __init__(
        self,
        *,
        redact: Callable[[str], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        git: str = "git",
    ) -> None:
        """Make a resolver.

        Args:
            redact: Applied to every path, name and address of a result, so that it can be stored.
            clock: Gives seconds.
            git: The git program; where it is missing every folder is `non-git`.
        """
        self._redact = redact
        self._clock = clock
        self._git = git
        self._cache: OrderedDict[str, tuple[float, ProjectContext]] = OrderedDict()

    def resolve(self, cwd: str | None) -> ProjectContext:
        """Return the project of a working directory. A directory that does not exist costs a stat, never an error."""
        key = cwd or ""
        now = self._clock()
        known = self._cache.get(key)
        if known and now - known[0] < CACHE_SECONDS:
            return known[1]
        context = self._redacted(self._look(key))
        self._cache.pop(key, None)
        self._cache[key] = (now, context)
        if len(self._cache) > CACHE_ENTRIES:
            self._cache.popitem(last=False)
        return context

    def stored_form(self, path: str) -> str:
        """Return a path as results carry it: redacted, where this resolver redacts."""
        return self._redact(path) if self._redact else path

    def _look(self, cwd: str) -> ProjectContext:
        path = cwd.replace("\0", "").strip()
        if not path:
            return _context(UNKNOWN_PATH, "non-git")
        path = normal_path(path)
        if is_ephemeral(path):
            return _context(path, "ephemeral")
        # A relative path is relative to a place nobody recorded; looking here would find an unrelated folder.
        if not os.path.isabs(path) or not _is_directory(path):
            return _context(path, "non-git")
        return self._look_at_repository(path) or _context(path, "non-git")

    def _look_at_repository(self, path: str) -> ProjectContext | None:
        lines = self._run(path, "rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir")
        if lines is None or len(lines) != 2:
            return None
        git_dir, common_dir = lines
        root = self._main_root(path, git_dir, common_dir)
        if root is None:
            return None
        if is_ephemeral(root):
            return _context(root, "ephemeral")
        return replace(
            _context(root, "git"),
            git_remote=self._remote(path),
            git_branch=self._run_line(path, "symbolic-ref", "--quiet", "--short", "HEAD"),
            git_sha=self._run_line(path, "rev-parse", "--verify", "--quiet", "HEAD"),
        )

    def _main_root(self, path: str, git_dir: str, common_dir: str) -> str | None:
        """Return the main repository's root: `--show-toplevel` names a worktree's own folder instead."""
        if os.path.realpath(git_dir) == os.path.realpath(common_dir):
            # Inside a bare repository or a `.git` folder there is no top level.
            return self._run_line(path, "rev-parse", "--show-toplevel") or _without_git_folder(common_dir)
        worktree = self._run_line(common_dir, "config", "--get", "core.worktree")
        if worktree:  # the main repository is itself a submodule, its files far from its git folder
            return os.path.normpath(os.path.join(common_dir, worktree))
        return _without_git_folder(common_dir)

    def _remote(self, path: str) -> str | None:
        addresses: dict[str, str] = {}
        for line in self._run(path, "config", "--get-regexp", r"^remote\..*\.url$") or []:
            key, _, address = line.partition(" ")
            addresses.setdefault(key.removeprefix("remote.").removesuffix(".url"), address)
        if not addresses:
            return None
        first = next(iter(addresses.values()))
        return strip_userinfo(addresses.get("origin") or addresses.get("upstream") or first) or None

    def _run_line(self, path: str, *arguments: str) -> str | None:
        lines = self._run(path, *arguments)
        return lines[0] if lines else None

    def _run(self, path: str, *arguments: str) -> list[str] | None:
        """Return the lines git prints, or None where it fails, takes over 2 s or is not there."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        # Only settings are read: a repository of another owner is looked at, nothing it configures is run.
        command = [self._git, "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", path, *arguments]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=GIT_SECONDS,
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired, ValueError):
            return None
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        return lines if done.returncode == 0 and lines else None

    def _redacted(self, context: ProjectContext) -> ProjectContext:
        if self._redact is None:
            return context
        return replace(
            context,
            full_path=self._redact(context.full_path),
            canonical_root_path=self._redact(context.canonical_root_path),
            name=path_name(self._redact(context.full_path)),
            git_remote=self._redact(context.git_remote) if context.git_remote else None,
            git_branch=self._redact(context.git_branch) if context.git_branch else None,
        )


def ensure_projects(connection: Connection, contexts: Sequence[ProjectContext]) -> list[int]:
    """Return the ids of the projects' rows, in order, making those that are missing.

    A known row is filled where it knew nothing. Its kind is corrected too: migration 013 stamps old rows `git`, so a
    `git` without root and remote yields to what was found; one that was once seen as a repository does not.

    Raises:
        StoreError: A row is missing after the insert.
    """
    rows = {context.full_path: context for context in contexts}
    if not rows:
        return []
    ordered = [rows[path] for path in sorted(rows)]
    connection.execute(
        text(
            """
            INSERT INTO mem_projects AS known (name, full_path, canonical_root_path, git_remote, source_kind)
            SELECT * FROM unnest(
                CAST(:names AS text[]), CAST(:paths AS text[]), CAST(:roots AS text[]),
                CAST(:remotes AS text[]), CAST(:kinds AS text[]))
            ON CONFLICT (full_path) DO UPDATE SET
                canonical_root_path = coalesce(known.canonical_root_path, excluded.canonical_root_path),
                git_remote = coalesce(known.git_remote, excluded.git_remote),
                source_kind = excluded.source_kind
            WHERE known.canonical_root_path IS NULL
               OR (known.git_remote IS NULL AND excluded.git_remote IS NOT NULL)
               OR (known.source_kind IS DISTINCT FROM excluded.source_kind AND excluded.source_kind <> 'non-git')
            """
        ),
        {
            "names": [context.name for context in ordered],
            "paths": [context.full_path for context in ordered],
            "roots": [context.canonical_root_path for context in ordered],
            "remotes": [context.git_remote for context in ordered],
            "kinds": [context.source_kind for context in ordered],
        },
    )
    found = connection.execute(
        text("SELECT full_path, id FROM mem_projects WHERE full_path = ANY(CAST(:paths AS text[]))"),
        {"paths": [context.full_path for context in ordered]},
    )
    ids = {path: number for path, number in found}
    missing = sorted(set(rows) - set(ids))
    if missing:
        raise StoreError(f"{len(missing)} of {len(rows)} projects have no row after the insert. Run the night again.")
    return [ids[context.full_path] for context in contexts]


def _context(path: str, kind: SourceKind) -> ProjectContext:
    return ProjectContext(full_path=path, canonical_root_path=path, name=path_name(path), source_kind=kind)


def _is_directory(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _without_git_folder(common_dir: str) -> str:
    path = Path(common_dir)
    return str(path.parent if path.name == ".git" else path)

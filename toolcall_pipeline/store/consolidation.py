"""Move what older rows hold to the project that owns it: the command `projects consolidate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from toolcall_pipeline.store.project_paths import path_name, strip_userinfo
from toolcall_pipeline.store.projects import ProjectContext, ProjectResolver

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine


@dataclass
class ConsolidationReport:
    """What a consolidation did, or would do.

    Attributes:
        committed: False for a dry run: everything below was done and rolled back.
        projects_seen, kinds_corrected, remotes_corrected, roots_created: Counts of rows of `mem_projects`.
        projects_moved: `full_path` of each leaf to the `full_path` of its root.
        rows_moved: Rows by table whose `project_id` changed.
    """

    committed: bool
    projects_seen: int = 0
    kinds_corrected: int = 0
    remotes_corrected: int = 0
    roots_created: int = 0
    projects_moved: dict[str, str] = field(default_factory=dict)
    rows_moved: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class _Project:
    id: int
    full_path: str
    canonical_root_path: str | None
    git_remote: str | None
    source_kind: str | None
    parent_project_id: int | None


def consolidate(
    engine: Engine, resolver: ProjectResolver | None = None, *, commit: bool = False
) -> ConsolidationReport:
    """Correct kinds, roots and remotes of all projects, and move leaves' rows to their roots, in one transaction.

    A leaf is a row whose directory lies inside a repository (or is a worktree of one); its root's row is made where it
    is missing. A directory that is gone belongs to the nearest known repository above it. Calls, prompts, sessions and
    whatever else refers to a project move; no project row is deleted, the leaf names its root as parent.

    Args:
        engine: The store.
        resolver: Looks at directories; its paths must be redacted as the stored ones are.
        commit: Keep the changes. By default everything is done, counted, and rolled back.
    """
    resolver = resolver or ProjectResolver()
    report = ConsolidationReport(committed=commit)
    with engine.connect() as connection, connection.begin() as transaction:
        # Readers go on; a backfill that wants to add a project waits for the end.
        connection.execute(text("LOCK TABLE mem_projects IN SHARE ROW EXCLUSIVE MODE"))
        projects = _load(connection)
        report.projects_seen = len(projects)
        found = {project.id: _resolve(resolver, project) for project in projects}
        roots = {project.full_path: project.id for project in projects}
        for project in projects:
            _correct(connection, project, found[project.id], report)
        git_paths = {item.full_path for item in found.values() if item.source_kind == "git"} | {
            project.full_path for project in projects if _is_known_root(project)
        }
        for project in projects:
            root = _root_of(project, found[project.id], git_paths)
            if root != project.full_path:
                _move(connection, project, root, found[project.id], roots, report)
        if not commit:
            transaction.rollback()
    return report


def _load(connection: Connection) -> list[_Project]:
    rows = connection.execute(
        text(
            "SELECT id, full_path, canonical_root_path, git_remote, source_kind, parent_project_id "
            "FROM mem_projects ORDER BY full_path"
        )
    )
    return [_Project(*row) for row in rows]


def _resolve(resolver: ProjectResolver, project: _Project) -> ProjectContext:
    """Resolve a stored path; where it was redacted, the neutral home is read as this machine's home."""
    context = resolver.resolve(project.full_path)
    home = str(Path.home())
    neutral = resolver.stored_form(home)
    if context.source_kind != "non-git" or neutral == home or not project.full_path.startswith(neutral + "/"):
        return context
    real = resolver.resolve(home + project.full_path[len(neutral) :])
    return real if real.source_kind == "git" else context


def _correct(connection: Connection, project: _Project, found: ProjectContext, report: ConsolidationReport) -> None:
    kind = found.source_kind
    if kind == "non-git" and project.source_kind == "git" and (project.git_remote or project.canonical_root_path):
        kind = "git"  # it was seen as a repository once; that its folder is gone changes nothing
    remote = strip_userinfo(project.git_remote) if project.git_remote else found.git_remote
    root = project.canonical_root_path or found.canonical_root_path
    if kind == "git" and found.source_kind == "git":
        root = found.canonical_root_path
    report.kinds_corrected += kind != project.source_kind
    report.remotes_corrected += remote != project.git_remote
    if (kind, remote, root) != (project.source_kind, project.git_remote, project.canonical_root_path):
        connection.execute(
            text(
                "UPDATE mem_projects SET source_kind = :kind, git_remote = :remote, canonical_root_path = :root "
                "WHERE id = :id"
            ),
            {"kind": kind, "remote": remote, "root": root, "id": project.id},
        )


def _is_known_root(project: _Project) -> bool:
    """Tell whether a row was stored as a repository's root; what migration 013 stamped `git` has neither field."""
    if project.source_kind != "git":
        return False
    if project.canonical_root_path is None:
        return project.git_remote is not None
    return project.canonical_root_path == project.full_path


def _root_of(project: _Project, found: ProjectContext, git_paths: set[str]) -> str:
    if found.source_kind == "git":
        return found.canonical_root_path
    if found.source_kind == "ephemeral" or project.full_path in git_paths:
        return project.canonical_root_path or project.full_path
    for parent in Path(project.full_path).parents:
        if str(parent) in git_paths:
            return str(parent)
    return project.full_path


def _move(
    connection: Connection,
    project: _Project,
    root: str,
    found: ProjectContext,
    roots: dict[str, int],
    report: ConsolidationReport,
) -> None:
    if root not in roots:
        roots[root] = connection.execute(
            text(
                "INSERT INTO mem_projects (name, full_path, canonical_root_path, git_remote, source_kind) "
                "VALUES (:name, :root, :root, :remote, 'git') RETURNING id"
            ),
            {"name": path_name(root), "root": root, "remote": found.git_remote},
        ).scalar_one()
        report.roots_created += 1
    target = roots[root]
    moved = 0
    for table, column in _referring_columns(connection):
        count = connection.execute(
            text(f'UPDATE "{table}" SET "{column}" = :target WHERE "{column}" = :leaf'),
            {"target": target, "leaf": project.id},
        ).rowcount
        report.rows_moved[table] = report.rows_moved.get(table, 0) + count
        moved += count
    if moved or project.parent_project_id != target:
        report.projects_moved[project.full_path] = root
        connection.execute(
            text("UPDATE mem_projects SET parent_project_id = :target WHERE id = :leaf"),
            {"target": target, "leaf": project.id},
        )


def _referring_columns(connection: Connection) -> list[tuple[str, str]]:
    """Return (table, column) of every foreign key to `mem_projects`, except the one to the parent."""
    rows = connection.execute(
        text(
            """
            SELECT source.relname, attribute.attname
            FROM pg_constraint
            JOIN pg_class source ON source.oid = conrelid
            JOIN pg_attribute attribute ON attribute.attrelid = conrelid AND attribute.attnum = conkey[1]
            WHERE contype = 'f' AND confrelid = 'mem_projects'::regclass AND conrelid <> 'mem_projects'::regclass
            ORDER BY 1, 2
            """
        )
    )
    return [(table, column) for table, column in rows]

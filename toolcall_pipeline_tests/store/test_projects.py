"""Projects: what a working directory belongs to, by its repository or by its shape."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.store import projects
from toolcall_pipeline.store.consolidation import consolidate
from toolcall_pipeline.store.project_paths import is_ephemeral, path_name, remote_identity, strip_userinfo
from toolcall_pipeline.store.projects import ProjectContext, ProjectResolver, ensure_projects

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always"]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run([*GIT, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a repository with one commit; what pytest made is not taken for ephemeral here."""
    monkeypatch.setattr(projects, "is_ephemeral", lambda path: False)
    folder = tmp_path / "main"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "a").write_text("a")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a")
    (folder / "sub" / "deep").mkdir(parents=True)
    return folder


def test_a_folder_below_belongs_to_the_repository(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://bot:hush@example.com/me/app.git")
    context = ProjectResolver().resolve(str(repository / "sub" / "deep"))
    assert context.canonical_root_path == context.full_path == str(repository)
    assert (context.source_kind, context.git_branch, context.name) == ("git", "trunk", "main")
    assert context.git_remote == "https://example.com/me/app.git"
    assert context.git_sha is not None
    assert len(context.git_sha) == 40


def test_a_worktree_belongs_to_its_main_repository(repository: Path) -> None:
    git(repository, "worktree", "add", "-q", str(repository.parent / "other"), "-b", "side")
    context = ProjectResolver().resolve(str(repository.parent / "other"))
    assert (context.canonical_root_path, context.git_branch) == (str(repository), "side")


def test_a_submodule_and_its_worktrees_belong_to_the_submodule(repository: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "submodule", "add", "-q", str(repository), "lib")
    git(outer / "lib", "worktree", "add", "-q", str(tmp_path / "libtree"), "-b", "x")
    resolver = ProjectResolver()
    assert resolver.resolve(str(outer / "lib")).canonical_root_path == str(outer / "lib")
    assert resolver.resolve(str(tmp_path / "libtree")).canonical_root_path == str(outer / "lib")


def test_a_worktree_of_a_bare_repository_belongs_to_the_bare_one(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    git(bare, "worktree", "add", "-q", str(tmp_path / "tree"), "trunk")
    assert ProjectResolver().resolve(str(tmp_path / "tree")).canonical_root_path == str(bare)


@pytest.mark.parametrize(
    ("remotes", "expected"),
    [
        (["fork", "upstream", "origin"], "origin"),
        (["fork", "upstream"], "upstream"),
        (["zeta", "alpha"], "zeta"),
        ([], None),
    ],
)
def test_the_remote_is_origin_else_upstream_else_the_first(
    remotes: list[str], expected: str | None, repository: Path
) -> None:
    for name in remotes:
        git(repository, "remote", "add", name, f"ssh://git@example.com/{name}.git")
    remote = ProjectResolver().resolve(str(repository)).git_remote
    assert remote == (f"ssh://example.com/{expected}.git" if expected else None)


def test_a_detached_head_and_an_empty_repository_have_no_branch_or_commit(repository: Path, tmp_path: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    assert ProjectResolver().resolve(str(repository)).git_branch is None
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert ProjectResolver().resolve(str(empty)).git_sha is None


@pytest.mark.parametrize("cwd", [None, "", "/gone/for/good", "relative/path", r"C:\Users\a\app", "/x\0y", "/dev/null"])
def test_what_is_no_folder_here_is_a_project_by_its_literal_path(cwd: str | None) -> None:
    context = ProjectResolver().resolve(cwd)
    assert context.source_kind == "non-git"
    assert context.full_path == ((cwd or "").replace("\0", "") or "unknown")


def test_without_git_or_with_a_git_that_hangs_a_folder_is_still_a_project(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ProjectResolver(git="/no/such/git").resolve(str(repository)).source_kind == "non-git"
    slow = tmp_path / "slow-git"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(projects, "GIT_SECONDS", 0.2)
    assert ProjectResolver(git=str(slow)).resolve(str(repository)).source_kind == "non-git"


def test_an_answer_is_kept_for_thirty_seconds_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    resolver = ProjectResolver(clock=lambda: now[0])
    looked: list[str] = []
    look = resolver._look
    monkeypatch.setattr(resolver, "_look", lambda cwd: looked.append(cwd) or look(cwd))  # type: ignore[func-returns-value]
    resolver.resolve("/gone/a")
    now[0] = 29.9
    resolver.resolve("/gone/a")
    assert looked == ["/gone/a"]
    now[0] = 30.0
    resolver.resolve("/gone/a")
    assert len(looked) == 2
    for number in range(projects.CACHE_ENTRIES):
        resolver.resolve(f"/gone/{number}")
    resolver.resolve("/gone/a")
    assert looked.count("/gone/a") == 3
    assert len(resolver._cache) == projects.CACHE_ENTRIES


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/tmp/tmpabcd", True),
        ("/tmp/tmpk3_9xz1q/repo", True),
        ("/private/tmp/tmp.AbCdEf1234", True),
        ("/tmp/tmp.AbCdEf1234/x", True),
        ("/var/folders/zz/zyx/T/pytest-of-anna/pytest-0/test_x0", True),
        ("/private/var/folders/zz/zyx/T/tmp.AbCd1234", True),
        ("/var/folders/ab/cd_ef/T/build-Ab12Cd", True),
        ("/tmp/pytest-of-root/pytest-3", True),
        ("/var/tmp/tmpq8w7e6r5", True),
        (r"C:\Users\anna\AppData\Local\Temp\tmpab12cd34", True),
        ("/tmp/TestServer123456789/001", True),
        # a project under a name of its own, or the words elsewhere
        ("/tmp/myproject", False),
        ("/tmp", False),
        ("/tmp/tmpl-engine", False),
        ("/home/a/pytest-of-b", False),
        ("/home/a/tmp/tmpabcd1234", False),
        ("/srv/tmp.production", False),
        ("/work/pytest", False),
        ("/var/folders/report", False),
    ],
)
def test_ephemeral_is_a_shape_at_the_temporary_roots_and_not_a_word(path: str, expected: bool) -> None:
    assert is_ephemeral(path) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://u:p@github.com/a/b.git", "https://github.com/a/b.git"),
        ("https://ghp_x@github.com/a/b", "https://github.com/a/b"),
        ("https://u:p@ss@host/a", "https://host/a"),
        ("https://u:p/ss@host/a", "https://host/a"),
        ("https://u:p?s/s#@s@host:8080/a", "https://host:8080/a"),
        ("https://u:12/34@host/a", "https://host/a"),
        ("https://host.org:8080/a@b/c", "https://host.org:8080/a@b/c"),
        ("ssh://git@host:22/a@b", "ssh://host:22/a@b"),
        ("https://host/a?private_token=x#y", "https://host/a"),
        ("ssh://git@host:22/a", "ssh://host:22/a"),
        ("git@host:a/b.git", "host:a/b.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        (r"C:\git\a", r"C:\git\a"),
        ("http://[bad:u@host/a", "http://host/a"),
    ],
)
def test_an_address_is_kept_without_who_and_with_what(address: str, expected: str) -> None:
    assert strip_userinfo(address) == expected
    assert strip_userinfo(expected) == expected


def test_every_form_of_one_address_is_one_repository() -> None:
    forms = ["git@GitHub.com:Me/App.git", "https://x:y@github.com/me/app/", "ssh://git@github.com:22/Me/App.git"]
    assert {remote_identity(form) for form in forms} == {"github.com/me/app"}
    assert remote_identity(None) is None


@pytest.mark.parametrize(("path", "name"), [("/a/b/", "b"), (r"C:\a\b", "b"), ("/", "/"), ("x", "x")])
def test_a_path_is_named_by_its_last_part(path: str, name: str) -> None:
    assert path_name(path) == name


def _context(path: str, kind: str = "non-git", remote: str | None = None) -> ProjectContext:
    return ProjectContext(path, path, path_name(path), kind, remote)  # type: ignore[arg-type]


def test_projects_get_one_row_each_and_keep_their_ids(engine: Engine) -> None:
    contexts = [_context("/b"), _context("/a", "git", "host:a"), _context("/b")]
    with engine.begin() as connection:
        first = ensure_projects(connection, contexts)
        second = ensure_projects(connection, list(reversed(contexts)))
        assert ensure_projects(connection, []) == []
    assert first[0] == first[2] != first[1]
    assert second == list(reversed(first))


def test_a_row_stamped_git_by_the_migration_is_corrected_and_a_known_repository_is_not(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO mem_projects (name, full_path) VALUES ('x', '/stamped'), ('y', '/seen')"))
        ensure_projects(connection, [_context("/seen", "git", "host:y")])
        ensure_projects(connection, [_context("/stamped"), _context("/seen")])
        rows = dict(connection.execute(text("SELECT full_path, source_kind FROM mem_projects")).tuples().all())
    assert rows == {"/stamped": "non-git", "/seen": "git"}


def _populate(engine: Engine, repository: Path) -> None:
    with engine.begin() as connection:
        for path in (str(repository / "sub"), str(repository / "sub" / "gone"), "/tmp/tmpab12cd34", "/elsewhere"):
            connection.execute(
                text("INSERT INTO mem_projects (name, full_path, git_remote) VALUES ('x', :path, :remote)"),
                {"path": path, "remote": "https://u:p@host/x" if path == "/elsewhere" else None},
            )
        connection.execute(
            text(
                "INSERT INTO mem_tool_calls (session_id, project_id, tool_name) SELECT 's', id, 'Bash' FROM mem_projects"
            )
        )


def _paths_of_calls(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT full_path FROM mem_tool_calls JOIN mem_projects p ON p.id = project_id ORDER BY 1")
        )
        return [row[0] for row in rows]


def test_consolidation_is_a_dry_run_until_it_is_committed(engine: Engine, repository: Path) -> None:
    _populate(engine, repository)
    before = _paths_of_calls(engine)

    planned = consolidate(engine)

    assert planned.committed is False
    assert planned.projects_moved == {
        str(repository / "sub"): str(repository),
        str(repository / "sub" / "gone"): str(repository),
    }
    assert _paths_of_calls(engine) == before

    done = consolidate(engine, commit=True)

    assert (done.projects_moved, done.rows_moved, done.roots_created) == (planned.projects_moved, planned.rows_moved, 1)
    assert _paths_of_calls(engine).count(str(repository)) == 2
    with engine.connect() as connection:
        assert (
            connection.execute(text("SELECT git_remote FROM mem_projects WHERE full_path = '/elsewhere'")).scalar()
            == "https://host/x"
        )
        parents = connection.execute(
            text("SELECT count(*) FROM mem_projects WHERE parent_project_id IS NOT NULL")
        ).scalar()
    assert parents == 2
    again = consolidate(engine, commit=True)
    assert (again.projects_moved, sum(again.rows_moved.values()), again.roots_created) == ({}, 0, 0)

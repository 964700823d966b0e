"""`db`, `secrets`, `projects` and `backfill rollback` as typed: exit codes, and what wrong input is told."""

from __future__ import annotations

import gzip
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store.databases import create_database
from toolcall_pipeline.store.server import DatabaseUrls


def run(settings: Settings, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolcall_pipeline.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(Path.home()),
            "TOOLCALL_PIPELINE_HOME": str(settings.home_dir),
            "DATABASE_URL": settings.database_url or "",
        },
    )


@pytest.mark.parametrize("name", ["bad name", "", "1st", "a-b", "x" * 64])
def test_a_database_gets_a_name_that_its_address_can_hold(name: str) -> None:
    with pytest.raises(UsageError, match="lower-case letters"):
        create_database(DatabaseUrls("", ""), name)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("db", "downgrade", "999", "--yes"), 2, "one of 011, 012, 013, 014, 015, 016"),
        (("db", "downgrade", "013"), 2, "give --yes"),
        (("db", "upgrade", "latest"), 2, "no revision 'latest'"),
        (("db", "backup", "--name", "A b"), 2, "lower-case letters"),
        (("db", "restore", "/no/such.sql.gz", "--into", "x"), 6, "is not there"),
        (("secrets", "list", "20200101T000000Z"), 2, "There is no run"),
        (("backfill", "rollback", "20200101T000000Z"), 2, "There is no run"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_wrong_input_is_told_what_is_expected(
    arguments: tuple[str, ...], exit_code: int, says: str, settings: Settings
) -> None:
    done = run(settings, *arguments)
    assert done.returncode == exit_code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_restore_that_fails_leaves_no_database_behind(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    name = f"restored_{os.getpid()}"
    for content in (b"no gzip", gzip.compress(b"SELECT nonsense(;\n-- PostgreSQL database dump complete\n")):
        path = tmp_path / "dump.sql.gz"
        path.write_bytes(content)
        assert run(settings, "db", "restore", str(path), "--into", name).returncode == 3
        with engine.connect() as connection:
            found = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}).all()
        assert not found


_AS_A_USER = """
import sys
from pathlib import Path
from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store.databases import create_database
from toolcall_pipeline.store.server import DatabaseUrls
from toolcall_pipeline.store import migrate, server
settings = Settings(home=Path(sys.argv[1]), DATABASE_URL=None)
urls = server.start(settings, server_settings={"fsync": "off"})
migrate.upgrade(urls.store_url)
print(server.status(settings).running, migrate.current(urls.store_url), server.stop(settings))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; as a user every test shows it")
def test_the_embedded_server_works_for_a_user_who_is_not_root() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="tcp-user-") as folder:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        done = subprocess.run(
            [sys.executable, "-c", _AS_A_USER, f"{folder}/state"],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd=folder,
            env={"HOME": folder, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        if "Permission denied" in done.stderr and not (Path(folder) / "state").exists():
            pytest.skip(f"{sys.executable} or the project is closed to other users")
        assert done.stdout.split() == ["True", "016", "True"], done.stderr
        assert (Path(folder) / "state" / "postgres").stat().st_uid == nobody.pw_uid

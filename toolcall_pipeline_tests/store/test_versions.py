"""The oldest supported PostgreSQL and those between: migrations, a dump and nights on every other server this machine has.

Servers are looked for in the embedded one's wheel, which has an older one too, on the PATH, where Debian keeps them, and in `TOOLCALL_PIPELINE_TEST_POSTGRES_BINS` (folders with
`initdb` and `pg_ctl`, separated by colons).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import backups, migrate, server
from toolcall_pipeline.store.engine import make_engine
from toolcall_pipeline.store.reading import iter_episodes
from toolcall_pipeline.store.rollback import rollback
from toolcall_pipeline_tests.store.test_migrations import Writer, count, populate
from toolcall_pipeline_tests.store.transcripts import NIGHTS, Transcript, night

_OTHERS = "TOOLCALL_PIPELINE_TEST_POSTGRES_BINS"


def _servers() -> dict[int, Path]:
    """Return the folder of programs by major version, the embedded version left out."""
    folders = [Path(folder) for folder in os.environ.get(_OTHERS, "").split(":") if folder]
    folders += sorted(server.binaries_dir().parents[1].glob("pginstall*/bin"))
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if on_path := shutil.which("postgres"):
        folders.append(Path(on_path).resolve().parent)
    found: dict[int, Path] = {}
    for folder in folders:
        if all((folder / name).exists() for name in ("postgres", "initdb", "pg_ctl")):
            shown = subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, text=True, check=False
            ).stdout
            if match := re.search(r"(\d+)\.\d", shown):
                found.setdefault(int(match[1]), folder)
    found.pop(int(server.EMBEDDED_VERSION), None)
    return {version: folder for version, folder in found.items() if version >= server.MINIMUM_VERSION}


_SERVERS = _servers()


@pytest.fixture(params=sorted(_SERVERS) or [0])
def other_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give an empty database of another version, in the store's form."""
    if not request.param:
        pytest.skip(f"no other PostgreSQL is here; install one, or set {_OTHERS}")
    programs = _SERVERS[request.param]
    account = server._account()
    identity = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="tcp-pg-") as folder:
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = f"{folder}/data"

        def run(name: str, *arguments: str) -> None:
            output = subprocess.DEVNULL
            subprocess.run(
                [programs / name, *arguments], check=True, cwd="/", stdout=output, stderr=output, **identity  # type: ignore[call-overload]
            )  # fmt: skip

        run("initdb", "--auth=trust", "-U", "postgres", "--encoding=UTF8", "--locale=C", "-D", data)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-w", "-D", data, "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "-D", data, "stop")


def test_migrations_and_a_dump_on_another_version(other_url: str, tmp_path: Path) -> None:
    migrate.upgrade(other_url, "011")
    populate(other_url, rows=50)
    with Writer(other_url) as writer:
        migrate.upgrade(other_url)
        migrate.upgrade(other_url)
        migrate.downgrade(other_url, "011")
        migrate.upgrade(other_url)
    assert migrate.current(other_url) == migrate.head()
    assert count(other_url, "mem_tool_calls") == 50 + writer.written
    settings = Settings(home=tmp_path, DATABASE_URL=server.libpq_url(other_url))
    urls = server.start(settings)
    with psycopg.connect(server.libpq_url(other_url), autocommit=True) as connection:
        connection.execute("CREATE DATABASE filled")
    report = backups.backup(settings, urls.store_url)
    filled = other_url.replace("/postgres?", "/filled?")
    assert backups.restore(report.path, filled).rows >= 100 + writer.written


def test_two_nights_and_a_rollback_on_another_version(other_url: str, tmp_path: Path) -> None:
    migrate.upgrade(other_url)
    engine = make_engine(other_url)
    settings = Settings(home=tmp_path / "home", DATABASE_URL=server.libpq_url(other_url))
    session = Transcript(tmp_path / "sessions" / "a.jsonl")
    session.turn("Read the plan", "/home/alice/garden/plan.md", "It is short.")
    fork = session.last
    session.turn("Add a shed", "/home/alice/garden/shed.md", "Added.")
    night(settings, engine, tmp_path / "sessions", NIGHTS[0])
    session.last = fork
    session.turn("Add a pond", "/home/alice/garden/pond.md", "Added.")
    night(settings, engine, tmp_path / "sessions", NIGHTS[1])
    assert [episode.prompt_text for episode in iter_episodes(engine)] == ["Read the plan", "Add a pond"]
    rollback(engine, NIGHTS[1])
    assert [episode.prompt_text for episode in iter_episodes(engine)] == ["Read the plan", "Add a shed"]
    engine.dispose()

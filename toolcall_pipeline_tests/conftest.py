"""Fixtures every room shares: databases on one embedded server, and the shared public data."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from filelock import FileLock
from sqlalchemy.engine import Engine, make_url

from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import migrate, server
from toolcall_pipeline.store.engine import make_engine

_SERVER_HOME = "TOOLCALL_PIPELINE_TEST_SERVER_HOME"
_TEMPLATE = "migrated_template"
# A test server is thrown away, so a power cut may take its data.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}


def pytest_configure(config: pytest.Config) -> None:
    """Choose the folder of the test server once, in the controlling process; xdist workers inherit it."""
    if not hasattr(config, "workerinput"):
        os.environ[_SERVER_HOME] = str(Path(tempfile.gettempdir()) / f"tcp-tests-{uuid.uuid4().hex[:12]}")
    for name in ("DATABASE_URL", "TOOLCALL_PIPELINE_HOME", "TOOLCALL_PIPELINE_SESSIONS_DIR"):
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the test server with the controlling process."""
    home = Path(os.environ.get(_SERVER_HOME, ""))
    if not hasattr(config, "workerinput") and home.name.startswith("tcp-tests-") and home.is_dir():
        server.stop(Settings(home=home, DATABASE_URL=None))
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def server_url() -> str:
    """Give the maintenance database of the one test server that all workers share."""
    urls = server.start(Settings(home=Path(os.environ[_SERVER_HOME]), DATABASE_URL=None), server_settings=_FAST)
    return urls.store_url


@pytest.fixture
def postgres_url(server_url: str) -> Iterator[str]:
    """Give a fresh, empty database as an address for SQLAlchemy with psycopg 3."""
    with _fresh_database(server_url, "template0") as url:
        yield url


@pytest.fixture
def engine(server_url: str) -> Iterator[Engine]:
    """Give an engine on a fresh database with all tables."""
    _make_template(server_url)
    with _fresh_database(server_url, _TEMPLATE) as url:
        engine = make_engine(url)
        try:
            yield engine
        finally:
            engine.dispose()


@pytest.fixture
def settings(tmp_path: Path, engine: Engine) -> Settings:
    """Give settings with a home of their own and the database of `engine`."""
    url = server.libpq_url(engine.url.render_as_string(hide_password=False))
    return Settings(home=tmp_path / "home", DATABASE_URL=url)


@pytest.fixture
def dagster_url(server_url: str) -> Iterator[str]:
    """Give a fresh, empty database in the form psycopg2 and dagster-postgres take."""
    with _fresh_database(server_url, "template0") as url:
        yield server.libpq_url(url)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Give the folder with the shared public data, or skip."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("TOOLCALL_PIPELINE_SHARED_DIR", default))
    if not folder.is_dir():
        pytest.skip("the shared data is not here; set TOOLCALL_PIPELINE_SHARED_DIR to its folder")
    return folder


@pytest.fixture(scope="session")
def real_sessions_dir(shared_dir: Path) -> Path:
    """Give the real sessions of the shared data, unpacked once per machine; read only."""
    archive = shared_dir / "data" / "sessions.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not here")
    folder = Path(tempfile.gettempdir()) / f"tcp-real-sessions-{os.geteuid()}-{archive.stat().st_size}"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            with tarfile.open(archive) as tar:
                tar.extractall(partial, filter="data")
            partial.rename(folder)
    return folder


class _fresh_database:
    """A database that lives as long as the `with` block."""

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url = server_url
        self._template = template
        self._name = f"test_{uuid.uuid4().hex}"

    def __enter__(self) -> str:
        _execute(self._server_url, f'CREATE DATABASE "{self._name}" TEMPLATE "{self._template}" STRATEGY file_copy')
        return make_url(self._server_url).set(database=self._name).render_as_string(hide_password=False)

    def __exit__(self, *exception: object) -> None:
        _execute(self._server_url, f'DROP DATABASE "{self._name}" WITH (FORCE)')


def _make_template(server_url: str) -> None:
    lock = FileLock(Path(os.environ[_SERVER_HOME]) / "template.lock")
    with lock, psycopg.connect(server.libpq_url(server_url), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_TEMPLATE,)).fetchone():
            return
        name = f"{_TEMPLATE}_new"
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
        migrate.upgrade(make_url(server_url).set(database=name).render_as_string(hide_password=False))
        connection.execute(f'ALTER DATABASE "{name}" RENAME TO "{_TEMPLATE}"')


def _execute(server_url: str, statement: str) -> None:
    with psycopg.connect(server.libpq_url(server_url), autocommit=True) as connection:
        connection.execute(statement)

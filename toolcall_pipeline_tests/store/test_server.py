"""The embedded server: started once however many ask, found again after a kill, closed to other users."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from toolcall_pipeline.errors import ConfigurationError, StoreError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import server

_FAST = {"fsync": "off"}


@pytest.fixture
def home() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="tcp-server-") as folder:
        settings = Settings(home=Path(folder) / "state", DATABASE_URL=None)
        yield settings
        server.stop(settings)


def test_eight_callers_at_once_start_one_server_with_both_databases(home: Settings) -> None:
    assert server.find(home) is None
    with ThreadPoolExecutor(8) as pool:
        urls = {
            future.result(200) for future in [pool.submit(server.start, home, server_settings=_FAST) for _ in range(8)]
        }
    assert len(urls) == 1
    (url,) = urls
    for address in (server.libpq_url(url.store_url), url.dagster_url):
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert server.find(home) == url
    status = server.status(home)
    assert (status.running, status.is_embedded, (status.version or "").split(".")[0]) == (True, True, "18")


def test_a_server_that_was_killed_starts_again_with_its_rows_although_its_number_is_taken(home: Settings) -> None:
    urls = server.start(home)
    with psycopg.connect(server.libpq_url(urls.store_url)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    pid = server.status(home).pid
    assert pid is not None
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    process.wait(60)
    # The number now belongs to a process that is no server: this one.
    pid_file = home.postgres_dir / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert server.find(home) is None
    urls = server.start(home)
    with psycopg.connect(server.libpq_url(urls.store_url)) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    assert server.stop(home) is True
    assert server.stop(home) is False


def test_a_state_directory_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    long = tmp_path / ("d" * 80) / ("e" * 40)
    assert len(str(server._socket_dir(long))) < 60
    short = Path("/srv/state")
    assert server._socket_dir(short) == short / "run"


def test_a_state_directory_with_a_space_and_a_plus_is_written_as_libpq_reads_it() -> None:
    address = server.libpq_url("postgresql+psycopg://postgres@/db?host=%2Fhome%2Fa%20b%2Bc")
    assert psycopg.conninfo.conninfo_to_dict(address)["host"] == "/home/a b+c"


def test_a_folder_that_is_no_cluster_is_refused_and_left_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, DATABASE_URL=None)
    settings.postgres_dir.mkdir()
    (settings.postgres_dir / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds no PostgreSQL cluster"):
        server.start(settings)
    assert (settings.postgres_dir / "mine.txt").read_text() == "mine"


def test_a_cluster_of_another_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, DATABASE_URL=None)
    settings.postgres_dir.mkdir()
    (settings.postgres_dir / "PG_VERSION").write_text("16\n")
    with pytest.raises(StoreError, match=r"made by PostgreSQL 16.*restore"):
        server.start(settings)


@pytest.mark.parametrize("url", ["mysql://a@b/c", "no address", "postgresql://host:5432"])
def test_an_address_that_is_none_is_a_usage_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        server.start(Settings(home=tmp_path, DATABASE_URL=url))


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/db")
    with pytest.raises(StoreError, match="cannot be used") as caught:
        server.start(settings)
    assert "hunter2" not in str(caught.value)


def test_a_real_server_gets_a_schema_for_dagster_and_is_never_stopped(settings: Settings) -> None:
    urls = server.start(settings)
    with psycopg.connect(urls.dagster_url) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == ("dagster",)
    assert server.stop(settings) is False
    assert server.status(settings).running

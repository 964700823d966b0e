"""One backfill at a time: a PostgreSQL advisory lock that goes with its connection, and says who holds it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator

import psycopg
from sqlalchemy.engine import Engine

from toolcall_pipeline.errors import StoreError
from toolcall_pipeline.store.server import libpq_url

_LOCK_KEY = 0x7C0002
_POLL_SECONDS = 0.2


@contextlib.contextmanager
def writer_lock(engine: Engine, what: str, *, wait_seconds: float, log: logging.Logger) -> Iterator[None]:
    """Hold the lock that writers of session rows take.

    Args:
        engine: The store.
        what: Who we are, shown to whoever waits for us.
        wait_seconds: How long to wait for another holder.
        log: Told once that we wait, and for whom.

    Raises:
        StoreError: Another holder kept it for longer; the message names it.
    """
    url = libpq_url(engine.url.render_as_string(hide_password=False))
    deadline = time.monotonic() + wait_seconds
    name = f"toolcall-pipeline {what} (process {os.getpid()})"[:63]
    with psycopg.connect(url, autocommit=True, application_name=name) as connection:
        told = False
        while not connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()[0]:  # type: ignore[index]
            holder = _holder(connection)
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"Another backfill is writing: {holder}. Waited {wait_seconds:.0f} s. Wait for it to end, or end that "
                    "process, and run this again; nothing was changed."
                )
            if not told:
                log.info("waiting for another backfill: %s", holder)
                told = True
            time.sleep(_POLL_SECONDS)
        yield


def _holder(connection: psycopg.Connection) -> str:
    row = connection.execute(
        "SELECT a.application_name, a.pid, a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %s "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (_LOCK_KEY,),
    ).fetchone()
    if row is None:
        return "a holder that has just gone"
    name, pid, since = row
    return f"{name or 'an unnamed client'}, server process {pid}, since {since:%Y-%m-%d %H:%M:%S %Z}"

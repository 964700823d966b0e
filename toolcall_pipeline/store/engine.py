"""SQLAlchemy engines of the store."""

from __future__ import annotations

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection, Engine

from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import migrate, server


def make_engine(store_url: str) -> Engine:
    """Return an engine (psycopg 3).

    Connections are checked before use, so that a restarted server is no error. Errors never show parameters: these are
    prompts and tool output.
    """
    return create_engine(store_url, pool_pre_ping=True, pool_size=2, max_overflow=4, hide_parameters=True)


def look_keys_up(connection: Connection) -> None:
    """Let the planner look keys up in their indexes, until the connection's transaction ends.

    A night knows the keys of the few rows it needs. Without statistics, as after a first run, the planner would read whole
    tables for them, which grow with everything ever stored.
    """
    connection.execute(
        text(
            "SELECT set_config(name, 'off', true) "
            "FROM unnest(ARRAY['enable_hashjoin', 'enable_mergejoin', 'enable_seqscan', 'jit']) AS name"
        )
    )


def open_store(settings: Settings) -> Engine:
    """Start the server where needed, bring its tables up to date, and return an engine.

    Raises:
        StoreError: The server cannot be reached, or a migration failed.
    """
    urls = server.start(settings)
    migrate.upgrade(urls.store_url)
    return make_engine(urls.store_url)

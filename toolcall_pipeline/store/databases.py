"""Databases beside the store, such as one a dump is restored into."""

from __future__ import annotations

import re

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from toolcall_pipeline.errors import StoreError, UsageError
from toolcall_pipeline.store.server import DatabaseUrls, libpq_url

# Names that an address of a server holds as they are.
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def create_database(urls: DatabaseUrls, name: str) -> str:
    """Create an empty database beside the store and return its address in the store's form.

    Raises:
        UsageError: The name has another form.
        StoreError: A database of this name exists, or the server refused.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"Database name {name!r} is no name. Expected lower-case letters, digits and underscores.")
    try:
        with psycopg.connect(libpq_url(urls.store_url), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise StoreError(
            f"Database {name!r} could not be created: {str(error).strip()}. Choose another name."
        ) from error
    return make_url(urls.store_url).set(database=name).render_as_string(hide_password=False)


def drop_database(urls: DatabaseUrls, name: str) -> None:
    """Drop a database that `create_database` made and that could not be filled.

    Raises:
        StoreError: The server refused.
    """
    try:
        with psycopg.connect(libpq_url(urls.store_url), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise StoreError(f"Database {name!r} could not be dropped: {str(error).strip()}. Drop it by hand.") from error

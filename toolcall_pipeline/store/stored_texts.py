"""Every text a run stored, for whoever has to look at all of them (the secrets gate).

The columns are asked of the database, so that a table or column of a later migration is looked at without being named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

_TEXT_TYPES = ("text", "character varying", "json", "jsonb")
# Identities and hashes of our own making: no text of a session.
_OWN_COLUMNS = ("content_hash", "backfill_run_id", "retention_class", "file_key", "state", "is_direct")
_BATCH_ROWS = 500


def iter_run_texts(engine: Engine, backfill_run_id: str) -> Iterator[tuple[str, str, str]]:
    """Give (table.column, row, text) of every text of a run's rows, and of all projects.

    JSON values are given string by string, as a model would read them, each under its own row. Memory stays at one
    batch of rows.
    """
    with engine.connect().execution_options(stream_results=True, yield_per=_BATCH_ROWS) as connection:
        for table, columns, has_run in _tables(connection):
            selected = ", ".join(f'"{column}"' for column in columns)
            where = "WHERE backfill_run_id = :run" if has_run else ""
            rows = connection.execute(
                text(f'SELECT {selected} FROM "{table}" {where}'), {"run": backfill_run_id} if has_run else {}
            )
            for number, row in enumerate(rows, start=1):
                for column, value in zip(columns, row, strict=True):
                    for part in _strings(value):
                        yield f"{table}.{column}", f"row {number} of the run", part


def _tables(connection: Connection) -> list[tuple[str, list[str], bool]]:
    rows = connection.execute(
        text(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name LIKE 'mem\\_%' ORDER BY table_name, ordinal_position"
        )
    )
    columns: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in rows:
        columns.setdefault(table, []).append((column, kind))
    result = []
    for table, known in columns.items():
        has_run = any(column == "backfill_run_id" for column, _ in known)
        texts = [
            column
            for column, kind in known
            if kind in _TEXT_TYPES and column not in _OWN_COLUMNS and not column.endswith(("_id", "_sha256"))
        ]
        if texts and (has_run or table == "mem_projects"):
            result.append((table, texts, has_run))
    return result


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif value is not None and not isinstance(value, (bool, int, float)):
        yield json.dumps(value, default=str)

"""The ledger: how far each session file was read, by which run (`mem_session_files`).

One row per file and run; the newest run's counts. Removing a run's rows restores what was before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from toolcall_pipeline.sessions.lock import FileState


def load_ledger(engine: Engine, file_keys: Sequence[str] | None = None) -> dict[str, FileState]:
    """Return how far every file, or each of some, was read, by file key."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT DISTINCT ON (file_key) file_key, CAST(state AS text) FROM mem_session_files "
                "JOIN backfill_runs USING (backfill_run_id) "
                "WHERE CAST(:keys AS text[]) IS NULL OR file_key = ANY(CAST(:keys AS text[])) "
                "ORDER BY file_key, freeze_number DESC"
            ),
            {"keys": None if file_keys is None else list(file_keys)},
        )
        decoder = msgspec.json.Decoder(FileState)
        return {key: decoder.decode(state) for key, state in rows.fetchall()}


def files_done(engine: Engine, partition: str) -> set[str]:
    """Return the keys of the files whose rows of this run are stored."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT file_key FROM mem_session_files WHERE backfill_run_id = :run"), {"run": partition}
        )
        return {key for (key,) in rows}


def record_states(connection: Connection, partition: str, states: Sequence[FileState]) -> None:
    """Write how far a run read files, in the transaction that stores their rows."""
    if states:
        connection.execute(
            text(
                "INSERT INTO mem_session_files (file_key, backfill_run_id, next_byte, state) "
                "SELECT state->>'file_key', :run, CAST(state->>'next_byte' AS bigint), state "
                "FROM jsonb_array_elements(CAST(:states AS jsonb)) AS state "
                "ON CONFLICT (file_key, backfill_run_id) DO UPDATE SET "
                "next_byte = excluded.next_byte, state = excluded.state"
            ),
            {"run": partition, "states": msgspec.json.encode(states).decode()},
        )

"""Loading into PostgreSQL against COPY of the same rows into bare tables, and a night with 1 % new bytes.

Run: `python -m benchmarks.loading [SESSIONS_DIR]`; without a folder the shipped sample sessions, copied under new
identities until there are enough, are used. Prints one JSON object. Bars (spec): loading >= 0.2 of bare COPY's rows/s; a
night with 1 % new bytes <= 3 % of the cold run's time on 2 GB or more.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.redaction import load_options
from toolcall_pipeline.sessions.lock import load_lock
from toolcall_pipeline.sessions.sample import write_sample_sessions
from toolcall_pipeline.sessions.stage import freeze_sessions
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store import ledger, loading, runs, server, stage
from toolcall_pipeline.store.engine import open_store
from toolcall_pipeline.store.family_worker import FamilyReader, FamilyRows
from toolcall_pipeline.store.range_nodes import family_files
from toolcall_pipeline.store.rows import COLUMNS

_COPIES = 40


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tcp-bench-") as folder:
        settings = Settings(home=Path(folder) / "home", DATABASE_URL=None)
        engine = open_store(settings)
        try:
            sessions = Path(sys.argv[1]) if len(sys.argv) > 1 else _many_samples(Path(folder) / "sessions")
            print(json.dumps(_measure(settings, engine, sessions), indent=1))
        finally:
            engine.dispose()
            server.stop(settings)


def _many_samples(folder: Path) -> Path:
    for number in range(_COPIES):
        write_sample_sessions(folder / f"copy{number}", seed=number)
    return folder


def _measure(settings: Settings, engine: Engine, sessions: Path) -> dict[str, float]:
    context = StageContext(
        partition="20261101T000000Z-cold",
        configuration=PRESETS["nightly"],
        settings=settings,
        engine=engine,
        log=logging.getLogger("bench"),
    )
    runs.register_run(engine, context.partition, context.configuration)
    artifact = freeze_sessions(context, sessions_dir=sessions, previous=ledger.load_ledger(engine))
    lock = load_lock(artifact)
    families = family_files(engine, artifact, lock, context.partition)
    with engine.connect() as connection:
        tasks = list(stage._tasks(connection, families, lock, {}, context.partition))
    started = time.perf_counter()
    rows = list(map(FamilyReader(load_options(settings)).read, tasks))
    reading_seconds = time.perf_counter() - started
    row_count = sum(sum(family.row_counts.values()) for family in rows)
    bare = min(_bare_copy(engine, rows) for _ in range(3))
    ours = min(_load(engine, context.partition, rows) for _ in range(3))
    read_bytes = sum(file.end_byte - file.start_byte for file in lock.files)
    return {
        "rows": row_count,
        "copy_mb": round(sum(family.size_bytes for family in rows) / 1e6, 1),
        "read_redact_link_one_process_mb_per_second": round(read_bytes / 1e6 / reading_seconds, 1),
        "bare_copy_rows_per_second": round(row_count / bare),
        "loading_rows_per_second": round(row_count / ours),
        "ratio": round(bare / ours, 3),
    }


def _batches(rows: list[FamilyRows]) -> Iterator[list[FamilyRows]]:
    return stage._batches(iter(rows), stage._SESSIONS_PER_BATCH)


def _load(engine: Engine, partition: str, rows: list[FamilyRows]) -> float:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE mem_projects, mem_sessions, mem_session_files, backfill_batches CASCADE"))
        connection.execute(text("TRUNCATE " + ", ".join(table for table in COLUMNS)))
    with engine.connect() as connection:
        loading.prepare_staging(connection)
        started = time.perf_counter()
        for batch in _batches(rows):
            loading.load_batch(connection, partition, batch)
            connection.commit()
        return time.perf_counter() - started


def _bare_copy(engine: Engine, rows: list[FamilyRows]) -> float:
    with engine.begin() as connection:
        for table, columns in COLUMNS.items():
            listed = ", ".join(f"{name} {kind}" for name, kind in columns)
            connection.execute(text(f"DROP TABLE IF EXISTS bare_{table}"))
            connection.execute(text(f"CREATE TABLE bare_{table} ({listed})"))
    with engine.connect() as connection:
        connection.execute(text("SET synchronous_commit = off"))
        connection.commit()
        driver: Any = connection.connection.dbapi_connection
        started = time.perf_counter()
        for batch in _batches(rows):
            for table in COLUMNS:
                copies = [family.copies[table] for family in batch if table in family.copies]
                if copies:
                    with driver.cursor() as cursor, cursor.copy(f"COPY bare_{table} FROM STDIN") as copy:
                        for data in copies:
                            copy.write(data)
            connection.commit()
            driver.commit()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()

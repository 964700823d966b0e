"""The families of a run's locked files, found without reading the files: from the lock and its index of events."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.sessions.events import EventKind
from toolcall_pipeline.sessions.formats import FORMATS
from toolcall_pipeline.sessions.lock import FileState, SessionsLock
from toolcall_pipeline.sessions.stage import EVENTS_NAME, NODES_NAME
from toolcall_pipeline.store.counted_ids import is_counted
from toolcall_pipeline.store.grouping import (
    FileFamily,
    FileNodes,
    group_files,
    sessions_of_calls,
    sessions_of_counted,
    sessions_of_nodes,
    stored_families,
)


def family_files(engine: Engine, sessions: Artifact, lock: SessionsLock, partition: str) -> list[FileFamily]:
    """Return the files that have something to read, grouped into families, in the order of their first file.

    Args:
        engine: The store, asked what earlier runs stored of the nodes in question.
        sessions: The `jsonl_sessions` artifact.
        lock: Its lock.
        partition: The run; its own rows are looked past, so that a run that was broken off groups as before.
    """
    files = files_to_read(sessions, lock)
    families = stored_families(engine, partition)
    if not families:
        return group_files(files, (), families)
    wanted = sorted({node_id for file in files for node_id in file.node_ids})
    with engine.connect() as connection:
        stored = sessions_of_nodes(connection, wanted, partition)
        counted = [node_id for node_id in wanted if is_counted(node_id)]
        if counted:
            stored += sessions_of_counted(connection, counted, partition)
        call_ids = sorted({call_id for file in files for call_id in file.call_ids})
        stored_calls = sessions_of_calls(connection, call_ids, partition)
    return group_files(files, stored, families, stored_calls)


def files_to_read(sessions: Artifact, lock: SessionsLock) -> list[FileNodes]:
    """Return the files that have something to read, with what the `jsonl_sessions` artifact knows of them, in lock order."""
    nodes, calls = _nodes_by_file(sessions), calls_by_file(sessions)
    return [
        FileNodes(
            file,
            frozenset(nodes.get(file.path, set()).union(file.external_parent_ids)),
            frozenset(calls.get(file.path, ())),
        )
        for file in lock.files
        if file.end_byte > file.start_byte and file.format in FORMATS
    ]


def states_without_rows(lock: SessionsLock) -> list[FileState]:
    """Return the new states of files in which there is nothing to read (touched, closed, other programs')."""
    return [
        file.next_state
        for file in lock.files
        if file.next_state is not None and (file.end_byte == file.start_byte or file.format not in FORMATS)
    ]


def _nodes_by_file(sessions: Artifact) -> dict[str, set[str]]:
    import pyarrow.parquet

    found: defaultdict[str, set[str]] = defaultdict(set)
    with pyarrow.parquet.ParquetFile(sessions.path(NODES_NAME)) as index:
        for batch in index.iter_batches(columns=["file", "node_id"]):
            files, node_ids = batch.column("file").to_pylist(), batch.column("node_id").to_pylist()
            for file, node_id in zip(files, node_ids, strict=True):
                found[file].add(node_id)
    return found


def calls_by_file(sessions: Artifact) -> dict[str, set[str]]:
    """Return the event ids of the calls in each file's new range, by the file's path below the sessions folder."""
    import pyarrow.compute
    import pyarrow.parquet

    found: defaultdict[str, set[str]] = defaultdict(set)
    with pyarrow.parquet.ParquetFile(sessions.path(EVENTS_NAME)) as index:
        for batch in index.iter_batches(columns=["file", "event_id", "kind"]):
            calls = batch.filter(pyarrow.compute.equal(batch.column("kind"), EventKind.TOOL_CALL.value))
            for file, event_id in zip(
                calls.column("file").to_pylist(), calls.column("event_id").to_pylist(), strict=True
            ):
                found[file].add(event_id)
    return found

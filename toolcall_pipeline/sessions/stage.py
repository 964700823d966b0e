"""Make the asset `jsonl_sessions`: the session files of a run, frozen and accounted for line by line.

The artifact holds places, identities and hashes and no text, since nothing is redacted yet: `lock.jsonl` (`lock.py`),
`events.parquet` and `nodes.parquet` (columns: `freezing.py`), `quarantine.jsonl`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from toolcall_pipeline.artifacts import Artifact, canonical_json, write_atomically
from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.partition_key import parse_partition_key
from toolcall_pipeline.sessions.discovery import relative_paths
from toolcall_pipeline.sessions.formats import FORMATS, OTHER_FORMAT
from toolcall_pipeline.sessions.freezing import EVENT_COLUMNS, NODE_COLUMNS, FrozenFile, freeze_file, is_as_it_was
from toolcall_pipeline.sessions.lock import LOCK_NAME, FileState, LockHeader, file_key, load_lock
from toolcall_pipeline.sessions.reading import FileAccount
from toolcall_pipeline.sessions.sample import write_sample_sessions
from toolcall_pipeline.stage_context import StageContext

ASSET = "jsonl_sessions"
EVENTS_NAME = "events.parquet"
NODES_NAME = "nodes.parquet"
QUARANTINE_NAME = "quarantine.jsonl"
# Raised when the readers give other events for the same bytes, so that nothing of an older reader is taken for new.
READER_VERSION = 2

# Below this, starting worker processes costs more than they bring (about 0.5 s each, reading 100 MB a second).
_POOL_BYTES = 48 << 20
_MAX_WORKERS = 8
_INTEGERS = frozenset({"line", "byte_offset", "length_bytes"})


def freeze_sessions(context: StageContext, *, sessions_dir: Path | None, previous: Mapping[str, FileState]) -> Artifact:
    """Freeze the session files of a partition, or return what was frozen for it before.

    Args:
        context: The stage's surroundings.
        sessions_dir: Folder with `**/*.jsonl`; None takes the shipped sample sessions.
        previous: File key to how far the file was read in earlier runs.

    Returns:
        The artifact `jsonl_sessions` of the partition. A partition is frozen once: later calls return the same one,
        whatever became of the files.

    Raises:
        PartitionKeyError: The partition is no `backfill_run_id`.
        MissingInputError: The sessions folder is not there.
        UsageError: The partition was frozen from another folder.
    """
    parse_partition_key(context.partition)
    is_sample = sessions_dir is None
    root = (
        (context.settings.home_dir / "sample_sessions")
        if sessions_dir is None
        else sessions_dir.expanduser().absolute()
    )
    frozen = context.artifacts.current(ASSET, context.partition)
    if frozen is not None:
        _require_same_root(frozen, root, context.partition, is_explicit=not is_sample)
        context.log.info("%s of %s is frozen already; files are not looked at again", ASSET, context.partition)
        return frozen
    if is_sample:
        write_sample_sessions(root)
    recipe = {
        "sessions_root": file_key(root, ""),
        "is_sample": is_sample,
        "formats": sorted(FORMATS),
        "reader_version": READER_VERSION,
    }
    with context.artifacts.build(ASSET, context.partition, recipe_of_artifact=recipe) as build:
        build.metadata.update(_freeze_into(build.directory, context, root, is_sample, previous))
    return context.artifacts.require(ASSET, context.partition)


def _require_same_root(frozen: Artifact, root: Path, partition: str, *, is_explicit: bool) -> None:
    taken = load_lock(frozen).root
    if is_explicit and taken != root:
        raise UsageError(
            f"Partition {partition} is frozen from {taken}; it cannot also read {root}. Use a new partition for that folder."
        )


def _freeze_into(
    directory: Path, context: StageContext, root: Path, is_sample: bool, previous: Mapping[str, FileState]
) -> dict[str, Any]:
    paths = relative_paths(root)
    totals = _Totals()
    lock_lines = [msgspec.json.encode(LockHeader(root=str(root), sample=is_sample))]
    quarantine: list[str] = []
    with (
        _ParquetFile(directory / EVENTS_NAME, EVENT_COLUMNS) as events,
        _ParquetFile(directory / NODES_NAME, NODE_COLUMNS) as nodes,
    ):
        for done, file in enumerate(_freeze_all(root, paths, previous), start=1):
            lock_lines.append(msgspec.json.encode(file.locked))
            quarantine.extend(canonical_json(entry) for entry in file.quarantine)
            events.write(file.events)
            nodes.write(file.nodes)
            totals.add(file)
            context.progress(done, len(paths), "files", file.locked.status)
    write_atomically(directory / LOCK_NAME, b"\n".join([*lock_lines, b""]))
    write_atomically(directory / QUARANTINE_NAME, "".join(f"{line}\n" for line in quarantine))
    for warning in totals.warnings:
        context.log.warning(warning)
    return totals.metadata()


def _freeze_all(root: Path, paths: list[str], previous: Mapping[str, FileState]) -> Iterator[FrozenFile]:
    """Yield the frozen files in the order of `paths`, read by several processes where there is enough to read."""
    states = [previous.get(file_key(root, path)) for path in paths]
    freeze = partial(freeze_file, root)
    workers = min(
        _MAX_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if workers < 2 or _new_bytes(root, paths, states) < _POOL_BYTES:
        yield from map(freeze, paths, states)
        return
    # "spawn": a forked child of a process with threads (Dagster, a test runner) may hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(freeze, paths, states, chunksize=4)


def _new_bytes(root: Path, paths: list[str], states: list[FileState | None]) -> int:
    total = 0
    for path, state in zip(paths, states, strict=True):
        try:
            found = os.stat(os.path.join(root, path))
        except OSError:
            continue
        if state is None or not is_as_it_was(found, state):
            total += max(0, found.st_size - (state.next_byte if state is not None and state.format in FORMATS else 0))
        if total >= _POOL_BYTES:
            break
    return total


class _ParquetFile:
    """A Parquet file written one source file at a time."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._schema = pa.schema([(name, pa.int64() if name in _INTEGERS else pa.string()) for name in columns])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def __enter__(self) -> _ParquetFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def write(self, columns: dict[str, list[Any]]) -> None:
        """Add rows given as columns; none is fine."""
        if columns and columns[self._schema.names[0]]:
            batch = pa.RecordBatch.from_pydict(columns, schema=self._schema)
            self._waiting.append(batch)
            self._rows += batch.num_rows
            if self._rows >= 50_000:
                self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
            self._waiting, self._rows = [], 0


class _Totals:
    """Counts over all files, for the manifest."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._sessions: set[str] = set()
        self.warnings: list[str] = []

    def add(self, file: FrozenFile) -> None:
        locked = file.locked
        self._counts["files"] += 1
        self._counts[f"files_{locked.status}"] += 1
        self._counts["files_other_format"] += locked.format == OTHER_FORMAT
        self._counts["files_quarantined"] += bool(file.quarantine)
        self._counts["total_bytes"] += locked.size_bytes
        self._counts["new_bytes"] += locked.end_byte - locked.start_byte
        if locked.account.lines:
            self._counts.update(msgspec.structs.asdict(locked.account))
        self._sessions.update(locked.session_ids)
        if locked.status == "rewritten":
            self.warnings.append(f"{locked.path} was written anew since it was last read; it is read from its start")

    def metadata(self) -> dict[str, Any]:
        names = [f"files_{status}" for status in ("new", "grown", "unchanged", "rewritten", "unreadable")]
        names += [
            "files",
            "files_other_format",
            "files_quarantined",
            "total_bytes",
            "new_bytes",
            *FileAccount.__struct_fields__,
        ]
        return {**{name: self._counts[name] for name in sorted(names)}, "sessions": len(self._sessions)}

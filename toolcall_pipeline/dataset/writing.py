"""Write a dataset's rows: JSON Lines, Parquet, and the tokens that train; the same rows give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from toolcall_pipeline.dataset.masks import IGNORED, EncodedRow, supervised_spans
from toolcall_pipeline.dataset.rows import Row, row_from_disk
from toolcall_pipeline.dataset.turn_tokens import EncodedText
from toolcall_pipeline.errors import DatasetError

_ROW_GROUP_ROWS = 256
Tokens = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Input ids and labels of a row."""


@dataclass(frozen=True)
class BuiltRow:
    """A row and its tokens, ready to be written.

    Attributes:
        on_disk: The row in its form on disk (`rows.py`).
        tools: Its tools, shared by all rows that offer them.
        encoded: Its tokens.
        supervised: Per assistant turn.
        end_of_turn: Whether the ends of supervised turns are supervised.
    """

    on_disk: dict[str, Any]
    tools: Sequence[dict[str, Any]]
    encoded: EncodedText
    supervised: list[bool]
    end_of_turn: bool = True

    @property
    def row(self) -> Row:
        """Return the row, checked."""
        return row_from_disk(self.on_disk, self.tools)

    def tokens(self) -> Tokens:
        """Return the row as it trains: input ids and labels."""
        ids = np.asarray(self.encoded.input_ids, dtype=np.int32)
        labels = np.full_like(ids, IGNORED)
        for start, end in supervised_spans(self.encoded, self.supervised, end_of_turn=self.end_of_turn):
            labels[start:end] = ids[start:end]
        return ids, labels


@dataclass
class WrittenCounts:
    """What was written."""

    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0


def row_schema() -> Any:
    """Return the Arrow schema of rows on disk; `arguments` and `tools` are JSON strings."""
    import pyarrow as pa

    call = pa.struct([("name", pa.string()), ("arguments", pa.string()), ("event_id", pa.string())])
    message = pa.struct(
        [("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(call)), ("supervised", pa.bool_())]
    )
    text = [
        "row_id", "session_id", "family_id", "prompt_event_id", "project_root", "git_remote", "category",
        "backfill_run_id", "recipe", "source_file",
    ]  # fmt: skip
    meta = pa.struct(
        [
            *((name, pa.string()) for name in text),
            ("call_event_ids", pa.list_(pa.string())),
            ("synthetic", pa.bool_()),
            ("source_line", pa.int64()),
        ]
    )
    return pa.schema([("messages", pa.list_(message)), ("tools", pa.string()), ("meta", meta)])


def encoded_schema() -> Any:
    """Return the Arrow schema of the tokens that train."""
    import pyarrow as pa

    return pa.schema(
        [
            ("row_id", pa.string()),
            ("input_ids", pa.list_(pa.int32())),
            ("labels", pa.list_(pa.int32())),
            ("length_tokens", pa.int32()),
            ("supervised_tokens", pa.int32()),
        ]
    )


def write_rows(
    rows: Iterable[BuiltRow],
    *,
    chat: Path,
    parquet: Path,
    encoded: Path,
    tiny: Path,
    tiny_rows: int,
    progress: Callable[[int], None] = lambda done: None,
) -> WrittenCounts:
    """Stream rows into the four files of one split.

    Args:
        rows: In the order of the files.
        chat: Path of the JSON Lines file.
        parquet: Path of the same rows in Parquet.
        encoded: Path of the tokens that train, in Parquet.
        tiny: Path of the small JSON Lines file.
        tiny_rows: The first rows also go to `tiny`.
        progress: Called with the number of rows written.

    Returns:
        Rows and tokens written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = WrittenCounts()
    on_disk: list[dict[str, Any]] = []
    tokens: list[Tokens] = []
    with ExitStack() as stack:
        lines = stack.enter_context(chat.open("wb"))
        few = stack.enter_context(tiny.open("wb"))
        table = stack.enter_context(pq.ParquetWriter(parquet, row_schema(), compression="zstd"))
        ids = stack.enter_context(pq.ParquetWriter(encoded, encoded_schema(), compression="zstd"))
        # Arrow compresses without Python's lock: a thread writes one group of rows while this one makes the next.
        worker = stack.enter_context(ThreadPoolExecutor(max_workers=1))
        writing: Future[None] | None = None

        def write_group(rows: list[dict[str, Any]], row_tokens: list[Tokens]) -> None:
            table.write_table(pa.Table.from_pylist(rows, schema=row_schema()))
            ids.write_table(_encoded_table([row["meta"]["row_id"] for row in rows], row_tokens, counts))

        for built in rows:
            line = orjson.dumps(built.on_disk) + b"\n"
            lines.write(line)
            if counts.rows < tiny_rows:
                few.write(line)
            on_disk.append(built.on_disk)
            tokens.append(built.tokens())
            counts.rows += 1
            if len(on_disk) == _ROW_GROUP_ROWS:
                if writing is not None:
                    writing.result()
                writing = worker.submit(write_group, on_disk, tokens)
                on_disk, tokens = [], []
                progress(counts.rows)
        if writing is not None:
            writing.result()
        if on_disk:
            write_group(on_disk, tokens)
    return counts


def _encoded_table(row_ids: list[str], tokens: Sequence[Tokens], counts: WrittenCounts) -> Any:
    """Return the tokens of some rows as a table of `encoded_schema`, and count them."""
    import pyarrow as pa

    lengths = np.array([len(ids) for ids, _ in tokens], dtype=np.int32)
    supervised = np.array([np.count_nonzero(labels != IGNORED) for _, labels in tokens], dtype=np.int32)
    counts.tokens += int(lengths.sum())
    counts.supervised_tokens += int(supervised.sum())
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(column))) for column in zip(*tokens, strict=True)
    ]
    columns = [pa.array(row_ids), *lists, pa.array(lengths), pa.array(supervised)]
    return pa.Table.from_arrays(columns, schema=encoded_schema())


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSON Lines file.

    Raises:
        DatasetError: A line is no row, or an argument in it is cut.
    """
    for number, row in read_lines(path):
        if row is None:
            raise DatasetError(
                f"{path} line {number} is no row: expected messages, tools and meta, with arguments that are JSON objects. "
                "The file was changed or cut after it was written: build v2_chat_dataset again."
            )
        yield row


def read_lines(path: Path) -> Iterator[tuple[int, Row | None]]:
    """Yield the line numbers of a JSON Lines file with their rows, None where a line is none."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, row_from_disk(orjson.loads(line))
            except (ValueError, TypeError, KeyError):
                yield number, None


def read_encoded(path: Path) -> Iterator[EncodedRow]:
    """Yield the tokens of a Parquet file, a row group at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["row_id", "input_ids", "labels"], batch_size=_ROW_GROUP_ROWS):
            names = batch.column(0).to_pylist()
            ids, labels = batch.column(1), batch.column(2)
            for index, name in enumerate(names):
                yield EncodedRow(name, ids[index].values.to_pylist(), labels[index].values.to_pylist())

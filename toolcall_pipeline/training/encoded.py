"""The encoded rows that train: token ids and labels as the mask proof proved them, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolcall_pipeline.dataset.masks import IGNORED
from toolcall_pipeline.errors import MissingInputError, TrainingError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("row_id", "input_ids", "labels")


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """The rows of one split.

    Attributes:
        table: Columns `row_id`, `input_ids`, `labels`.
        lengths_tokens: Length of each row.
        supervised_tokens: Labels that are trained on, over all rows.
    """

    table: pa.Table
    lengths_tokens: tuple[int, ...]
    supervised_tokens: int

    @property
    def tokens(self) -> int:
        """Return the tokens of all rows."""
        return sum(self.lengths_tokens)


def read_encoded_rows(path: Path, *, max_tokens: int, limit: int | None = None) -> EncodedRows:
    """Read rows and refuse those that could not train as they are.

    Args:
        path: Parquet file.
        max_tokens: Longest row allowed.
        limit: Read only this many, spread evenly.

    Raises:
        MissingInputError: No such file, or columns are missing.
        TrainingError: A row is too long, its labels do not fit its tokens, or nothing in it is supervised.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowInvalid) as error:
        raise MissingInputError(f"{path} holds no encoded rows with columns {COLUMNS}: {error}") from error
    if limit is not None and table.num_rows > limit:
        table = table.take([index * table.num_rows // limit for index in range(limit)])
    lengths: list[int] = []
    supervised = 0
    for batch in table.to_batches(max_chunksize=1024):
        for row_id, ids, labels in zip(*(batch.column(name) for name in COLUMNS), strict=True):
            count = _check_row(row_id.as_py(), ids.values.to_numpy(), labels.values.to_numpy(), max_tokens)
            lengths.append(len(ids))
            supervised += count
    return EncodedRows(table=table, lengths_tokens=tuple(lengths), supervised_tokens=supervised)


def _check_row(row_id: str, ids, labels, max_tokens: int) -> int:  # type: ignore[no-untyped-def]
    if len(ids) > max_tokens:
        raise TrainingError(
            f"Row {row_id} has {len(ids)} tokens, more than the {max_tokens} that fit: a cut row would teach half an "
            "answer, so nothing is cut here. Lower dataset.max_row_tokens and build the dataset again, or raise "
            "training.packed_tokens."
        )
    if len(ids) != len(labels):
        raise TrainingError(
            f"Row {row_id} has {len(ids)} tokens but {len(labels)} labels. Build the dataset again."
        )  # fmt: skip
    mask = labels != IGNORED
    supervised = int(mask[1:].sum())
    if not supervised:
        raise TrainingError(f"Row {row_id} has no supervised token, so it trains nothing. Build the dataset again.")
    if (labels[mask] != ids[mask]).any():
        raise TrainingError(
            f"Row {row_id}: supervised labels differ from the row's own tokens (labels are not shifted). Build the "
            "dataset again."
        )
    return supervised

"""What the gates of `v2_chat_dataset` share: its rows, and what to do when there are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.rows import Row
from toolcall_pipeline.dataset.writing import read_rows

if TYPE_CHECKING:
    from toolcall_pipeline.artifacts import Artifact

SHOWN = 20
BUILD_AGAIN = (
    "Build v2_chat_dataset again; the files were changed after the build, or the code that builds them is at fault."
)

NO_ROWS = "The dataset has no row to judge: the gate min_examples says what to do."
NO_SUITE = "Freeze a suite first (a dataset without one is never clean), then build the dataset again."


def rows_of(artifact: Artifact, *, valid: bool = False) -> Iterator[Row]:
    """Yield the rows of training, or of validation."""
    return read_rows(artifact.path(files.VALID_CHAT if valid else files.TRAIN_CHAT))


def rows_of_both_sides(artifact: Artifact) -> Iterator[tuple[str, Row]]:
    """Yield (`train` or `valid`, row) of both."""
    for side in ("train", "valid"):
        for row in rows_of(artifact, valid=side == "valid"):
            yield side, row

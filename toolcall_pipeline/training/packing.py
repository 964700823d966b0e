"""How rows become batches: packed to a fixed length, or exactly N rows a step; never across each other, never cut."""

from __future__ import annotations

from dataclasses import dataclass

from toolcall_pipeline.errors import ConfigurationError, TrainingError
from toolcall_pipeline.presets import TrainingConfiguration

_MICRO_BATCH_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How an optimiser step is put together on one device.

    Attributes:
        packed_tokens: Length of a packed sequence, 0 where rows are not packed.
        rows_per_batch: Sequences (packed ones, or rows) of one forward pass.
        gradient_accumulation: Forward passes of one step.
        pad_to_multiple_of: Batches are padded to a multiple of this, None where shapes may vary freely.
    """

    packed_tokens: int
    rows_per_batch: int
    gradient_accumulation: int
    pad_to_multiple_of: int | None


def plan_batches(training: TrainingConfiguration, *, device: str, longest_row_tokens: int) -> BatchPlan:
    """Decide how rows become batches.

    Args:
        training: `rows_per_step` asks for exactly that many rows a step; without it rows are packed by
            `packed_tokens`; with neither, one row at a time.
        device: cuda, mps or cpu. Packed sequences are padded to one shape on CUDA; batches of exactly N rows are not,
            since compiled layers take any length (on one H100: 13,091 tokens/s padded to multiples of 1,024, 20,186
            unpadded).
        longest_row_tokens: Longest row of the dataset.

    Raises:
        ConfigurationError: `rows_per_step` cannot be split evenly over the processes.
        TrainingError: A row is longer than a packed sequence.
    """
    if training.rows_per_step is not None:
        return _exact_rows(training, longest_row_tokens)
    if training.packed_tokens == 0:
        return BatchPlan(0, 1, training.gradient_accumulation, None)
    if longest_row_tokens > training.packed_tokens:
        raise TrainingError(
            f"The longest row has {longest_row_tokens} tokens, more than training.packed_tokens = "
            f"{training.packed_tokens}: it would be cut. Raise training.packed_tokens, or lower dataset.max_row_tokens."
        )
    padded = training.packed_tokens if device == "cuda" else None
    return BatchPlan(training.packed_tokens, 1, training.gradient_accumulation, padded)


def _exact_rows(training: TrainingConfiguration, longest_row_tokens: int) -> BatchPlan:
    rows = training.rows_per_step or 1
    if rows % training.process_count:
        raise ConfigurationError(
            f"training.rows_per_step = {rows} cannot be split over training.process_count = {training.process_count}. "
            "Choose a multiple."
        )
    rows //= training.process_count
    most = max(1, max(_MICRO_BATCH_TOKENS, training.packed_tokens) // max(1, longest_row_tokens))
    micro = max(count for count in range(1, rows + 1) if rows % count == 0 and count <= most)
    return BatchPlan(0, micro, rows // micro, None)

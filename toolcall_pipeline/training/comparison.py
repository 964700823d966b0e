"""Whether two forms of a model are the same model: next-token distributions on the dataset's own supervised tokens.

One form's log-probabilities are written down as reference (adapter, or merged model); the others are compared with them
row by row: share of positions with the same most likely token, and mean Kullback-Leibler divergence KL(reference ||
other) in nats. Rows are chosen evenly; of each row the first supervised positions are compared, with everything before
them as context.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.dataset.masks import IGNORED
from toolcall_pipeline.errors import TrainingError
from toolcall_pipeline.training.encoded import EncodedRows, read_encoded_rows

if TYPE_CHECKING:
    import numpy as np
    from peft import PeftModel
    from transformers import PreTrainedModel

POSITIONS_PER_ROW = 48


@dataclass(frozen=True, slots=True)
class Probe:
    """A row's tokens up to the last compared one, and the positions whose next token is compared."""

    row_id: str
    input_ids: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much of a reference another form of the model gives back.

    Attributes:
        same_top_ratio: Share of positions with the same most likely token.
        mean_kl: Mean KL(reference || other), in nats.
        max_kl: Largest, in nats.
        positions_count: Positions compared.
        same_top: Of each row a digit a position: 1 where the most likely token is the same, 0 where it is another.
    """

    same_top_ratio: float
    mean_kl: float
    max_kl: float
    positions_count: int
    same_top: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures, and the positions behind them, as JSON."""
        return {**self.figures(), "same_top": list(self.same_top)}

    def figures(self) -> dict[str, Any]:
        """Return the figures over all rows."""
        return {
            "same_top_ratio": self.same_top_ratio,
            "mean_kl": self.mean_kl,
            "max_kl": self.max_kl,
            "positions_count": self.positions_count,
        }


def choose_probes(valid_file: Path, train_file: Path, *, row_count: int, max_tokens: int) -> list[Probe]:
    """Choose the rows to compare on: validation rows, or training rows where there are none.

    Raises:
        TrainingError: The dataset has no rows.
    """
    rows = read_encoded_rows(valid_file, max_tokens=max_tokens, limit=row_count)
    if not rows.lengths_tokens:
        rows = read_encoded_rows(train_file, max_tokens=max_tokens, limit=row_count)
    probes = list(_probes(rows))
    if not probes:
        raise TrainingError("The dataset has no rows, so two forms of the model cannot be compared.")
    return probes


def _probes(rows: EncodedRows) -> Iterator[Probe]:
    for row in rows.table.to_pylist():
        labels = row["labels"]
        supervised = [index - 1 for index in range(1, len(labels)) if labels[index] != IGNORED]
        positions = tuple(supervised[:POSITIONS_PER_ROW])
        yield Probe(row["row_id"], tuple(row["input_ids"][: positions[-1] + 1]), positions)


def hf_log_probabilities(model: PreTrainedModel | PeftModel, probes: list[Probe]) -> Iterator[np.ndarray]:
    """Return the log-probabilities of a Hugging Face model, per probe as float32 of shape (positions, vocabulary)."""
    import torch

    model.eval()
    for probe in probes:
        ids = torch.tensor([probe.input_ids], device=model.device)
        keep = torch.tensor(probe.positions, device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, logits_to_keep=keep, use_cache=False).logits[0]
            yield torch.log_softmax(logits.double(), dim=-1).float().cpu().numpy()


@contextlib.contextmanager
def recorded(log_probabilities: Iterator[np.ndarray], scratch_dir: Path) -> Iterator[list[np.ndarray]]:
    """Write log-probabilities down for the time of the comparison, so that one model at a time is in memory."""
    import numpy as np

    scratch_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch_dir, prefix=".reference-") as name:
        files: list[Path] = []
        for index, row in enumerate(log_probabilities):
            files.append(Path(name) / f"{index}.npy")
            np.save(files[-1], row)
        yield [np.load(path, mmap_mode="r") for path in files]


def compare(reference: list[np.ndarray], other: Iterator[np.ndarray]) -> Comparison:
    """Compare log-probabilities with the recorded ones, row by row.

    Raises:
        TrainingError: They are not about the same rows, or the vocabularies differ.
    """
    import numpy as np

    same_top: list[str] = []
    divergences = []
    for expected, found in zip(reference, other, strict=True):
        width = min(expected.shape[1], found.shape[1])
        if expected.shape[0] != found.shape[0]:
            raise TrainingError(f"{expected.shape[0]} positions were recorded, {found.shape[0]} compared.")
        # A runtime may pad the vocabulary; what lies beyond the smaller one is no token of either.
        p, q = np.asarray(expected[:, :width], np.float64), np.asarray(found[:, :width], np.float64)
        same_top.append("".join("01"[same] for same in (p.argmax(axis=1) == q.argmax(axis=1)).astype(int)))
        divergences.append((np.exp(p) * (p - q)).sum(axis=1))
    kl = np.maximum(np.concatenate(divergences), 0.0)
    same = sum(row.count("1") for row in same_top)
    return Comparison(same / len(kl), float(kl.mean()), float(kl.max()), len(kl), tuple(same_top))

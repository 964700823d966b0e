"""A GGUF inside this process, for what the comparison needs: token ids and log-probabilities at given positions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.errors import ExportError
from toolcall_pipeline.training.comparison import Probe
from toolcall_pipeline.training.gguf_header import read_gguf_header

if TYPE_CHECKING:
    import numpy as np

_BATCH_TOKENS = 512
_THREADS = max(1, (os.cpu_count() or 1) // 2)
"""llama.cpp's threads wait for each other spinning: on two busy cores, two were five times as slow as one."""


@contextlib.contextmanager
def opened(gguf: Path, *, context_tokens: int = 512, vocab_only: bool = False) -> Iterator[Any]:
    """Load a GGUF for the time of a `with` block.

    Raises:
        ArtifactError: The file is damaged.
        ExportError: llama.cpp cannot load it.
    """
    import llama_cpp

    read_gguf_header(gguf)
    try:
        llama = llama_cpp.Llama(
            str(gguf),
            n_ctx=context_tokens,
            n_batch=_BATCH_TOKENS,
            n_threads=_THREADS,
            n_threads_batch=_THREADS,
            vocab_only=vocab_only,
            verbose=False,
        )
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"llama.cpp cannot load {gguf}: {error}. Make it again.") from error
    try:
        yield llama
    finally:
        llama.close()


def token_ids(llama: Any, text: str) -> list[int]:
    """Return the token ids llama.cpp makes of a rendered prompt."""
    return list(llama.tokenize(text.encode("utf-8"), add_bos=False, special=True))


def gguf_log_probabilities(gguf: Path, probes: list[Probe]) -> Iterator[np.ndarray]:
    """Return a GGUF's log-probabilities, per probe as float32 of shape (positions, vocabulary).

    Raises:
        ArtifactError, ExportError: The file is damaged, or decoding failed.
    """
    longest = max(len(probe.input_ids) for probe in probes)
    with opened(gguf, context_tokens=longest + 1) as llama:
        for probe in probes:
            yield _one(llama, probe)


def _one(llama: Any, probe: Probe) -> np.ndarray:
    import llama_cpp
    import numpy as np

    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(llama.ctx), True)
    wanted = set(probe.positions)
    vocabulary = llama.n_vocab()
    rows: list[np.ndarray] = []
    batch = llama_cpp.llama_batch_init(_BATCH_TOKENS, 0, 1)
    try:
        for start in range(0, len(probe.input_ids), _BATCH_TOKENS):
            piece = probe.input_ids[start : start + _BATCH_TOKENS]
            batch.n_tokens = len(piece)
            for index, token in enumerate(piece):
                batch.token[index] = token
                batch.pos[index] = start + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = int(start + index in wanted)
            code = llama_cpp.llama_decode(llama.ctx, batch)
            if code != 0:
                raise ExportError(f"llama.cpp could not decode {len(piece)} tokens of a dataset row (code {code}).")
            for index in range(len(piece)):
                if start + index in wanted:
                    logits = llama_cpp.llama_get_logits_ith(llama.ctx, index)
                    rows.append(_log_softmax(np.ctypeslib.as_array(logits, shape=(vocabulary,))))
    finally:
        llama_cpp.llama_batch_free(batch)
    return np.stack(rows)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    import numpy as np

    values = logits.astype(np.float64)
    values -= values.max()
    return (values - np.log(np.exp(values).sum())).astype(np.float32)

"""A llama.cpp context of several sequences, by its low-level interface: what each holds, decoding, logits."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.errors import EvaluationError

if TYPE_CHECKING:
    import numpy as np

_BATCH_TOKENS_CPU = 512
_BATCH_TOKENS_GPU = 2048


class SequenceContext:
    """Sequences that are decoded together; a sequence keeps its tokens until it is given others."""

    def __init__(self, model: Any, *, context_tokens: int, sequences: int, threads: int) -> None:
        """Make room for `sequences` of `context_tokens` each.

        Args:
            model: A loaded `llama_model`.
            context_tokens: Of one sequence.
            sequences: How many, 256 at most.
            threads: Of the processor.

        Raises:
            EvaluationError: There is no memory for it.
        """
        import llama_cpp

        self._batch_tokens = _BATCH_TOKENS_GPU if llama_cpp.llama_supports_gpu_offload() else _BATCH_TOKENS_CPU
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context_tokens * sequences
        parameters.n_batch = parameters.n_ubatch = self._batch_tokens
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(model, parameters)
        if self._context is None:
            raise EvaluationError(
                f"llama.cpp has no room for {sequences} sequences of {context_tokens} tokens. Lower "
                "evaluation.sequences (256 at most) or evaluation.context_tokens."
            )
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._batch = _Batch(self._batch_tokens)
        self._held: list[list[int]] = [[] for _ in range(sequences)]

    def closest(self, prompt: Sequence[int], free: Sequence[int]) -> int:
        """Return the free sequence that holds the longest beginning of a prompt."""
        return max(free, key=lambda sequence: _common(self._held[sequence], prompt))

    def prefill(self, sequence: int, prompt: Sequence[int]) -> np.ndarray:
        """Make a sequence hold a prompt, evaluating only what it does not hold yet; return the logits after it."""
        import llama_cpp

        # At least the last token is evaluated, for its logits.
        kept = min(_common(self._held[sequence], prompt), len(prompt) - 1)
        if not llama_cpp.llama_memory_seq_rm(self._memory, sequence, kept, -1):
            # A recurrent memory cannot forget a part.
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            kept = 0
        # Should decoding fail half-way, nothing is taken for held.
        self._held[sequence] = []
        for start in range(kept, len(prompt), self._batch_tokens):
            part = prompt[start : start + self._batch_tokens]
            self._batch.fill(part, range(start, start + len(part)), sequence)
            is_last = start + len(part) == len(prompt)
            self._batch.want([False] * (len(part) - 1) + [is_last])
            self._decode()
        self._held[sequence] = list(prompt)
        return self._logits(1)[0]

    def extend(self, tokens: dict[int, int]) -> np.ndarray:
        """Append one token to each of some sequences; return their logits, one row each, by ascending sequence.

        llama.cpp computes together only what stands in neighbouring sequences, in ascending order; anything else it
        splits, down to one pass for each. So idle sequences in between take part with a token that is forgotten again.
        """
        together = range(min(tokens), max(tokens) + 1)
        idle = [sequence for sequence in together if sequence not in tokens]
        self._forget(idle)
        positions = [len(self._held[sequence]) for sequence in together]
        self._batch.fill([tokens.get(sequence, 0) for sequence in together], positions, together)
        self._batch.want([sequence in tokens for sequence in together])
        self._decode()
        self._forget(idle)
        for sequence, token in tokens.items():
            self._held[sequence].append(token)
        return self._logits(len(tokens))

    def _forget(self, sequences: Sequence[int]) -> None:
        import llama_cpp

        for sequence in sequences:
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            self._held[sequence] = []

    def _decode(self) -> None:
        import llama_cpp

        status = llama_cpp.llama_decode(self._context, self._batch.struct)
        if status != 0:
            raise EvaluationError(
                f"llama.cpp could not decode {self._batch.struct.n_tokens} tokens (status {status}). Lower "
                "evaluation.sequences or evaluation.context_tokens."
            )

    def _logits(self, rows: int) -> np.ndarray:
        """Return the logits that were asked for; valid until the next decoding."""
        import llama_cpp
        import numpy as np

        pointer = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, shape=(rows, self._vocabulary_size))

    def close(self) -> None:
        """Free the context."""
        import llama_cpp

        llama_cpp.llama_free(self._context)


class _Batch:
    """A `llama_batch` over arrays of ours, so that filling it is one copy."""

    def __init__(self, capacity: int) -> None:
        import llama_cpp
        import numpy as np

        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        base = self._sequences.ctypes.data
        addresses = [base + index * self._sequences.itemsize for index in range(capacity)]
        self._addresses = np.array(addresses, np.uintp)
        int32, int8 = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int8)
        self.struct = llama_cpp.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(int32),
            embd=None,
            pos=self._positions.ctypes.data_as(int32),
            n_seq_id=self._counts.ctypes.data_as(int32),
            seq_id=self._addresses.ctypes.data_as(ctypes.POINTER(int32)),
            logits=self._wanted.ctypes.data_as(int8),
        )

    def fill(self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int] | int) -> None:
        count = len(tokens)
        self.struct.n_tokens = count
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._sequences[:count] = sequences

    def want(self, logits: Sequence[bool]) -> None:
        self._wanted[: len(logits)] = logits


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how long the common beginning of two texts is, in tokens."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))

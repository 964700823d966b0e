"""A llama.cpp context of several sequences, by its low-level interface: what each holds, decoding, logits."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.errors import EvaluationError

if TYPE_CHECKING:
    import numpy as np

# Prompts are evaluated in whole chunks from their beginning, and what is kept of another prompt are whole chunks: the
# sums, and so the completion, of a prompt are the same whatever was evaluated before it.
_CHUNK_TOKENS_CPU = 128
_CHUNK_TOKENS_GPU = 512
_COMPARED_TOKENS = 64


@dataclass(slots=True)
class _Held:
    """What a sequence holds: its tokens, and how many of them were evaluated as a prompt."""

    tokens: list[int]
    prefilled_tokens: int


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

        self._chunk_tokens = _CHUNK_TOKENS_GPU if llama_cpp.llama_supports_gpu_offload() else _CHUNK_TOKENS_CPU
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context_tokens * sequences
        parameters.n_batch = parameters.n_ubatch = max(self._chunk_tokens, sequences)
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
        self._batch = _Batch(parameters.n_batch)
        self._held = [_Held([], 0) for _ in range(sequences)]

    def prefill(self, prompt: Sequence[int], free: Sequence[int]) -> tuple[int, np.ndarray]:
        """Make a free sequence hold a prompt, evaluating only the chunks that no sequence holds yet.

        Args:
            prompt: Token ids, at least one.
            free: Sequences that may be overwritten, ascending.

        Returns:
            The sequence, and the logits after the prompt.
        """
        shared = [self._shared_tokens(held, prompt) for held in self._held]
        donor = max(range(len(shared)), key=shared.__getitem__)
        sequence = max(free, key=shared.__getitem__)
        if shared[sequence] < shared[donor]:
            sequence = free[0]
            self.copy(donor, sequence)
        start = self._keep(sequence, shared[donor])
        # Should decoding fail half-way, nothing is taken for held.
        self._held[sequence] = _Held([], 0)
        for first in range(start, len(prompt), self._chunk_tokens):
            chunk = prompt[first : first + self._chunk_tokens]
            self._batch.fill(chunk, range(first, first + len(chunk)), sequence)
            self._batch.want([False] * (len(chunk) - 1) + [first + len(chunk) == len(prompt)])
            self._decode()
        self._held[sequence] = _Held(list(prompt), len(prompt))
        return sequence, self._logits(1)[0]

    def extend(self, tokens: Sequence[int]) -> np.ndarray:
        """Append one token to each of the first sequences, in one pass; return their logits, one row each.

        llama.cpp computes together only what stands in neighbouring sequences, in ascending order; anything else it
        splits, down to one pass for each.
        """
        sequences = range(len(tokens))
        self._batch.fill(tokens, [len(self._held[sequence].tokens) for sequence in sequences], sequences)
        self._batch.want([True] * len(tokens))
        self._decode()
        for sequence, token in enumerate(tokens):
            self._held[sequence].tokens.append(token)
        return self._logits(len(tokens))

    def copy(self, source: int, target: int) -> None:
        """Make one sequence hold what another does."""
        import llama_cpp

        llama_cpp.llama_memory_seq_rm(self._memory, target, -1, -1)
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        held = self._held[source]
        self._held[target] = _Held(list(held.tokens), held.prefilled_tokens)

    def _shared_tokens(self, held: _Held, prompt: Sequence[int]) -> int:
        """Return how many tokens of a prompt a sequence holds as they would be evaluated: whole chunks of a prompt.

        At least the last token of the prompt is evaluated, for its logits.
        """
        common = min(_common(held.tokens, prompt), held.prefilled_tokens, len(prompt) - 1)
        return common - common % self._chunk_tokens

    def _keep(self, sequence: int, tokens: int) -> int:
        """Forget all but the first tokens of a sequence; return how many it kept: a recurrent memory keeps all or none."""
        import llama_cpp

        if llama_cpp.llama_memory_seq_rm(self._memory, sequence, tokens, -1):
            return tokens
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0

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
    end = min(len(left), len(right))
    start = 0
    while (
        start + _COMPARED_TOKENS <= end
        and left[start : start + _COMPARED_TOKENS] == right[start : start + _COMPARED_TOKENS]
    ):
        start += _COMPARED_TOKENS
    return next((index for index in range(start, end) if left[index] != right[index]), end)

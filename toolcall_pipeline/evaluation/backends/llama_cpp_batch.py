"""Several sequences of one GGUF file decoded together, by llama.cpp's low-level batch interface.

Not the same tokens as one at a time: sums are made in another order. A gated run uses this only where
`runner.agreement` showed the outcomes equal for the model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.llama_cpp_backend import LlamaCppBackend, thread_count
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request

_BATCH_TOKENS = 512


@dataclass
class _Sequence:
    """One completion under way."""

    index: int
    request: Request
    prompt: list[int]
    limit: int
    sampler: Any
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def is_running(self) -> bool:
        return not self.ended and len(self.tokens) < self.limit


class BatchedLlamaCppBackend(LlamaCppBackend):
    """Static batches: as many prompts as sequences, decoded until the last has ended."""

    def __init__(self, path: Path, *, context_tokens: int, sequences: int) -> None:
        """Load a GGUF file with room for several sequences.

        Raises:
            EvaluationError: llama.cpp cannot load it, or has no memory for the context.
        """
        import llama_cpp

        # The parent keeps the model, its tokenizer and template; its own context is never decoded with.
        super().__init__(path, context_tokens=min(context_tokens, 512))
        self._context_tokens = context_tokens
        self.width = sequences
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context_tokens * sequences
        parameters.n_batch = _BATCH_TOKENS
        parameters.n_ubatch = _BATCH_TOKENS
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = thread_count()
        context = llama_cpp.llama_init_from_model(self._model._model.model, parameters)
        if context is None:
            self._model.close()
            raise EvaluationError(
                f"llama.cpp has no memory for {sequences} sequences of {context_tokens} tokens. Lower "
                "evaluation.sequences or evaluation.context_tokens."
            )
        self._context = context
        self._memory = llama_cpp.llama_get_memory(context)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model._model.model)
        self._batch = llama_cpp.llama_batch_init(_BATCH_TOKENS, 0, 1)

    def generate_batch(self, requests: Sequence[Request]) -> list[Generation]:
        """Return one generation per request, at most `width` of them decoded at a time."""
        results: list[Generation] = []
        for start in range(0, len(requests), self.width):
            results.extend(self._generate_together(requests[start : start + self.width]))
        return results

    def _generate_together(self, requests: Sequence[Request]) -> list[Generation]:
        import llama_cpp

        llama_cpp.llama_memory_clear(self._memory, True)
        results: dict[int, Generation] = {}
        running: list[_Sequence] = []
        try:
            for index, request in enumerate(requests):
                prompt = self.render(request)
                room = self._context_tokens - len(prompt)
                if room < 1:
                    error = f"the prompt has {len(prompt)} tokens, the context {self._context_tokens}"
                    results[index] = Generation(raw="", prompt_tokens=len(prompt), error=error)
                    continue
                sequence = _Sequence(
                    index, request, prompt, min(request.max_new_tokens, room), self._make_sampler(request)
                )
                running.append(sequence)
                self._prefill(sequence)
            self._decode(running)
        finally:
            for sequence in running:
                llama_cpp.llama_sampler_free(sequence.sampler)
        results |= {sequence.index: self._read(sequence) for sequence in running}
        return [results[index] for index in range(len(requests))]

    def _prefill(self, sequence: _Sequence) -> None:
        """Evaluate a prompt, and sample its first token while the logits are there."""
        prompt = sequence.prompt
        for start in range(0, len(prompt), _BATCH_TOKENS):
            part = prompt[start : start + _BATCH_TOKENS]
            is_last = start + len(part) == len(prompt)
            entries = [
                (token, start + offset, sequence.index, is_last and offset == len(part) - 1)
                for offset, token in enumerate(part)
            ]
            self._evaluate(entries)
        self._sample(sequence, len(prompt[(len(prompt) - 1) // _BATCH_TOKENS * _BATCH_TOKENS :]) - 1)

    def _decode(self, sequences: Sequence[_Sequence]) -> None:
        """Decode one token of every running sequence at a time."""
        while True:
            running = [sequence for sequence in sequences if sequence.is_running]
            if not running:
                return
            self._evaluate(
                [
                    (sequence.tokens[-1], len(sequence.prompt) + len(sequence.tokens) - 1, sequence.index, True)
                    for sequence in running
                ]
            )
            for position, sequence in enumerate(running):
                self._sample(sequence, position)

    def _sample(self, sequence: _Sequence, position: int) -> None:
        import llama_cpp

        token = llama_cpp.llama_sampler_sample(sequence.sampler, self._context, position)
        if llama_cpp.llama_vocab_is_eog(self._vocabulary, token):
            sequence.ended = True
        else:
            sequence.tokens.append(token)

    def _evaluate(self, entries: Sequence[tuple[int, int, int, bool]]) -> None:
        """Decode (token, position, sequence, logits wanted) entries in one batch."""
        import llama_cpp

        batch = self._batch
        batch.n_tokens = len(entries)
        for index, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise EvaluationError(
                f"llama.cpp could not decode {len(entries)} tokens (status {status}). Lower evaluation.sequences."
            )

    def _make_sampler(self, request: Request) -> Any:
        import llama_cpp

        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if request.grammar:
            from toolcall_pipeline.evaluation.grammar import grammar_of_tools

            text = grammar_of_tools(request.tools).encode("utf-8")
            llama_cpp.llama_sampler_chain_add(
                chain, llama_cpp.llama_sampler_init_grammar(self._vocabulary, text, b"root")
            )
        if request.temperature <= 0:
            llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_greedy())
            return chain
        for sampler in (
            llama_cpp.llama_sampler_init_top_k(40),
            llama_cpp.llama_sampler_init_top_p(ctypes.c_float(0.95), 1),
            llama_cpp.llama_sampler_init_min_p(ctypes.c_float(0.05), 1),
            llama_cpp.llama_sampler_init_temp(ctypes.c_float(request.temperature)),
            llama_cpp.llama_sampler_init_dist(request.seed),
        ):
            llama_cpp.llama_sampler_chain_add(chain, sampler)
        return chain

    def _read(self, sequence: _Sequence) -> Generation:
        raw = self._model.detokenize(sequence.tokens, prev_tokens=sequence.prompt[-1:], special=True)
        return Generation(
            raw=raw.decode("utf-8", "replace"),
            prompt_tokens=len(sequence.prompt),
            completion_tokens=len(sequence.tokens),
            hit_token_limit=not sequence.ended,
        )

    def close(self) -> None:
        """Free the context, then the model."""
        import llama_cpp

        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        super().close()

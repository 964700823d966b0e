"""GGUF in process: llama-cpp-python, the file's own embedded template, raw completions.

Raw rather than chat completions, since a chat endpoint parses a call away and hides what the model writes after it.
One sequence, or several decoded together: a place that falls free is filled at once with the next request. Together
does not give the same tokens as one at a time, since sums are made in another order; a gated run uses several only
where `runner.agreement` showed the outcomes equal for the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.artifacts import sha256_file
from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.llama_cpp_context import SequenceContext
from toolcall_pipeline.evaluation.backends.llama_cpp_sampling import TokenPicker
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request, RequestSource
from toolcall_pipeline.evaluation.cases import ModelIdentity
from toolcall_pipeline.llama_cpp_log import silence_llama_cpp

if TYPE_CHECKING:
    import numpy as np

# From here on, picking tokens on several threads gains more than it costs.
_THREADED_FROM = 8


@dataclass
class _Completion:
    """One completion under way."""

    number: int
    prompt: list[int]
    limit: int
    picker: TokenPicker
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def is_over(self) -> bool:
        return self.ended or len(self.tokens) >= self.limit


class LlamaCppBackend:
    """A GGUF file. What a prompt shares with the one before in its sequence is evaluated once."""

    def __init__(self, path: Path, *, context_tokens: int, sequences: int = 1) -> None:
        """Load a GGUF file.

        Args:
            path: The file.
            context_tokens: Longest prompt and completion together; less where the model was trained on less.
            sequences: Completions decoded together.

        Raises:
            EvaluationError: llama.cpp cannot load it, it carries no chat template, or there is no memory.
        """
        import llama_cpp

        silence_llama_cpp()
        threads = thread_count()
        try:
            # It tokenizes; its own context is never decoded with, so it is as small as can be.
            self._model = llama_cpp.Llama(
                model_path=str(path),
                n_ctx=32,
                n_batch=32,
                n_ubatch=32,
                n_gpu_layers=-1,
                n_threads=threads,
                verbose=False,
            )
        except (ValueError, OSError, AssertionError) as error:
            raise EvaluationError(
                f"llama.cpp cannot load {path} ({error}). Expected a whole GGUF file; export it again."
            ) from error
        metadata, model = self._model.metadata, self._model._model.model
        try:
            self._formatter = make_formatter(self._model, metadata, path)
            self._context_tokens = min(context_tokens, llama_cpp.llama_model_n_ctx_train(model))
            self._context = SequenceContext(
                model, context_tokens=self._context_tokens, sequences=sequences, threads=threads
            )
        except EvaluationError:
            self._model.close()
            raise
        self._sequences = sequences
        self._vocabulary = llama_cpp.llama_model_get_vocab(model)
        self._threads = min(8, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads)
        self.identity = ModelIdentity(
            name=metadata.get("general.name") or path.name,
            sha256=sha256_file(path),
            path=str(path),
            quantisation=quantisation_of(metadata, path),
            backend="llama-cpp",
        )

    def render(self, request: Request) -> list[int]:
        """Return the prompt's tokens, rendered through the file's embedded template."""
        rendered = self._formatter(messages=list(request.messages), tools=list(request.tools) or None)
        return list(
            self._model.tokenize(
                rendered.prompt.encode("utf-8", "surrogatepass"), add_bos=not rendered.added_special, special=True
            )
        )

    def generate(self, take: RequestSource) -> Iterator[tuple[int, Generation]]:
        """Yield generations as they end; every free sequence takes the next request."""
        running: dict[int, _Completion] = {}
        try:
            while True:
                while len(running) < self._sequences and (taken := take()) is not None:
                    refused = self._start(running, *taken)
                    if refused is not None:
                        yield taken[0], refused
                if not running:
                    return
                over = [sequence for sequence, completion in running.items() if completion.is_over]
                for sequence in over:
                    completion = running.pop(sequence)
                    completion.picker.close()
                    yield completion.number, self._read(completion)
                if not over:
                    self._advance(running)
        finally:
            for completion in running.values():
                completion.picker.close()

    def _start(self, running: dict[int, _Completion], number: int, request: Request) -> Generation | None:
        """Evaluate a prompt in a free sequence and pick its first token; return the error of one that does not fit."""
        prompt = self.render(request)
        room = self._context_tokens - len(prompt)
        if room < 1:
            error = f"the prompt has {len(prompt)} tokens, the context {self._context_tokens}"
            return Generation(raw="", prompt_tokens=len(prompt), error=error)
        free = [sequence for sequence in range(self._sequences) if sequence not in running]
        sequence = self._context.closest(prompt, free)
        picker = TokenPicker(request, self._vocabulary)
        completion = _Completion(number, prompt, min(request.max_new_tokens, room), picker)
        running[sequence] = completion
        self._add(completion, picker.pick(self._context.prefill(sequence, prompt)))
        return None

    def _advance(self, running: dict[int, _Completion]) -> None:
        """Decode one token of every running sequence."""
        completions = [running[sequence] for sequence in sorted(running)]
        rows = self._context.extend({sequence: completion.tokens[-1] for sequence, completion in running.items()})
        # llama.cpp and numpy compute without Python's lock; a few rows are not worth a thread.
        threads = self._threads if len(completions) >= _THREADED_FROM else 1
        shares = [slice(first, None, threads) for first in range(threads)]
        mapped = map if threads == 1 else self._pool.map
        picked = mapped(_pick, [completions[share] for share in shares], [rows[share] for share in shares])
        for share, tokens in zip(shares, picked, strict=True):
            for completion, token in zip(completions[share], tokens, strict=True):
                self._add(completion, token)

    def _add(self, completion: _Completion, token: int) -> None:
        import llama_cpp

        if llama_cpp.llama_vocab_is_eog(self._vocabulary, token):
            completion.ended = True
        else:
            completion.tokens.append(token)

    def _read(self, completion: _Completion) -> Generation:
        raw = self._model.detokenize(completion.tokens, prev_tokens=completion.prompt[-1:], special=True)
        return Generation(
            raw=raw.decode("utf-8", "replace"),
            prompt_tokens=len(completion.prompt),
            completion_tokens=len(completion.tokens),
            hit_token_limit=not completion.ended,
        )

    def close(self) -> None:
        """Free the context, then the model."""
        self._pool.shutdown()
        self._context.close()
        self._model.close()


def _pick(completions: Sequence[_Completion], rows: np.ndarray) -> list[int]:
    """Return the next token of each completion."""
    best = rows.argmax(axis=1).tolist()
    return [
        token if completion.picker.is_plain else completion.picker.pick(logits)
        for completion, token, logits in zip(completions, best, rows, strict=True)
    ]


def thread_count() -> int:
    """Return how many threads to compute with: the cores that nobody else keeps busy, at least one.

    llama.cpp's threads wait for each other by spinning: two threads on two busy cores prefilled at 11 tokens a second
    where one thread reached 25.
    """
    import psutil

    cores = os.cpu_count() or 1
    # Measured now: the load average still tells of the minutes before, such as an installation that has just ended.
    busy_ratio = psutil.cpu_percent(interval=0.5) / 100
    return max(1, round(cores * (1 - busy_ratio)))


def make_formatter(model: Any, metadata: dict[str, str], path: Path) -> Any:
    """Return the renderer of the file's embedded template.

    Raises:
        EvaluationError: The file carries no template.
    """
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    template = metadata.get("tokenizer.chat_template")
    if not template:
        raise EvaluationError(f"{path} carries no chat template (tokenizer.chat_template). Export it with one.")

    def piece(token: int) -> str:
        return "" if token < 0 else model.detokenize([token], special=True).decode("utf-8", "replace")

    return Jinja2ChatFormatter(template, eos_token=piece(model.token_eos()), bos_token=piece(model.token_bos()))


def quantisation_of(metadata: dict[str, str], path: Path) -> str | None:
    """Return the file type the header states, such as `Q6_K`, or None."""
    from gguf import LlamaFileType

    try:
        name = LlamaFileType(int(metadata["general.file_type"])).name
    except (KeyError, ValueError):
        return None
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")

"""GGUF in process: llama-cpp-python, the file's own embedded template, raw completions.

Raw rather than chat completions, since a chat endpoint parses a call away and hides what the model writes after it.
One sequence at a time here; several at once in `llama_cpp_batch.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import sha256_file
from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.protocol import Backend, Generation, Request
from toolcall_pipeline.evaluation.cases import ModelIdentity

_BATCH_TOKENS = 512
# Greedy at 0; otherwise plain nucleus sampling, as servers do by default.
_TOP_K = 40
_TOP_P = 0.95
_MIN_P = 0.05


def open_llama_cpp(path: Path, *, context_tokens: int, sequences: int) -> Backend:
    """Open a GGUF file for one sequence at a time, or several."""
    if sequences > 1:
        from toolcall_pipeline.evaluation.backends.llama_cpp_batch import BatchedLlamaCppBackend

        return BatchedLlamaCppBackend(path, context_tokens=context_tokens, sequences=sequences)
    return LlamaCppBackend(path, context_tokens=context_tokens)


class LlamaCppBackend:
    """One sequence at a time. What two prompts share at their beginning is evaluated once."""

    width = 1

    def __init__(self, path: Path, *, context_tokens: int) -> None:
        """Load a GGUF file.

        Raises:
            EvaluationError: llama.cpp cannot load it, or it carries no chat template.
        """
        import llama_cpp

        silence_llama_cpp()
        threads = thread_count()
        try:
            self._model = llama_cpp.Llama(
                model_path=str(path),
                n_ctx=context_tokens,
                n_batch=_BATCH_TOKENS,
                n_gpu_layers=-1,
                n_threads=threads,
                n_threads_batch=threads,
                logits_all=False,
                verbose=False,
            )
        except (ValueError, OSError, AssertionError) as error:
            raise EvaluationError(
                f"llama.cpp cannot load {path} ({error}). Expected a whole GGUF file; export it again."
            ) from error
        self._context_tokens = context_tokens
        metadata = self._model.metadata
        self._formatter = make_formatter(self._model, metadata, path)
        self._grammars: dict[str, Any] = {}
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

    def generate_batch(self, requests: Sequence[Request]) -> list[Generation]:
        """Return the generations, one after another."""
        return [self._generate(request) for request in requests]

    def _generate(self, request: Request) -> Generation:
        import llama_cpp

        prompt = self.render(request)
        room = self._context_tokens - len(prompt)
        if room < 1:
            return Generation(
                raw="",
                prompt_tokens=len(prompt),
                error=f"the prompt has {len(prompt)} tokens, the context {self._context_tokens}",
            )
        limit = min(request.max_new_tokens, room)
        self._model.set_seed(request.seed)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model._model.model)
        tokens: list[int] = []
        ended = False
        for token in self._model.generate(
            prompt,
            temp=request.temperature,
            top_k=_TOP_K,
            top_p=_TOP_P,
            min_p=_MIN_P,
            repeat_penalty=1.0,
            grammar=self._grammar(request),
        ):
            if llama_cpp.llama_vocab_is_eog(vocabulary, token):
                ended = True
                break
            tokens.append(token)
            if len(tokens) >= limit:
                break
        raw = self._model.detokenize(tokens, prev_tokens=prompt[-1:], special=True).decode("utf-8", "replace")
        return Generation(raw=raw, prompt_tokens=len(prompt), completion_tokens=len(tokens), hit_token_limit=not ended)

    def _grammar(self, request: Request) -> Any:
        if not request.grammar:
            return None
        import llama_cpp

        from toolcall_pipeline.evaluation.grammar import grammar_of_tools

        text = grammar_of_tools(request.tools)
        # A grammar keeps its state while it is used: a fresh one for every completion.
        return llama_cpp.LlamaGrammar.from_string(text, verbose=False)

    def close(self) -> None:
        """Free the model."""
        self._model.close()


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


def silence_llama_cpp() -> None:
    """Keep llama.cpp's own log lines off the terminal; errors still raise."""
    import ctypes

    import llama_cpp

    global _LOG_CALLBACK
    if _LOG_CALLBACK is None:
        _LOG_CALLBACK = llama_cpp.llama_log_callback(lambda level, text, user_data: None)
        llama_cpp.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))


_LOG_CALLBACK: Any = None


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

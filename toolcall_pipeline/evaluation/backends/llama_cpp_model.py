"""A GGUF file as it chats: its own template, its own tokenizer, its end of turn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.protocol import Request
from toolcall_pipeline.llama_cpp_log import silence_llama_cpp


class ChatModel:
    """A loaded GGUF file; several threads may use it at once."""

    def __init__(self, path: Path) -> None:
        """Load a GGUF file, onto the GPU where there is one.

        Raises:
            EvaluationError: llama.cpp cannot load it, or it carries no chat template.
        """
        import llama_cpp

        silence_llama_cpp()
        try:
            # It tokenizes; its own context is never decoded with, so it is as small as can be.
            self._llama = llama_cpp.Llama(
                model_path=str(path),
                n_ctx=32,
                n_batch=32,
                n_ubatch=32,
                n_gpu_layers=-1,
                n_threads=1,
                verbose=False,
            )
        except (ValueError, OSError, AssertionError) as error:
            raise EvaluationError(
                f"llama.cpp cannot load {path} ({error}). Expected a whole GGUF file; export it again."
            ) from error
        self.handle = self._llama._model.model
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.handle)
        self.metadata: dict[str, str] = self._llama.metadata
        self.trained_context_tokens: int = llama_cpp.llama_model_n_ctx_train(self.handle)
        try:
            self._formatter = self._make_formatter(path)
        except EvaluationError:
            self.close()
            raise

    def render(self, request: Request) -> list[int]:
        """Return the prompt's tokens, rendered through the file's embedded template."""
        rendered = self._formatter(messages=list(request.messages), tools=list(request.tools) or None)
        text = rendered.prompt.encode("utf-8", "surrogatepass")
        return list(self._llama.tokenize(text, add_bos=not rendered.added_special, special=True))

    def text(self, tokens: list[int], *, after: int) -> str:
        """Return the text of tokens that follow another, special tokens included."""
        return self._llama.detokenize(tokens, prev_tokens=[after], special=True).decode("utf-8", "replace")

    def ends_generation(self, token: int) -> bool:
        """Return whether a token ends the turn or the text."""
        import llama_cpp

        return bool(llama_cpp.llama_vocab_is_eog(self.vocabulary, token))

    def close(self) -> None:
        """Free the model; its contexts go before it."""
        self._llama.close()

    def _make_formatter(self, path: Path) -> Any:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        template = self.metadata.get("tokenizer.chat_template")
        if not template:
            raise EvaluationError(f"{path} carries no chat template (tokenizer.chat_template). Export it with one.")

        def piece(token: int) -> str:
            return "" if token < 0 else self._llama.detokenize([token], special=True).decode("utf-8", "replace")

        return Jinja2ChatFormatter(
            template, eos_token=piece(self._llama.token_eos()), bos_token=piece(self._llama.token_bos())
        )


def quantisation_of(metadata: dict[str, str]) -> str | None:
    """Return the file type a GGUF's header states, such as `Q6_K`, or None."""
    from gguf import LlamaFileType

    try:
        name = LlamaFileType(int(metadata["general.file_type"])).name
    except (KeyError, ValueError):
        return None
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


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

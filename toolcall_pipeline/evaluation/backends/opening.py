"""Which backend serves which model: by prefix, URL, file or folder."""

from __future__ import annotations

from pathlib import Path

from toolcall_pipeline.errors import MissingInputError, UsageError
from toolcall_pipeline.evaluation.backends.protocol import Backend

BACKENDS = ("auto", "llama-cpp", "transformers", "openai", "scripted")


def open_backend(model: str | Path, *, backend: str = "auto", context_tokens: int, sequences: int = 1) -> Backend:
    """Open a model.

    Args:
        model: A GGUF file, a Hugging Face folder, an `http(s)://.../v1` endpoint, or a scripted file.
        backend: `auto` (by the model's form), `llama-cpp`, `transformers`, `openai`, `scripted` or `scripted:FILE`.
        context_tokens: Longest prompt and completion together.
        sequences: Cases decoded together (llama.cpp sequences, batch rows, concurrent requests).

    Raises:
        UsageError: No such backend, or a model whose form says nothing.
        MissingInputError: There is no such file or folder.
        EvaluationError: The model does not load.
    """
    kind = backend_kind(model, backend)
    if kind not in BACKENDS:
        raise UsageError(f"There is no backend {backend!r}. Choose one of {', '.join(BACKENDS)} or scripted:FILE.")
    if kind == "scripted":
        from toolcall_pipeline.evaluation.backends.scripted import ScriptedBackend

        return ScriptedBackend(Path(backend.partition(":")[2] or str(model).removeprefix("scripted:")))
    if kind == "openai":
        from toolcall_pipeline.evaluation.backends.openai_endpoint import OpenAiBackend

        return OpenAiBackend(str(model), concurrency=max(1, sequences))
    path = Path(model)
    if not path.exists():
        raise MissingInputError(f"There is no model at {path}. Give a GGUF file, a Hugging Face folder or a URL.")
    if kind == "llama-cpp":
        from toolcall_pipeline.evaluation.backends.llama_cpp_backend import LlamaCppBackend

        return LlamaCppBackend(path, context_tokens=context_tokens, sequences=max(1, sequences))
    from toolcall_pipeline.evaluation.backends.transformers_backend import TransformersBackend

    return TransformersBackend(path, context_tokens=context_tokens, batch_rows=sequences)


def backend_kind(model: str | Path, backend: str = "auto") -> str:
    """Return which backend opens a model: the one asked for, or by the model's form."""
    asked = backend.partition(":")[0].replace("_", "-")
    return _kind_of(model) if asked == "auto" else asked


def _kind_of(model: str | Path) -> str:
    text = str(model)
    if text.startswith("scripted:"):
        return "scripted"
    if text.startswith(("http://", "https://")):
        return "openai"
    path = Path(text)
    if path.is_dir():
        return "transformers"
    if path.suffix.lower() == ".jsonl":
        return "scripted"
    return "llama-cpp"

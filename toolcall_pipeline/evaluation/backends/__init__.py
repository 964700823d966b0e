"""Where completions come from: one small protocol, one file per backend, and `open_backend` that picks it."""

from toolcall_pipeline.evaluation.backends.opening import backend_kind, open_backend
from toolcall_pipeline.evaluation.backends.protocol import Backend, Generation, Request, RequestSource, generate_all

__all__ = ["Backend", "Generation", "Request", "RequestSource", "backend_kind", "generate_all", "open_backend"]

"""GGUF in process: llama-cpp-python, the file's own embedded template, raw completions.

Raw rather than chat completions, since a chat endpoint parses a call away and hides what the model writes after it.
Sequences decoded together do not give the same tokens as one at a time, since sums are made in another order; a gated
run uses several only where `runner.agreement` showed the outcomes equal for the model. Contexts beside each other, each
in a thread of its own, change no token: a GPU that one context leaves idle is filled with them.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from toolcall_pipeline.artifacts import sha256_file
from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.backends.llama_cpp_lane import Lane
from toolcall_pipeline.evaluation.backends.llama_cpp_model import ChatModel, quantisation_of, thread_count
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request, RequestSource
from toolcall_pipeline.evaluation.cases import ModelIdentity

logger = logging.getLogger(__name__)

_MAX_LANES = 16
_MAX_BATCHED_LANES = 8
# So much of a GPU's memory stays free, for what llama.cpp takes while it computes.
_SPARE_RATIO = 0.1
_GGML_DEVICE_TYPE_GPU = 1


class LlamaCppBackend:
    """A GGUF file, in one context, or in several on a CUDA device."""

    def __init__(self, path: Path, *, context_tokens: int, sequences: int = 1, lanes: int | None = None) -> None:
        """Load a GGUF file.

        Args:
            path: The file.
            context_tokens: Longest prompt and completion together; less where the model was trained on less.
            sequences: Completions decoded together, over all contexts; 1 decodes each alone.
            lanes: Contexts beside each other; as many as the device gains from where None.

        Raises:
            EvaluationError: llama.cpp cannot load it, it carries no chat template, or there is no memory.
        """
        self._model = ChatModel(path)
        self._lanes: list[Lane] = []
        try:
            self._open_lanes(
                min(context_tokens, self._model.trained_context_tokens), sequences, lanes or _lane_count(sequences)
            )
            self.identity = ModelIdentity(
                name=self._model.metadata.get("general.name") or path.name,
                sha256=sha256_file(path),
                path=str(path),
                quantisation=quantisation_of(self._model.metadata),
                backend="llama-cpp",
            )
        except EvaluationError:
            self.close()
            raise

    def _open_lanes(self, context_tokens: int, sequences: int, count: int) -> None:
        """Make contexts while there is memory; one there must be."""
        self._sequences = -(-sequences // count)
        # Beside a GPU, a processor only looks up embeddings.
        threads = thread_count() if count == 1 else 1
        free_bytes, _ = _gpu_memory_bytes()
        for number in range(count):
            try:
                lane = Lane(self._model, context_tokens=context_tokens, sequences=self._sequences, threads=threads)
            except EvaluationError:
                if not self._lanes:
                    raise
                logger.info("GPU memory is enough for %d of %d contexts", number, count)
                return
            self._lanes.append(lane)
            left_bytes, total_bytes = _gpu_memory_bytes()
            taken_bytes, free_bytes = free_bytes - left_bytes, left_bytes
            if number + 1 < count and left_bytes - taken_bytes < _SPARE_RATIO * total_bytes:
                logger.info("GPU memory is enough for %d of %d contexts", number + 1, count)
                return

    def generate(self, take: RequestSource) -> Iterator[tuple[int, Generation]]:
        """Yield generations as they end; every free sequence takes the next request."""
        if len(self._lanes) == 1:
            yield from self._lanes[0].generate(take)
        else:
            yield from self._generate_beside(take)

    def _generate_beside(self, take: RequestSource) -> Iterator[tuple[int, Generation]]:
        """Serve the lanes, each in a thread, with requests that only this thread takes."""
        waiting: queue.SimpleQueue[tuple[int, Request] | None] = queue.SimpleQueue()
        ended: queue.SimpleQueue[tuple[int, Generation] | None] = queue.SimpleQueue()
        stop = threading.Event()
        under_way = 0
        with ThreadPoolExecutor(len(self._lanes)) as pool:
            served = [pool.submit(_serve, lane, waiting, ended, stop) for lane in self._lanes]
            try:
                while True:
                    while under_way < len(self._lanes) * self._sequences and (taken := take()) is not None:
                        waiting.put(taken)
                        under_way += 1
                    if not under_way:
                        return
                    item = ended.get()
                    if item is None:
                        for future in as_completed(served):
                            future.result()
                    else:
                        under_way -= 1
                        yield item
            finally:
                stop.set()
                for _ in served:
                    waiting.put(None)

    def close(self) -> None:
        """Free the contexts, then the model."""
        for lane in self._lanes:
            lane.close()
        self._model.close()


def _serve(
    lane: Lane,
    waiting: queue.SimpleQueue[tuple[int, Request] | None],
    ended: queue.SimpleQueue[tuple[int, Generation] | None],
    stop: threading.Event,
) -> None:
    """Generate what waits, until None does; say None when it is over, for good or by an error."""
    first: list[tuple[int, Request]] = []

    def take() -> tuple[int, Request] | None:
        if first:
            return first.pop()
        try:
            taken = waiting.get_nowait()
        except queue.Empty:
            return None
        if taken is None:
            # It was meant to end a lane, maybe another one.
            waiting.put(None)
        return taken

    try:
        while not stop.is_set() and (request := waiting.get()) is not None:
            first.append(request)
            for item in lane.generate(take, stop.is_set):
                ended.put(item)
    finally:
        ended.put(None)


def _lane_count(sequences: int) -> int:
    """Return how many contexts a device gains from.

    Measured on an H100 with the shape of SmolLM2-135M: 16 contexts of one sequence decode 6.2 times as fast as one, with
    the same tokens; 8 of 24 sequences 1.7 times as fast as one of 192.
    """
    import llama_cpp
    from llama_cpp.llama_cpp import _lib as library

    if not llama_cpp.llama_supports_gpu_offload():
        return 1
    library.ggml_backend_dev_name.restype = ctypes.c_char_p
    if not library.ggml_backend_dev_name(_gpu()).startswith(b"CUDA"):
        return 1
    cores = os.cpu_count() or 1
    return min(_MAX_LANES, cores) if sequences == 1 else max(1, min(_MAX_BATCHED_LANES, cores, sequences // 4))


def _gpu() -> ctypes.c_void_p:
    """Return the first GPU that llama.cpp uses, as its `ggml_backend_dev_t`; null without one."""
    from llama_cpp.llama_cpp import _lib as library

    library.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    return ctypes.c_void_p(library.ggml_backend_dev_by_type(_GGML_DEVICE_TYPE_GPU))


def _gpu_memory_bytes() -> tuple[int, int]:
    """Return the free and the total bytes of the GPU; 0 and 0 without one."""
    from llama_cpp.llama_cpp import _lib as library

    device = _gpu()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if device:
        library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value

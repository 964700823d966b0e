"""The Dagster UI and its daemon, served by one command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

from toolcall_pipeline.defs.instance import settings_environment
from toolcall_pipeline.settings import REPOSITORY_ROOT, Settings

_STOP_SECONDS = 30


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 3000) -> int:
    """Serve the UI and run the daemon until interrupted; start the database server where needed.

    Args:
        settings: Where state and server are.
        host: Address to listen on.
        port: Port to listen on.

    Returns:
        0 after SIGINT or SIGTERM, else the exit code of what stopped by itself.
    """
    from toolcall_pipeline.store.engine import open_store

    open_store(settings).dispose()
    environment = {**os.environ, **settings_environment(settings)}
    command = [sys.executable, "-m", "dagster", "dev", *workspace_arguments(), "-h", host, "-p", str(port)]
    return run_until_stopped(command, environment)


def workspace_arguments() -> list[str]:
    """Return what tells Dagster where the definitions are: the repository's workspace, or the installed module."""
    workspace = REPOSITORY_ROOT / "workspace.yaml"
    return ["-w", str(workspace)] if workspace.is_file() else ["-m", "toolcall_pipeline.definitions"]


def run_until_stopped(command: list[str], environment: dict[str, str]) -> int:
    """Run a command in a session of its own; hand it SIGINT once when stopped, then make sure nothing of it is left."""
    process: subprocess.Popen[bytes] | None = None
    stops = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        if process is not None:
            _signal_group(process, signal.SIGINT if stops == 1 else signal.SIGKILL, only_leader=stops == 1)

    # Handlers first: a process that is started while SIGINT is ignored (`command &` in a script) ignores it for ever,
    # and so would `dagster dev`; a handler is reset to the default in the new process.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        if stops:
            process.send_signal(signal.SIGINT)
        code = process.wait()
    finally:
        if process is not None:
            end_session(process)
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if stops else code


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Stop what is left of the session, giving a training the time it needs to leave a checkpoint."""
    _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline and _group_lives(process):
        time.sleep(0.1)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals, *, only_leader: bool = False) -> None:
    with suppress(ProcessLookupError):
        if only_leader:
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)

"""The Dagster UI and its daemon, served by one command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

from toolcall_pipeline.defs.instance import settings_environment
from toolcall_pipeline.settings import REPOSITORY_ROOT, Settings


def serve(settings: Settings, *, host: str = "127.0.0.1", port: int = 3000) -> int:
    """Serve the UI and run the daemon until interrupted; start the database server where needed.

    Args:
        settings: Where state and server are.
        host: Address to listen on.
        port: Port to listen on.

    Returns:
        0 after SIGINT or SIGTERM, else the exit code of what stopped.
    """
    from toolcall_pipeline.store.engine import open_store

    open_store(settings).dispose()
    environment = {**os.environ, **settings_environment(settings)}
    command = [sys.executable, "-m", "dagster", "dev", *workspace_arguments(), "-h", host, "-p", str(port)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    return _wait(process)


def workspace_arguments() -> list[str]:
    """Return what tells Dagster where the definitions are: the repository's workspace, or the installed module."""
    workspace = REPOSITORY_ROOT / "workspace.yaml"
    return ["-w", str(workspace)] if workspace.is_file() else ["-m", "toolcall_pipeline.definitions"]


def _wait(process: subprocess.Popen[bytes]) -> int:
    asked_to_stop = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        # `dagster dev` stops its web server, daemon and code server in order on SIGINT.
        process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stop_group(process)
    return 0 if asked_to_stop else code


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """Make sure that no child of a stopped `dagster dev` lives on."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        return

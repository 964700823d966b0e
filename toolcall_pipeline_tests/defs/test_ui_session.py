"""What is left of a session is ended, whatever it does about it."""

import signal
import subprocess
import sys

from toolcall_pipeline.defs import ui


def test_a_session_that_ignores_the_request_is_killed_and_reaped(monkeypatch):
    monkeypatch.setattr(ui, "_STOP_SECONDS", 0)
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True) as process:
        process.stdout.readline()
        ui.end_session(process)
        assert process.returncode == -signal.SIGKILL

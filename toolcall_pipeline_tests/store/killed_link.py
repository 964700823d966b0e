"""Link a frozen partition in a process of its own that kills itself at a chosen point; run by test_crashes.py.

Usage: killed_link.py HOME DATABASE_URL PARTITION POINT
POINT counts calls of functions of the store and of the database's libraries.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store.engine import make_engine
from toolcall_pipeline.store.stage import LinkOptions, link_tool_calls
from toolcall_pipeline_tests.store.transcripts import context_for

_PARTS = (f"toolcall_pipeline{os.sep}store", f"psycopg{os.sep}", f"sqlalchemy{os.sep}engine", "artifacts.py")


def count_calls(run: Callable[[], object], kill_at: int | None = None) -> int:
    """Return how many watched calls `run` makes; kill this process at one of them where asked to."""
    count = 0

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        if event == "call" and any(part in frame.f_code.co_filename for part in _PARTS):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def link(home: str, database_url: str, partition: str) -> None:
    """Link a frozen partition in this process."""
    settings = Settings(home=Path(home), DATABASE_URL=database_url)
    engine = make_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    link_tool_calls(
        context_for(settings, engine, partition), options=LinkOptions(process_count=1, sessions_per_batch=2)
    )
    engine.dispose()


if __name__ == "__main__":
    count_calls(lambda: link(*sys.argv[1:4]), kill_at=int(sys.argv[4]))

"""Plain `dagster dev -w workspace.yaml` over a home of its own, and a headless browser in front of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from toolcall_pipeline.defs.ui import end_session
from toolcall_pipeline.settings import REPOSITORY_ROOT, Settings
from toolcall_pipeline.store import server

if TYPE_CHECKING:
    from playwright.sync_api import Page

LOCATION = "toolcall_pipeline"
_PATIENCE_SECONDS = 1800
_PAGE_MILLISECONDS = 180_000
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def dagster_dev(home: Path) -> Iterator[str]:
    """Start the database and `dagster dev` as a user would, and give the address of its UI."""
    settings = Settings(home=home, DATABASE_URL=None)
    server.start(settings)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "TOOLCALL_PIPELINE_HOME": str(home)}
    environment.pop("DAGSTER_HOME", None)
    command = [sys.executable, "-W", "ignore", "-m", "dagster", "dev", "-w", "workspace.yaml", "-p", str(port)]
    home.mkdir(parents=True, exist_ok=True)
    with (home / "dagster_dev.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=REPOSITORY_ROOT, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait(f"{url} to answer", lambda: _answers(url))
        yield url
    finally:
        end_session(process)
        server.stop(settings)


@contextmanager
def browser_page() -> Iterator[Page]:
    """Give a page of a headless Chromium, or skip where there is none."""
    from playwright.sync_api import sync_playwright

    executable = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        page = browser.new_page(viewport={"width": 1600, "height": 950})
        page.set_default_timeout(_PAGE_MILLISECONDS)
        try:
            yield page
        finally:
            browser.close()


def wait(what: str, question: Callable[[], Any]) -> Any:
    """Ask until there is an answer."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
        time.sleep(0.5)
    raise AssertionError(f"waited {_PATIENCE_SECONDS} s for {what}")


def run_status(url: str, run_id: str) -> str | None:
    """Return a finished run's status, or None while it goes on."""
    query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
    answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": {"id": run_id}}, timeout=60).json()
    status = answer["data"]["runOrError"]["status"]
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info", timeout=10).is_success
    except httpx.HTTPError:
        return False

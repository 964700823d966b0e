"""The UI as a person uses it: add a partition, meet a gate that blocks, read why, mend the cause, resume, see it through.

`make test-ui` also renews the pictures of the docs. It trains a real model, so it takes as long as `make run`; with
TOOLCALL_PIPELINE_UI_UNTIL=v2_chat_dataset it stops at the dataset.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from toolcall_pipeline.settings import REPOSITORY_ROOT
from toolcall_pipeline_tests.ui.dev_server import LOCATION, browser_page, dagster_dev, run_status, wait

if TYPE_CHECKING:
    from playwright.sync_api import Page

PARTITION = "20261123T020000Z-nightly"
PICTURES = REPOSITORY_ROOT / "docs" / "images"
TOO_FEW_ROWS = (
    "resources:\n  configuration:\n    config:\n      preset: smoke\n      dataset:\n        max_training_rows: 5\n"
)
ALL_ROWS = "resources:\n  configuration:\n    config:\n      dataset:\n        max_training_rows: null\n"
IS_GREEN = """name => [...document.querySelectorAll('div')].some(node => {
  const [red, green] = getComputedStyle(node).borderTopColor.match(/\\d+/g).map(Number);
  return node.textContent.trim() === name && green > red + 60;
})"""
"""Whether a node of the graph shows a materialisation: states arrive after the nodes."""
FULL = os.environ.get("TOOLCALL_PIPELINE_UI_UNTIL", "eval_reports") == "eval_reports"


class Person:
    """What a person does on the pages."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def picture(self, name: str) -> None:
        """Take a picture for the docs, without what hangs under the pointer."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.mouse.move(0, 0)
        self.page.wait_for_load_state("networkidle")
        expect(self.page.get_by_text("Copy tag")).to_have_count(0)
        self.page.screenshot(path=str(PICTURES / f"{name}.png"))

    def add_partition(self, key: str) -> None:
        self.open("/assets/jsonl_sessions?view=partitions")
        self.page.get_by_role("button", name="Materialize").first.click()
        self.page.get_by_text("Add a partition", exact=True).click()
        self.page.get_by_placeholder("name", exact=True).fill(key)
        self.page.get_by_role("button", name="Save").click()
        self.page.get_by_placeholder("name", exact=True).wait_for(state="detached")

    def launch(self, job: str, partition: str, config: str, picture: str | None = None) -> str:
        """Launch a job of a partition from the Launchpad, and return the run's id."""
        self.open(f"/locations/{LOCATION}/jobs/{job}/playground")
        self.page.locator(".CodeMirror").first.wait_for()
        box = self.page.get_by_placeholder("Partition").first
        box.click()
        box.fill(partition)
        self.page.get_by_text(partition, exact=True).last.click()
        # Choosing a partition fetches its configuration, which replaces what the editor holds.
        self.page.get_by_text(f"partition: {partition}").first.wait_for()
        self.page.wait_for_load_state("networkidle")
        self.page.evaluate("text => document.querySelector('.CodeMirror').CodeMirror.setValue(text)", config)
        self.page.wait_for_load_state("networkidle")
        self.page.get_by_text("No errors").first.wait_for()
        held_by_editor = self.page.evaluate("document.querySelector('.CodeMirror').CodeMirror.getValue()")
        assert held_by_editor == config
        launch = self.page.get_by_role("button", name="Launch Run")
        if picture:
            self.picture(picture)
        launch.click()
        self.page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"))
        found = re.search(r"/runs/([0-9a-f-]{36})", self.page.url)
        assert found
        self.page.goto("about:blank")  # a run's page draws itself anew all the time, on the cores that train
        return found[1]

    def read_gate(self, asset: str, gate: str, verdict: str) -> str:
        """Open a gate's page, wait until it shows a verdict, and return what it says."""
        self.open(f"/assets/{asset}?view=checks&checkDetail={gate}")
        self.page.get_by_text(re.compile(f"^{verdict}: ")).first.wait_for()
        return self.page.locator("body").inner_text()

    def read_materialisation(self, asset: str, partition: str, shows: str) -> None:
        """Open a partition's materialisation and what stands behind one of its fields."""
        self.open(f"/assets/{asset}?partition={partition}&view=partitions")
        self.page.get_by_text("artifact_sha256").first.wait_for()
        row = self.page.get_by_role("row").filter(has=self.page.get_by_text(shows, exact=True))
        row.get_by_text("Show Markdown").click()
        self.page.get_by_role("button", name="Close").wait_for()

    def graph(self, picture: str) -> None:
        self.page.set_viewport_size({"width": 2300, "height": 700})
        self.open("/asset-groups")
        self.page.get_by_text("evidence").first.wait_for()
        self.page.wait_for_load_state("networkidle")
        if not self.page.get_by_text("eval_reports").first.is_visible():  # the page remembers what was expanded
            self.page.keyboard.press("Alt+e")
        self.page.get_by_text("eval_reports").first.wait_for()
        self.page.wait_for_function(IS_GREEN, arg="jsonl_sessions")
        self.picture(picture)
        self.page.set_viewport_size({"width": 1600, "height": 950})


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that the database's own account may enter, which pytest's is not."""
    folder = Path(tempfile.mkdtemp(prefix="tcp-ui-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ui
@pytest.mark.timeout(3600)
def test_a_partition_is_added_held_by_a_gate_mended_resumed_and_seen_through(open_folder: Path) -> None:
    with dagster_dev(open_folder / "home") as url, browser_page() as page:
        person = Person(page, url)
        person.add_partition(PARTITION)

        held = person.launch("data_half", PARTITION, TOO_FEW_ROWS, picture="launchpad")
        assert wait("the held run", lambda: run_status(url, held)) == "FAILURE"
        person.open(f"/runs/{held}?logs=min_examples")
        page.get_by_text("ASSET_CHECK_EVALUATION").first.wait_for()
        page.get_by_text("how_to_fix").first.wait_for()
        person.picture("run_held")

        page_text = person.read_gate("v2_chat_dataset", "min_examples", "FAIL")
        assert "This is a blocking asset check" in page_text
        for name in ("measured", "comparison", "threshold", "how_to_fix", PARTITION):
            assert name in page_text
        person.picture("gate")

        person.graph("graph_held")

        resumed = person.launch("resume_from_v2_chat_dataset" if FULL else "data_half", PARTITION, ALL_ROWS)
        assert wait("the resumed run", lambda: run_status(url, resumed)) == "SUCCESS"
        person.read_gate("v2_chat_dataset", "min_examples", "PASS")
        person.picture("gate_passed")
        person.graph("graph")
        person.read_materialisation("v2_chat_dataset", PARTITION, "tool_histogram")
        person.picture("tool_histogram")
        if FULL:
            person.read_materialisation("lora_adapter", PARTITION, "loss_curve")
            person.read_materialisation("eval_reports", PARTITION, "report")
            (report,) = (open_folder / "home" / "artifacts" / "eval_reports" / PARTITION).glob("*/report.html")
            page.goto(report.as_uri())
            page.get_by_role("heading", name="Passed, not shippable").wait_for()
            person.picture("report")

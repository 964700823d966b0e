"""The documents name what exists, and the command reference is what the program says of itself."""

import re
from pathlib import Path

import pytest

from toolcall_pipeline import definitions
from toolcall_pipeline.commands.reference import commands_reference, configuration_reference
from toolcall_pipeline.gates.profiles import rules_for
from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_command_reference_is_up_to_date() -> None:
    page = ROOT / "docs" / "reference" / "commands.md"
    assert page.read_text(encoding="utf-8") == commands_reference(), "run `make docs`"


def test_every_gate_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "gates.md").read_text(encoding="utf-8")
    undocumented = {gate for _, gate in rules_for(PRESETS["full"]) if f"`{gate}`" not in text}
    assert not undocumented


def test_every_configuration_field_has_a_meaning_and_the_page_says_it() -> None:
    sections = {name: value for name, value in PRESETS["full"] if name != "preset"}
    silent = {
        f"{section}.{name}"
        for section, value in sections.items()
        for name, field in type(value).model_fields.items()
        if not field.description
    }
    assert not silent
    text = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    assert text == configuration_reference(), "run `make docs`"


def test_every_setting_has_a_meaning() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_every_asset_job_schedule_and_setting_is_in_the_reference() -> None:
    repository = definitions.defs.get_repository_def()
    assets = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith(("__", "resume_from_"))}
    schedules = {schedule.name for schedule in repository.schedule_defs}
    pages = {
        name: (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8") for name in ("assets", "jobs")
    }
    assert not {name for name in assets if f"`{name}`" not in pages["assets"]}
    assert not {name for name in jobs | schedules if f"`{name}`" not in pages["jobs"]}


def test_every_picture_of_the_docs_is_shown_somewhere() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = [path.name for path in (ROOT / "docs" / "images").iterdir()]
    assert not [name for name in pictures if f"images/{name})" not in text]

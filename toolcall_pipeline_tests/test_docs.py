"""The documents name what exists, and the command reference is what the program says of itself."""

import re
from pathlib import Path

import pytest

from toolcall_pipeline.commands.reference import commands_reference
from toolcall_pipeline.gates.profiles import rules_for
from toolcall_pipeline.presets import PRESETS

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


def test_every_configuration_field_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    sections = {name: value for name, value in PRESETS["full"] if name != "preset"}
    undocumented = {
        f"{section}.{field}"
        for section, value in sections.items()
        for field in type(value).model_fields
        if f"`{section}.{field}`" not in text
    }
    assert not undocumented, "run `make docs`"

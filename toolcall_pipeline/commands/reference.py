"""The pages of docs/reference that are made from the program itself: `make docs` writes them, a test compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer.main

from toolcall_pipeline.gates.gates_page import gates_page
from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.settings import REPOSITORY_ROOT, Settings


def commands_reference() -> str:
    """Return docs/reference/commands.md: every command with its arguments, options and exit codes."""
    from toolcall_pipeline import cli

    lines = [
        "# Commands",
        "",
        "Made by `make docs` from the program's own help. Everything is one program, `toolcall-pipeline`.",
        "",
        cli.EXIT_CODES,
        "",
        *_command_lines(typer.main.get_command(cli.app), "toolcall-pipeline"),
    ]
    return "\n".join(lines).rstrip() + "\n"


def configuration_reference() -> str:
    """Return docs/reference/configuration.md: every field with its meaning and its value in each preset."""
    names = list(PRESETS)
    lines = [
        "# Configuration",
        "",
        "Made by `make docs` from `toolcall_pipeline/presets.py`. A preset sets everything; one field is replaced with",
        "`run --set SECTION.FIELD=VALUE` or in the Launchpad. Gate thresholds are in [gates](gates.md).",
        "",
        f"| field | {' | '.join(names)} | meaning |",
        f"|---|{'---|' * len(names)}---|",
    ]
    for section, value in PRESETS["full"]:
        if section == "preset":
            continue
        for name, field in type(value).model_fields.items():
            values = " | ".join(f"`{getattr(getattr(PRESETS[preset], section), name)}`" for preset in names)
            lines.append(f"| `{section}.{name}` | {values} | {field.description or ''} |")
    lines += [
        "",
        "## Settings",
        "",
        "Where an installation keeps its state; read from the environment, from `toolcall_pipeline/settings.py`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, setting in Settings.model_fields.items():
        variable = setting.validation_alias or f"TOOLCALL_PIPELINE_{name.upper()}"
        lines.append(f"| `{variable}` | `{setting.default}` | {setting.description} |")
    return "\n".join(lines) + "\n"


def write_references(folder: Path = REPOSITORY_ROOT / "docs" / "reference") -> None:
    """Write the made pages below a folder."""
    (folder / "commands.md").write_text(commands_reference(), encoding="utf-8")
    (folder / "configuration.md").write_text(configuration_reference(), encoding="utf-8")
    (folder / "gates.md").write_text(gates_page(), encoding="utf-8")


def _command_lines(command: Any, path: str) -> list[str]:
    lines = [f"{'##' if ' ' not in path else '###'} `{path}`", "", _plain(command.help or ""), ""]
    rows = []
    for parameter in command.params:
        if (
            parameter.name == "help"
            or "--install-completion" in parameter.opts
            or "--show-completion" in parameter.opts
        ):
            continue
        name = (
            ", ".join([*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "option"
            else (parameter.metavar or parameter.name.upper())
        )
        rows.append(f"| `{name}` | {_plain(getattr(parameter, 'help', None) or '')} |")
    if rows:
        lines += ["| argument or option | meaning |", "|---|---|", *rows, ""]
    for name, child in getattr(command, "commands", {}).items():
        lines += _command_lines(child, f"{path} {name}")
    return lines


def _plain(text: str) -> str:
    return text.replace("[bold]", "`").replace("[/bold]", "`").replace("|", "\\|").strip()


if __name__ == "__main__":
    from toolcall_pipeline.evaluation.reports.render import TEMPLATES_DIR
    from toolcall_pipeline.gates.report_commands import write_schema

    write_references()
    write_schema(TEMPLATES_DIR.parent)

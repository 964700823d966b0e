"""The command line: every command teaches, and every exit code means one thing."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
import typer.main
from typer.testing import CliRunner

from toolcall_pipeline import cli
from toolcall_pipeline.commands.backfill import own_partition
from toolcall_pipeline.settings import Settings

ROOT_COMMAND = typer.main.get_command(cli.app)


def commands(command: click.Command = ROOT_COMMAND, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, child in getattr(command, "commands", {}).items():
        found += commands(child, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_and_every_option_has_help(path: tuple[str, ...]) -> None:
    command = ROOT_COMMAND
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    assert command.help
    assert CliRunner().invoke(cli.app, [*path, "--help"]).exit_code == 0
    undocumented = [
        p.name for p in command.params if not getattr(p, "help", None) and p.name not in ("verbose", "help")
    ]
    assert not undocumented


def run(
    *arguments: str, home: Path, stdin: str = "", state: Path | None = None, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolcall_pipeline.cli", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        input=stdin,
        cwd=home,
        env={"TOOLCALL_PIPELINE_HOME": str(state or home), "PATH": "/usr/bin:/bin", "HOME": str(home)},
        check=False,
    )


@pytest.mark.parametrize(
    "arguments, exit_code, says",
    [
        (("frobnicate",), 2, "No such command"),
        (("run", "--partition", "tonight"), 2, "20261123T020000Z-nightly"),
        (("run", "--until", "gguf_q4"), 2, "gguf_q6k"),
        (("run", "--sessions", "/nowhere/at/all"), 6, "no sessions folder /nowhere"),
        (("run", "--sessions", "/etc/hostname"), 6, "a file is there"),
        (("run", "--sessions", "."), 6, "no *.jsonl file"),
        (("backfill", "--sessions", "/nowhere/at/all"), 6, "no sessions folder /nowhere"),
        (("backfill", "--json", "rollback", "x"), 2, "none of backfill's own options"),
        (("sessions", "show", "/nowhere.jsonl"), 6, "no file /nowhere.jsonl"),
        (("sessions", "show", "/etc"), 6, "a folder is there"),
        (("run", "--set", "training=1"), 2, "SECTION.FIELD=VALUE"),
        (("run", "--dry-run", "--set", "training.max_steps=many"), 2, "max_steps"),
        (("status",), 6, "toolcall-pipeline run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_call_says_what_to_do_and_exits_with_its_code(
    tmp_path: Path, arguments: tuple[str, ...], exit_code: int, says: str
) -> None:
    done = run(*arguments, home=tmp_path)
    assert done.returncode == exit_code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_two_backfills_of_one_second_are_two_runs(tmp_path: Path) -> None:
    settings, now = Settings(home=tmp_path), datetime(2026, 11, 26, 4, 13, 2, tzinfo=UTC)
    with own_partition(settings, now) as one, own_partition(settings, now) as two:
        assert (one, two) == ("20261126T041302Z-manual", "20261126T041303Z-manual")
    with own_partition(settings, now) as again:
        assert again == one


def test_a_state_folder_that_cannot_be_written_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the state folder should be")
    done = run("run", home=tmp_path, state=tmp_path / "home")
    assert done.returncode == 3, done.stderr
    assert str(tmp_path / "home") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_went_away_is_no_gate_that_held(tmp_path: Path) -> None:
    nobody_reads, stdout = os.pipe()
    os.close(nobody_reads)
    done = run("parse-completion", home=tmp_path, stdin="a completion", stdout=stdout)
    os.close(stdout)
    assert done.returncode == 3
    assert done.stderr == ""


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    done = run("run", "--dry-run", "--until", "v2_chat_dataset", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "would be made" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_secret_does_not_come_through_the_filter(tmp_path: Path) -> None:
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    done = run("redact", "--report", home=tmp_path, stdin=f"export GITHUB_TOKEN={token}\nplain line\n")
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout
    assert done.stdout.endswith("plain line\n")
    assert "github" in done.stderr
    assert json.loads(done.stderr.splitlines()[-1])


def test_completions_are_read_from_standard_input(tmp_path: Path) -> None:
    line = json.dumps(
        {"id": "x", "text": '<tool_call>\n{"name": "Bash", "arguments": {"command": "ls"}}\n</tool_call>'}
    )
    done = run("parse-completion", home=tmp_path, stdin=line + "\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls"] == [{"name": "Bash", "arguments": {"command": "ls"}}]

"""Planted secrets are searched for in everything a run leaves: files, rows, Dagster's event log, output, dumps."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.settings import Settings
from toolcall_pipeline_tests.redaction.held_out import planted
from toolcall_pipeline_tests.store.transcripts import Transcript

USER = "quentinia"
KINDS = {"github", "anthropic", "aws", "stripe", "jwt", "url_password", "private_key_escaped", "told", "docker_config", "TWILIO_AUTH_TOKEN"}  # fmt: skip


def _canaries() -> list[tuple[str, str]]:
    """Return (text, the piece of the secret to look for)."""
    items = [item for item in planted(1) if item.kind in KINDS]
    assert len({item.kind for item in items}) == len(KINDS)
    return [(item.text, item.secret[-12:]) for item in items]


def _write_sessions(folder: Path, canaries: list[tuple[str, str]]) -> None:
    for number, (words, _) in enumerate(canaries):
        session = Transcript(folder / f"-home-{USER}-app" / f"s{number}.jsonl", cwd=f"/home/{USER}/app{number}")
        session.prompt(f"please use this: {words}")
        call = session.call("Bash", {"command": words, "nested": {"deep": [json.dumps({"x": words})]}})
        session.result(call, f"exit 1\n{words}", is_error=True)
        session.call(words[:60] if number == 0 else "Read", {"file_path": f"/home/{USER}/{number}"})
        session.answer(f"I have seen {words}")
        with session.path.open("a", encoding="utf-8") as stream:
            stream.write(f'{{"type":"user","uuid":"broken {json.dumps(words)[1:-1]}\n')


def _run(settings: Settings, *arguments: str) -> tuple[int, bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TOOLCALL_", "DAGSTER_"))}
    environment |= {"TOOLCALL_PIPELINE_HOME": str(settings.home_dir), "DATABASE_URL": settings.database_url or ""}
    done = subprocess.run(
        [sys.executable, "-m", "toolcall_pipeline.cli", *arguments],
        capture_output=True,
        env=environment,
        check=False,
        cwd=settings.home_dir,
    )
    return done.returncode, done.stdout + done.stderr


def _rows(engine: Engine) -> dict[str, bytes]:
    """Return every row of every table, Dagster's own included, as text."""
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'dagster')")
        ).all()
        assert {schema for schema, _ in tables} == {"public", "dagster"}
        found = {}
        for schema, table in tables:
            rows = connection.execute(text(f'SELECT t::text FROM "{schema}"."{table}" t')).scalars()
            found[table] = "\n".join(rows).encode()
    return found


def _files(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found[str(path.relative_to(folder))] = gzip.decompress(data) if path.suffix == ".gz" else data
    return found


@pytest.mark.slow
def test_no_planted_secret_is_left_in_anything_a_run_leaves(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    canaries = _canaries()
    sessions = tmp_path / "sessions"
    _write_sessions(sessions, canaries)
    settings.home_dir.mkdir(parents=True, exist_ok=True)
    partition = "20261123T020000Z-canary"

    left: dict[str, bytes] = {}
    for arguments in (
        ("backfill", "--sessions", str(sessions), "--json"),
        ("run", "--partition", partition, "--preset", "smoke", "--sessions", str(sessions), "--until", "v2_chat_dataset"),
        ("status", partition, "--json"),
        ("secrets", "list", partition),
        ("projects", "consolidate", "--json"),
        ("db", "backup"),
    ):  # fmt: skip
        code, output = _run(settings, *arguments)
        assert code in (0, 1), output.decode(errors="replace")
        left[" ".join(arguments[:2])] = output
    rows = _rows(engine)
    left |= rows
    left |= _files(settings.home_dir)

    assert b"REDACTED" in rows["mem_tool_calls"]
    assert any(name.endswith(".sql.gz") for name in left)
    found = {
        (name, needle)
        for needle in [piece for _, piece in canaries]
        for name, data in left.items()
        if needle.encode() in data or needle.replace("\n", "\\n").encode() in data
    }
    assert not found, sorted(found)
    # The frozen list of files, the ledger and its dump keep where the files are: they are read again from there.
    named = {
        name
        for name, data in left.items()
        if USER.encode() in data and not name.startswith(("artifacts/jsonl_sessions/", "backups/", "mem_session_files"))
    }
    assert not named, sorted(named)

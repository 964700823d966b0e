"""Small Claude Code transcripts for tests, and a night of the pipeline's data half."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.sessions.stage import freeze_sessions
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store.ledger import load_ledger
from toolcall_pipeline.store.runs import register_run
from toolcall_pipeline.store.stage import LinkOptions, link_tool_calls

NIGHTS = tuple(f"202611{day:02d}T020000Z-nightly" for day in range(1, 10))


@dataclass
class Transcript:
    """One session file, written line by line; every method continues from `parent`, or from the last line."""

    path: Path
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    cwd: str = "/home/alice/garden"
    last: str | None = None
    minute: int = 0
    fields: dict[str, Any] = field(default_factory=dict)

    def prompt(self, words: str, *, parent: str | None = None) -> str:
        return self._line("user", {"role": "user", "content": words}, parent)

    def answer(self, words: str, *, parent: str | None = None) -> str:
        return self._assistant([{"type": "text", "text": words}], parent)

    def call(
        self, name: str, tool_input: dict[str, Any], *, parent: str | None = None, tool_id: str | None = None
    ) -> str:
        """Write a call and return its tool_use id; the line's own id is then `last`."""
        tool_id = tool_id or f"toolu_01{uuid.uuid4().hex[:22]}"
        self._assistant([{"type": "tool_use", "id": tool_id, "name": name, "input": tool_input}], parent)
        return tool_id

    def result(self, tool_id: str, words: str, *, parent: str | None = None, is_error: bool = False) -> str:
        block = {"type": "tool_result", "tool_use_id": tool_id, "content": words, "is_error": is_error}
        return self._line("user", {"role": "user", "content": [block]}, parent)

    def turn(self, words: str, file: str, answer: str) -> str:
        """Write a prompt, a Read with its result and an answer; return the prompt's id."""
        prompt = self.prompt(words)
        self.result(self.call("Read", {"file_path": file}), f"content of {file}")
        self.answer(answer)
        return prompt

    def compaction(self, summary: str) -> None:
        """Write a compaction's boundary and its summary."""
        boundary = {"type": "system", "subtype": "compact_boundary", "logicalParentUuid": self.last, "parentUuid": None}
        self._line("system", {}, None, **boundary)
        self._line("user", {"role": "user", "content": summary}, None, isCompactSummary=True)

    def copy_of(self, other: Transcript) -> None:
        """Begin with another session's history under this session's id, as resuming does."""
        for line in other.path.read_text(encoding="utf-8").splitlines():
            self._write({**json.loads(line), "sessionId": self.session_id})
        self.last, self.minute = other.last, other.minute

    def copy_under_new_ids(self, *, into: Path | None = None, session_id: str | None = None) -> None:
        """Write this session's own lines so far again, under new uuids, as some versions do on resuming or forking.

        Args:
            into: The file they and all later lines go to; None appends.
            session_id: Of a fork; None stays in the session.
        """
        renamed: dict[str, str] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines()
        self.path = into or self.path
        self.session_id = session_id or self.session_id
        for line in lines:
            value = json.loads(line)
            renamed[value["uuid"]] = self.last = str(uuid.uuid4())
            above = {name: renamed.get(value[name]) for name in ("parentUuid", "logicalParentUuid") if name in value}
            self._write({**value, "uuid": self.last, "sessionId": self.session_id, **above})

    def _assistant(self, content: list[dict[str, Any]], parent: str | None) -> str:
        message = {"id": f"msg_{uuid.uuid4().hex}", "role": "assistant", "model": "claude-test", "content": content}
        return self._line("assistant", message, parent)

    def _line(self, kind: str, message: dict[str, Any], parent: str | None, **fields: Any) -> str:
        node = str(uuid.uuid4())
        self.minute += 1
        self._write(
            {
                "type": kind,
                "uuid": node,
                "parentUuid": parent or self.last,
                "sessionId": self.session_id,
                "cwd": self.cwd,
                "gitBranch": "main",
                "version": "2.1.40",
                "isSidechain": False,
                "userType": "external",
                "timestamp": f"2026-10-01T{self.minute // 60:02d}:{self.minute % 60:02d}:00.000Z",
                "message": message,
                **self.fields,
                **fields,
            }
        )
        self.last = node
        return node

    def _write(self, value: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(value) + "\n")


def context_for(settings: Settings, engine: Engine, partition: str) -> StageContext:
    return StageContext(partition=partition, configuration=PRESETS["nightly"], settings=settings, engine=engine)


def freeze(context: StageContext, folder: Path) -> Artifact:
    register_run(context.engine, context.partition, context.configuration)
    return freeze_sessions(context, sessions_dir=folder, previous=load_ledger(context.engine))


def night(
    settings: Settings, engine: Engine, folder: Path, partition: str, options: LinkOptions | None = None
) -> Artifact:
    """Freeze and link one partition."""
    context = context_for(settings, engine, partition)
    freeze(context, folder)
    return link_tool_calls(context, options=options)


def values(engine: Engine, statement: str, **parameters: Any) -> list[Any]:
    """Return rows as tuples, or single values where there is one column."""
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(statement), parameters)]
    return [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows

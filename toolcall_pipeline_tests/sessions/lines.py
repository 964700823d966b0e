"""Small Claude Code lines for tests: every helper returns one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolcall_pipeline.sessions.events import Event, GraphNode, MalformedLine
from toolcall_pipeline.sessions.graph import Resolution, resolve
from toolcall_pipeline.sessions.reading import SessionFileReader

SESSION = "11111111-2222-4333-8444-555555555555"


def line(kind: str, uuid: str | None, parent: str | None = None, **fields: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "type": kind,
        "sessionId": SESSION,
        "parentUuid": parent,
        "isSidechain": False,
        "version": "2.1.40",
    }
    if uuid is not None:
        data |= {"uuid": uuid, "timestamp": "2026-09-01T08:00:00.000Z"}
    return data | fields


def user(uuid: str | None, parent: str | None, content: Any, **fields: Any) -> dict[str, Any]:
    return line("user", uuid, parent, message={"role": "user", "content": content}, **fields)


def text(uuid: str | None, parent: str | None, words: str, message: str | None = None, **fields: Any) -> dict[str, Any]:
    return assistant(uuid, parent, [{"type": "text", "text": words}], message, **fields)


def call(
    uuid: str | None, parent: str | None, tool_id: str, message: str | None = None, name: str = "Bash", **fields: Any
) -> dict[str, Any]:
    block = {"type": "tool_use", "id": tool_id, "name": name, "input": fields.pop("tool_input", {"command": "ls"})}
    return assistant(uuid, parent, [block], message, **fields)


def assistant(
    uuid: str | None, parent: str | None, blocks: list[Any], message: str | None = None, **fields: Any
) -> dict[str, Any]:
    body = {"id": message or f"msg_{uuid}", "role": "assistant", "model": "claude-sonnet-4-6", "content": blocks}
    return line("assistant", uuid, parent, message=body, **fields)


def result(uuid: str, parent: str | None, tool_id: str, content: Any = "ok", **fields: Any) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": tool_id, "content": content, **fields.pop("block", {})}
    return user(uuid, parent, [block, *fields.pop("beside", [])], **fields)


def queue(operation: str, content: Any = None, **fields: Any) -> dict[str, Any]:
    data = {
        "type": "queue-operation",
        "operation": operation,
        "sessionId": SESSION,
        "timestamp": "2026-09-01T08:00:01.000Z",
    }
    return data | ({} if content is None else {"content": content}) | fields


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in lines), encoding="utf-8")
    return path


class Read:
    """A file read to its end: nodes, events, malformed lines, and the graph's resolution."""

    def __init__(self, path: Path, format: str = "claude_code") -> None:
        self.reader = SessionFileReader(path, relative_path=path.name, format=format)
        records = list(self.reader)
        self.nodes = [record for record in records if isinstance(record, GraphNode)]
        self.events = [record for record in records if isinstance(record, Event)]
        self.malformed = [record for record in records if isinstance(record, MalformedLine)]
        self.account = self.reader.account

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def event(self, event_id: str) -> Event:
        return next(event for event in self.events if event.event_id == event_id)

    @property
    def graph(self) -> Resolution:
        return resolve(self.nodes)


def read(tmp_path: Path, lines: list[dict[str, Any]]) -> Read:
    return Read(write(tmp_path / "session.jsonl", lines))

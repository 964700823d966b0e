"""Write transcripts the way Claude Code does: one line per content block, a parent for every line, results as user lines."""

from __future__ import annotations

import copy
import json
import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from toolcall_pipeline.sessions.sample_tasks import Call, Task
from toolcall_pipeline.sessions.sample_world import Project

VERSION = "2.1.40"
_MODEL = "claude-sonnet-4-6"
_START = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789"


class Transcript:
    """One session file while it is written.

    Attributes:
        lines: JSON objects so far.
        head: Node the next line hangs below.
        session_id: The session's id.
    """

    def __init__(self, chance: random.Random, project: Project, *, day: int, agent_id: str | None = None) -> None:
        self.chance = chance
        self.project = project
        self.session_id = self.new_id()
        self.agent_id = agent_id
        self.lines: list[dict[str, Any]] = []
        self.head: str | None = None
        self._time = _START + timedelta(days=day, minutes=chance.randint(0, 400))

    def new_id(self) -> str:
        """Return a fresh uuid."""
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def token(self, prefix: str, length: int = 24) -> str:
        """Return a fresh id such as `toolu_01...`."""
        return prefix + "".join(self.chance.choice(_ALPHABET) for _ in range(length))

    def now(self) -> str:
        """Return the next time stamp; every line is a little later than the one before."""
        self._time += timedelta(milliseconds=self.chance.randint(400, 9000))
        return self._time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self._time.microsecond // 1000:03d}Z"

    def node(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Add a line that is a node below `head`, make it the head, and return it."""
        line: dict[str, Any] = {
            "parentUuid": self.head,
            "isSidechain": self.agent_id is not None,
            "userType": "external",
            "cwd": self.project.root,
            "sessionId": self.session_id,
            "version": VERSION,
            "gitBranch": self.project.branch,
            "type": kind,
            **fields,
            "uuid": self.new_id(),
            "timestamp": self.now(),
        }
        if self.agent_id is not None:
            line["agentId"] = self.agent_id
        self.lines.append(line)
        self.head = line["uuid"]
        return line

    def note(self, kind: str, **fields: Any) -> None:
        """Add a line outside the graph."""
        self.lines.append({"type": kind, **fields})

    def prompt(self, text: str, **fields: Any) -> dict[str, Any]:
        """Add what a person typed."""
        if self.agent_id is None:
            self.note("file-history-snapshot", messageId=self.new_id(), snapshot={}, isSnapshotUpdate=False)
        return self.node("user", message={"role": "user", "content": text}, **fields)

    def message(self, blocks: list[dict[str, Any]]) -> list[str]:
        """Add an assistant message, one line per block with the same message id; return the lines' ids."""
        message_id, request_id = self.token("msg_01", 22), self.token("req_011C", 20)
        written = []
        for block in blocks:
            message = {
                "model": _MODEL,
                "id": message_id,
                "type": "message",
                "role": "assistant",
                "content": [block],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 3, "output_tokens": self.chance.randint(5, 90)},
            }
            written.append(self.node("assistant", message=message, requestId=request_id)["uuid"])
        return written

    def say(self, text: str) -> None:
        """Add an assistant message that is text only."""
        self.message([{"type": "text", "text": text}])

    def call(
        self, calls: tuple[Call, ...], thought: str = "", *, answer: bool = True, **result_fields: Any
    ) -> list[str]:
        """Add a message with one or more parallel calls and their results; return the tool_use ids."""
        ids = [self.token("toolu_01") for _ in calls]
        blocks: list[dict[str, Any]] = [{"type": "text", "text": thought}] if thought else []
        blocks += [
            {"type": "tool_use", "id": tool_id, "name": call.name, "input": call.arguments}
            for tool_id, call in zip(ids, calls, strict=True)
        ]
        nodes = self.message(blocks)[-len(calls) :]
        if answer:
            for tool_id, call, node in zip(ids, calls, nodes, strict=True):
                self.head = node
                self.result(tool_id, call, **result_fields)
        return ids

    def result(self, tool_id: str, call: Call, **fields: Any) -> None:
        """Add a call's result below the line that made it."""
        block: dict[str, Any] = {"tool_use_id": tool_id, "type": "tool_result", "content": call.result}
        if call.is_error:
            block["is_error"] = True
        self.node("user", message={"role": "user", "content": [block]}, **{"toolUseResult": call.result, **fields})

    def task(self, task: Task) -> None:
        """Add a whole episode: prompt, calls with results, answer."""
        self.prompt(task.prompt)
        for number, calls in enumerate(task.steps):
            self.call(calls, task.thought if number == 0 else "")
        self.say(task.answer)
        self.node("system", subtype="turn_duration", durationMs=self.chance.randint(900, 9000), isMeta=False)

    def resumed(self) -> Transcript:
        """Return a second file that begins with a copy of this one's history under a new session id."""
        other = Transcript(self.chance, self.project, day=0)
        other._time = self._time + timedelta(hours=5)
        other.lines = copy.deepcopy([line for line in self.lines if "uuid" in line])
        for line in other.lines:
            line["sessionId"] = other.session_id
        other.head = self.head
        return other

    def text(self) -> str:
        """Return the file's content."""
        return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in self.lines)

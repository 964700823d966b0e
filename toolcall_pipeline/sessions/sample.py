"""Sample sessions of our own: what `run` uses when it is given no folder.

Claude Code files of five invented projects with everything that breaks naive readers in them: a rewind, a resume that
copies history, compaction, sub-agents in two layouts, parallel calls, errors, an interruption, slash commands, a queued
prompt, and secrets to redact. Seeded: the same seed writes the same bytes. Episodes made from them are synthetic.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import write_atomically
from toolcall_pipeline.sessions.sample_tasks import TASKS, Call, Maker, Task, read_call
from toolcall_pipeline.sessions.sample_transcript import Transcript
from toolcall_pipeline.sessions.sample_world import Project, SourceFile, make_projects

SESSIONS_PER_PROJECT = 10
_TASKS_PER_SESSION = (2, 3)
_HEX = "0123456789abcdef"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_BASE62 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def write_sample_sessions(folder: Path, *, seed: int = 7) -> list[Path]:
    """Write the sample sessions below a folder; a file that already holds the same bytes is left alone.

    Args:
        folder: Made where it is missing; laid out like `~/.claude/projects`.
        seed: Another seed gives other sessions.

    Returns:
        The files, sorted.
    """
    paths = []
    for name, text in sorted(sample_files(seed).items()):
        path = folder / name
        if not path.is_file() or path.read_bytes() != text.encode():
            write_atomically(path, text)
        paths.append(path)
    return paths


def sample_files(seed: int) -> dict[str, str]:
    """Return the sample sessions: relative path to content."""
    chance = random.Random(seed)
    files: dict[str, str] = {}
    for project in make_projects(chance):
        chooser = _Chooser(chance, project)
        for number in range(SESSIONS_PER_PROJECT):
            transcript = Transcript(chance, project, day=number)
            for _ in range(chance.choice(_TASKS_PER_SESSION)):
                transcript.task(chooser.next())
            extras = _SCENES[number](transcript, chooser) if number < len(_SCENES) else []
            for item in [transcript, *extras]:
                files[_path(item)] = item.text()
    return files


def _path(transcript: Transcript) -> str:
    folder = transcript.project.slug
    if transcript.agent_id is not None:
        return f"{folder}/{transcript.session_id}/subagents/agent-{transcript.agent_id}.jsonl"
    return f"{folder}/{transcript.session_id}.jsonl"


class _Chooser:
    """Chooses tasks of a project so that no prompt comes twice."""

    def __init__(self, chance: random.Random, project: Project) -> None:
        self.chance = chance
        self.project = project
        self._makers = [maker for maker, weight in TASKS for _ in range(weight)]
        self._queue: list[Maker] = []
        self._taken: set[str] = set()

    def file(self) -> SourceFile:
        """Return one of the project's modules."""
        return self.chance.choice(self.project.files)

    def next(self) -> Task:
        """Return a task whose prompt was not given before; kinds come in their shares."""
        task = self._draw()
        for _ in range(200):
            if task.prompt not in self._taken:
                break
            task = self._draw()
        self._taken.add(task.prompt)
        return task

    def _draw(self) -> Task:
        if not self._queue:
            self._queue = self.chance.sample(self._makers, len(self._makers))
        return self._queue.pop()(self.chance, self.project, self.file())


def _rewind(transcript: Transcript, chooser: _Chooser) -> list[Transcript]:
    """The person goes back before their last prompt and types another one; the first branch stays in the file."""
    fork = transcript.head
    transcript.task(chooser.next())
    transcript.head = fork
    transcript.task(chooser.next())
    return []


def _resume(transcript: Transcript, chooser: _Chooser) -> list[Transcript]:
    """The session is resumed in a second file that copies the history, and goes on there."""
    other = transcript.resumed()
    other.task(chooser.next())
    return [other]


def _compaction(transcript: Transcript, chooser: _Chooser) -> list[Transcript]:
    """The context is summarised; a boundary starts a new root and names what it continues."""
    before = transcript.head
    transcript.head = None
    transcript.node(
        "system",
        subtype="compact_boundary",
        content="Conversation compacted",
        logicalParentUuid=before,
        compactMetadata={"trigger": "auto", "preTokens": 155_000},
    )
    summary = "This session is being continued from a previous conversation that ran out of context. Files were read and changed."
    transcript.node(
        "user",
        message={"role": "user", "content": summary},
        isCompactSummary=True,
        isVisibleInTranscriptOnly=True,
    )
    transcript.task(chooser.next())
    return []


def _sub_agent(transcript: Transcript, chooser: _Chooser) -> list[Transcript]:
    """A sub-agent works in a file of its own; the call's result names it."""
    file = chooser.file()
    agent = _agent(transcript, file)
    transcript.prompt(f"Let a helper find out what {file.thing}.py limits.")
    call = Call("Task", _agent_arguments(file), f"{file.limit} = {file.value}")
    transcript.call((call,), toolUseResult={"agentId": agent.agent_id, "status": "completed", "totalToolUseCount": 1})
    transcript.say(f"The helper says: {file.limit} is {file.value}.")
    return [agent]


def _agent_arguments(file: SourceFile) -> dict[str, Any]:
    return {
        "description": f"Look into {file.thing}.py",
        "prompt": f"Read {file.path} and name its limit.",
        "subagent_type": "Explore",
    }


def _agent(transcript: Transcript, file: SourceFile) -> Transcript:
    agent_id = "a" + "".join(transcript.chance.choice(_HEX) for _ in range(16))
    agent = Transcript(transcript.chance, transcript.project, day=3, agent_id=agent_id)
    agent.session_id = transcript.session_id
    agent.prompt(_agent_arguments(file)["prompt"])
    agent.call((read_call(file),))
    agent.say(f"{file.limit} = {file.value}")
    return agent


def _nested_agent(transcript: Transcript, chooser: _Chooser) -> list[Transcript]:
    """A sub-agent whose messages exist in progress lines only."""
    file = chooser.file()
    agent = _agent(transcript, file)
    transcript.prompt(f"Ask a helper for the limit in {file.path}.")
    (tool_id,) = transcript.call((Call("Task", _agent_arguments(file), ""),), answer=False)
    asked = transcript.head
    for line in agent.lines:
        inner = {key: line[key] for key in ("type", "message", "uuid", "timestamp")}
        data: dict[str, Any] = {
            "type": "agent_progress",
            "message": inner,
            "normalizedMessages": [],
            "agentId": agent.agent_id,
        }
        transcript.node("progress", data=data, toolUseID=transcript.token("agent_msg_01"), parentToolUseID=tool_id)
    transcript.head = asked
    transcript.result(tool_id, Call("Task", {}, f"{file.limit} = {file.value}"))
    transcript.say(f"{file.limit} is {file.value}, says the helper.")
    return []


def _interruption(transcript: Transcript, chooser: _Chooser) -> list[Transcript]:
    """The person stops a call and asks for something else."""
    file = chooser.file()
    transcript.prompt(f"Delete {file.path}.")
    command = {"command": f"rm {file.path}", "description": "Delete the file"}
    refused = Call(
        "Bash", command, "The user doesn't want to proceed with this tool use. The tool use was rejected.", True
    )
    transcript.call((refused,))
    transcript.node(
        "user",
        message={"role": "user", "content": [{"type": "text", "text": "[Request interrupted by user for tool use]"}]},
    )
    transcript.task(chooser.next())
    return []


def _commands(transcript: Transcript, chooser: _Chooser) -> list[Transcript]:
    """A slash command with its output, and a prompt typed while the agent was working."""
    transcript.node(
        "user",
        message={
            "role": "user",
            "content": "Caveat: The messages below were generated by the user while running local commands.",
        },
        isMeta=True,
    )
    command = (
        "<command-name>/cost</command-name>\n<command-message>cost</command-message>\n<command-args></command-args>"
    )
    transcript.node("user", message={"role": "user", "content": command})
    output = "<local-command-stdout>Total cost: $0.12</local-command-stdout>"
    transcript.node("user", message={"role": "user", "content": output})
    task, queued = chooser.next(), chooser.next()
    transcript.prompt(task.prompt)
    for calls in task.steps:
        transcript.call(calls)
    fields = {"sessionId": transcript.session_id}
    transcript.note("queue-operation", operation="enqueue", timestamp=transcript.now(), content=queued.prompt, **fields)
    transcript.note("queue-operation", operation="remove", timestamp=transcript.now(), **fields)
    for calls in queued.steps:
        transcript.call(calls)
    transcript.say(queued.answer)
    return []


def _secrets(transcript: Transcript, chooser: _Chooser) -> list[Transcript]:
    """Secrets in a prompt, a command and a result, all invented."""
    chance, project = transcript.chance, transcript.project
    password, key, secret, token = (
        _random_text(chance, alphabet, length)
        for alphabet, length in ((_BASE62, 18), (_LETTERS, 16), (_BASE62, 40), (_BASE62, 36))
    )
    settings = (
        f"DATABASE_URL=postgres://app:{password}@db.{project.name}.internal:5432/{project.name}\n"
        f"AWS_ACCESS_KEY_ID=AKIA{key}\nAWS_SECRET_ACCESS_KEY={secret}\nOWNER={project.owner}@{project.name}.example"
    )
    path = f"{project.root}/.env"
    transcript.prompt(f"Which settings are in {path}?")
    transcript.call((Call("Read", {"file_path": path}, settings),))
    transcript.say("It sets the database address, an access key with its secret, and the owner.")
    github = "gh" + "p_" + token
    transcript.prompt(f"My token is {github}, use it to list our open issues.")
    command = f'curl -s -H "Authorization: Bearer {github}" https://api.github.com/repos/{project.owner}/{project.name}/issues'
    transcript.call((Call("Bash", {"command": command, "description": "List open issues"}, "[]"),))
    transcript.say("There are no open issues.")
    return []


def _random_text(chance: random.Random, alphabet: str, length: int) -> str:
    return "".join(chance.choice(alphabet) for _ in range(length))


_SCENES: tuple[Callable[[Transcript, _Chooser], list[Transcript]], ...] = (
    _rewind,
    _resume,
    _compaction,
    _sub_agent,
    _nested_agent,
    _interruption,
    _commands,
    _secrets,
)
"""What happens at the end of a project's first sessions; the others are plain."""

"""What the dataset reads back from the store: episodes, all redacted, all on the active branch.

Only the shapes are here; `reading.py` fills them from PostgreSQL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredCall:
    """One tool call with its result.

    Attributes:
        event_id: Identity of the call (tool_use id).
        tool_name: As the agent named it.
        tool_input: Redacted arguments, an object (or whatever the session held).
        response: Redacted result text, None where there is none.
        is_error, is_rejected, is_interrupted: What became of it.
        truncated_at_bytes: Set when the stored input was cut; such a call is never supervised.
        source_file, source_line: Where the call stands.
    """

    event_id: str
    tool_name: str
    tool_input: Any
    response: str | None
    is_error: bool
    is_rejected: bool
    is_interrupted: bool
    truncated_at_bytes: int | None
    source_file: str
    source_line: int
    has_image: bool = False


@dataclass(frozen=True, slots=True)
class AssistantStep:
    """One assistant message: text, then zero or more calls made together, in order."""

    text: str
    calls: tuple[StoredCall, ...]
    event_ids: tuple[str, ...]
    source_file: str
    source_line: int
    turn_subindex: int


@dataclass(frozen=True, slots=True)
class Episode:
    """A prompt and everything the agent did until the next one.

    Attributes:
        prompt_event_id: Identity of the prompt; identifies the episode.
        prompt_text: Redacted.
        steps: Assistant messages in order.
        session_id, family_id: Resumes, forks and sub-agents of one session share the family.
        turn_index: Number of the prompt on the active branch, from 0.
        project_root: Canonical root path (redacted user name), `git_remote` None where unknown.
        project_kind: git | non-git | ephemeral.
        agent, agent_version: Such as `claude_code`, `2.1.37`.
        backfill_run_ids: Runs whose rows the episode needs, oldest first; `freeze_number` is the newest's.
        is_synthetic: From generated or sample sessions.
        is_sub_agent: The conversation of a sub-agent (its prompt was written by the main agent).
        is_interrupted: The user stopped it.
        offered_tools: Tools the session says the agent had (names, or full definitions), empty where it does not say.
        system_prompt: Where the session records one.
    """

    prompt_event_id: str
    prompt_text: str
    steps: tuple[AssistantStep, ...]
    session_id: str
    family_id: str
    turn_index: int
    project_root: str
    git_remote: str | None
    project_kind: str
    agent: str
    agent_version: str | None
    backfill_run_ids: tuple[str, ...]
    freeze_number: int
    is_synthetic: bool
    is_sub_agent: bool
    is_interrupted: bool
    source_file: str
    source_line: int
    cwd: str | None = None
    has_image: bool = False
    offered_tools: tuple[Any, ...] = field(default_factory=tuple)
    system_prompt: str | None = None

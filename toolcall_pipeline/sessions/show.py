"""The conversation of one session file as the pipeline understands it: turns, branches, what is dropped and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from toolcall_pipeline.errors import MissingInputError, UsageError
from toolcall_pipeline.sessions.discovery import sniff_format
from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, MalformedLine
from toolcall_pipeline.sessions.formats import FORMATS
from toolcall_pipeline.sessions.graph import Resolution, resolve
from toolcall_pipeline.sessions.reading import SessionFileReader

_SHOWN_CHARACTERS = 200
_SHOWN_DROPPED = 5


class ShownCall(BaseModel):
    """A call and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    tool_name: str
    tool_input: str
    result: str | None = None
    result_line: int | None = None
    outcome: str = Field(description="ok, error, rejected, or no_result")


class ShownStep(BaseModel):
    """One assistant message: its texts and its calls."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    text: str
    calls: tuple[ShownCall, ...]


class ShownTurn(BaseModel):
    """A prompt and what the agent did until the next one; prompt and line are None before the first prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_id: str
    agent_id: str | None
    turn_index: int
    line: int | None
    prompt: str | None
    prompt_kind: str
    steps: tuple[ShownStep, ...]
    spawned_by: str | None = None
    spawned_in_line: int | None = None


class Dropped(BaseModel):
    """Something that does not become a turn, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    what: str
    reason: str
    text: str = ""


class SessionView(BaseModel):
    """A session file as understood."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    format: str
    session_ids: tuple[str, ...]
    turns: tuple[ShownTurn, ...]
    dropped: tuple[Dropped, ...]
    counts: dict[str, int]


def show_session(path: Path) -> SessionView:
    """Read one session file and return what the pipeline makes of it.

    Only this file is looked at: history that stands in other files (resumes, sub-agents) is missing here, not in a run.

    Raises:
        MissingInputError: The file is not there.
        UsageError: No reader knows its format.
    """
    if not path.is_file():
        found = " (a folder is there)" if path.is_dir() else ""
        raise MissingInputError(f"There is no file {path}{found}. Give a session file (*.jsonl).")
    if path.stat().st_size == 0:
        raise UsageError(f"{path} is empty: there is no conversation in it.")
    format_name = sniff_format(path)
    if format_name not in FORMATS:
        raise UsageError(f"{path} is in no format this project reads. Known formats: {', '.join(FORMATS)}.")
    reader = SessionFileReader(path, relative_path=path.name, format=format_name)
    nodes: list[GraphNode] = []
    events: dict[str, Event] = {}
    dropped: list[Dropped] = []
    for record in reader:
        if isinstance(record, GraphNode):
            nodes.append(record)
        elif isinstance(record, MalformedLine):
            dropped.append(Dropped(line=record.location.line, what="line", reason=record.reason))
        elif record.event_id in events:
            dropped.append(_drop(record, "the same event stands in an earlier line"))
        else:
            events[record.event_id] = record
    resolution = resolve(nodes)
    turns, not_shown = _turns(events, resolution)
    return SessionView(
        file=str(path),
        format=format_name,
        session_ids=tuple(sorted(reader.session_ids)),
        turns=turns,
        dropped=tuple(sorted([*dropped, *not_shown], key=lambda item: item.line)),
        counts={name: count for name, count in msgspec.structs.asdict(reader.account).items() if count},
    )


def _turns(events: dict[str, Event], resolution: Resolution) -> tuple[tuple[ShownTurn, ...], list[Dropped]]:
    rank = {node_id: index for index, node_id in enumerate(resolution.order)}
    results = {event.event_id: event for event in events.values() if event.kind is EventKind.TOOL_RESULT}
    grouped: dict[tuple[str | None, str], list[Event]] = defaultdict(list)
    prompts: dict[tuple[str | None, str], Event] = {}
    dropped: list[Dropped] = []
    for event in sorted(events.values(), key=lambda item: rank[item.node_id]):
        if event.node_id in resolution.superseded:
            dropped.append(_drop(event, f"on a branch that was left: {resolution.superseded[event.node_id]}"))
        elif event.kind in (EventKind.PROMPT, EventKind.ASSISTANT_TEXT, EventKind.TOOL_CALL):
            above = resolution.prompt_above[event.node_id]
            key = (event.agent_id, above or f"{event.session_id} before the first prompt")
            grouped[key].append(event)
            if event.kind is EventKind.PROMPT:
                prompts[key] = event
        elif event.kind is not EventKind.TOOL_RESULT:
            dropped.append(
                _drop(event, _REASONS.get(event.subkind or "", f"{event.subkind or event.kind}: nobody typed it"))
            )
    dropped += _results_without_call(events, results)
    lines = {event_id: event.location.line for event_id, event in events.items()}
    turns = [_turn(prompts.get(key), found, results, resolution, lines) for key, found in grouped.items()]
    return tuple(sorted(turns, key=lambda turn: (turn.agent_id is not None, _first_line(turn)))), dropped


def _first_line(turn: ShownTurn) -> int:
    return turn.line if turn.line is not None else turn.steps[0].line


_REASONS = {
    "slash_command": "command of the agent's program; no prompt, though it may start a turn",
    "bash_input": "shell command the person ran; no prompt, though it may start a turn",
    "compaction_summary": "summary written by the agent when its context was full",
    "boundary": "place where the context was summarised",
    "synthetic": "line the agent's program wrote in the model's name",
    "api_error": "error of the model's service",
    "interruption": "the person stopped the agent",
    "hook_message": "message of a hook that stopped the prompt above it",
    "hosted_call": "search or picture the model's provider made itself; its result is not recorded",
}


def _results_without_call(events: dict[str, Event], results: dict[str, Event]) -> list[Dropped]:
    return [
        _drop(result, "its call is not in this file")
        for event_id, result in results.items()
        if event_id.removesuffix(":result") not in events
    ]


def _turn(
    prompt: Event | None,
    found: list[Event],
    results: dict[str, Event],
    resolution: Resolution,
    lines: dict[str, int],
) -> ShownTurn:
    first = prompt or found[0]
    spawned_by = resolution.spawned_by.get(first.agent_id or "")
    steps: dict[str, list[Event]] = defaultdict(list)
    for event in found:
        if event.kind is not EventKind.PROMPT:
            steps[event.message_id or event.node_id].append(event)
    return ShownTurn(
        session_id=first.session_id,
        agent_id=first.agent_id,
        turn_index=resolution.turn_index[first.node_id],
        line=prompt.location.line if prompt else None,
        prompt=prompt.text if prompt else None,
        prompt_kind=(prompt.subkind or "typed") if prompt else "none",
        steps=tuple(_step(group, results) for group in steps.values()),
        spawned_by=spawned_by,
        spawned_in_line=lines.get(spawned_by or ""),
    )


def _step(group: list[Event], results: dict[str, Event]) -> ShownStep:
    texts = [event.text or "" for event in group if event.kind is EventKind.ASSISTANT_TEXT]
    calls = [event for event in group if event.kind is EventKind.TOOL_CALL]
    return ShownStep(
        line=group[0].location.line,
        text="\n".join(texts),
        calls=tuple(_call(event, results.get(f"{event.event_id}:result")) for event in calls),
    )


def _call(call: Event, result: Event | None) -> ShownCall:
    outcome = "no_result"
    if result is not None:
        outcome = "rejected" if result.is_rejected else "error" if result.is_error else "ok"
    return ShownCall(
        line=call.location.line,
        tool_name=call.tool_name or "",
        tool_input=_input_text(call),
        result=result.text if result else None,
        result_line=result.location.line if result else None,
        outcome=outcome,
    )


def _input_text(call: Event) -> str:
    if isinstance(call.tool_input, dict):
        return ", ".join(f"{key}={value!r}" for key, value in call.tool_input.items())
    return repr(call.tool_input)


def _drop(event: Event, reason: str) -> Dropped:
    return Dropped(
        line=event.location.line, what=event.kind.value, reason=reason, text=event.text or event.tool_name or ""
    )


def render_text(view: SessionView) -> str:
    """Return a view as text for a terminal: long texts are cut, nothing is redacted."""
    lines = [f"{view.file}: {view.format}, turns {len(view.turns)}, dropped {len(view.dropped)}", ""]
    for turn in view.turns:
        place = f"line {turn.line}, {turn.prompt_kind}" if turn.line else "no prompt above"
        lines.append(f"[{_who(turn)}] turn {turn.turn_index} ({place}): {_cut(turn.prompt or '')}")
        for step in turn.steps:
            if step.text.strip():
                lines.append(f"    {step.line:>6}  text      {_cut(step.text)}")
            for call in step.calls:
                lines.append(f"    {call.line:>6}  call      {call.tool_name}({_cut(call.tool_input)})")
                if call.result is not None:
                    lines.append(f"    {call.result_line:>6}  {call.outcome:<10}{_cut(call.result)}")
                else:
                    lines.append(f"            {call.outcome}")
    lines += ["", "Dropped:" if view.dropped else "Dropped: nothing"]
    for (what, reason), count in Counter((item.what, item.reason) for item in view.dropped).most_common():
        lines.append(f"    {count:>5} x {what}: {reason}")
        alike = [item for item in view.dropped if (item.what, item.reason) == (what, reason)]
        lines += [f"{'':>12}line {item.line}: {_cut(item.text)}".rstrip(": ") for item in alike[:_SHOWN_DROPPED]]
        if count > _SHOWN_DROPPED:
            lines.append(f"{'':>12}and {count - _SHOWN_DROPPED} more (all of them with --json)")
    lines += ["", "Lines and events: " + ", ".join(f"{name} {count}" for name, count in view.counts.items())]
    return "\n".join(lines)


def _who(turn: ShownTurn) -> str:
    if turn.agent_id is None:
        return "main"
    if turn.spawned_by is None:
        return f"sub-agent {turn.agent_id}, started by no call in this file"
    place = f"line {turn.spawned_in_line}" if turn.spawned_in_line else turn.spawned_by
    return f"sub-agent {turn.agent_id}, started by {place}"


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_CHARACTERS else f"{flat[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"

"""Drafts: episodes turned into turns, before anything is chosen, cut or rendered.

What makes a turn unfit for supervision is decided here, per turn and with a reason; nothing is thrown away for it. The
choices that need the whole corpus (splits, shares, caps) come later and see only the small `Candidate`s.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec

from toolcall_pipeline.redaction import PLACEHOLDER
from toolcall_pipeline.store.episodes import Episode

MAX_EQUAL_LINES = 3
"""An argument that repeats a non-empty line more often than this in a row is never supervised (spec 3, item 5)."""
NO_RESULT = "[no result recorded]"
_INTEGERS = (-(2**63), 2**64 - 1)
"""msgpack and most readers of JSON have no place for other integers: these become floats."""
_LARGEST_FLOAT = 10**308
"""Integers that no float holds either become text."""
_MARK = re.compile(r"<(?=[|｜][^<>|｜\s]{1,64}[|｜]>|/?(?:tool_call|tool_response|think)>)")
"""The first character of what frames turns, calls and tools: `<|im_end|>` and its like in any tokenizer, `<tool_call>`."""
_ANY_PLACEHOLDER = re.compile(rf"{PLACEHOLDER.pattern}|\bREDACTED\b|<redacted>|\*{{8,}}")
_BASH_LEAD = re.compile(
    r"\s*(?:cd\s+(?:\"[^\"]*\"|'[^']*'|\S+)\s*(?:&&|;)\s*|env\s+|[A-Za-z_]\w*=(?:\"[^\"]*\"|'[^']*'|\S*)\s+)"
)
_PROGRAM = re.compile(r"\s*[\"'(]*([A-Za-z0-9_./~-]+)")
_SHELL_ARGUMENT = {
    "Bash": "command", "bash": "command", "shell": "command", "shell_command": "command", "exec_command": "cmd",
    "run_shell_command": "command",
}  # fmt: skip


class DraftCall(msgspec.Struct):
    """A call and what came back."""

    name: str
    arguments: dict[str, Any]
    event_id: str
    result: str


class DraftStep(msgspec.Struct):
    """One assistant turn; `reason` says why it may not be supervised, None where it may."""

    content: str
    calls: list[DraftCall]
    reason: str | None


class Draft(msgspec.Struct):
    """An episode as turns.

    `offered` names the tools the session says the agent had, empty where it does not say.
    """

    row_id: str
    prompt_event_id: str
    system: str
    prompt: str
    steps: list[DraftStep]
    offered: list[str]
    session_id: str
    family_id: str
    project_root: str
    git_remote: str | None
    agent: str
    agent_version: str | None
    backfill_run_id: str
    synthetic: bool
    source_file: str
    source_line: int
    has_image: bool


def draft_of(
    episode: Episode, *, row_id: str, system: str, steps: list[DraftStep], offered: list[str], has_image: bool
) -> Draft:
    """Return a draft of an episode with the episode's own prompt and provenance."""
    return Draft(
        row_id=row_id,
        prompt_event_id=episode.prompt_event_id,
        system=system,
        prompt=neutral(episode.prompt_text.strip()),
        steps=steps,
        offered=offered,
        session_id=episode.session_id,
        family_id=episode.family_id,
        project_root=neutral(episode.project_root),
        git_remote=episode.git_remote,
        agent=episode.agent,
        agent_version=episode.agent_version,
        backfill_run_id=episode.backfill_run_ids[-1] if episode.backfill_run_ids else "",
        synthetic=episode.is_synthetic,
        source_file=episode.source_file,
        source_line=episode.source_line,
        has_image=has_image,
    )


def bash_word(command: str) -> str:
    """Return the first command word of a shell line, in lower case, `unknown` where there is none.

    Leading `cd DIR &&`, `env` and `VAR=value` are passed over (source design, section 7), and so are a program's folder
    and any further repetitions of these.
    """
    position = 0
    while match := _BASH_LEAD.match(command, position):
        position = match.end()
    word = _PROGRAM.match(command, position)
    name = word[1].rstrip("/").rsplit("/", 1)[-1] if word else ""
    return name.lower() if re.fullmatch(r"[A-Za-z0-9_.-]+", name) else "unknown"


def category(name: str, arguments: dict[str, Any]) -> str:
    """Return the histogram and cap key of a call: the tool, or `Bash:<word>` for shell commands."""
    argument = _SHELL_ARGUMENT.get(name)
    if argument is None:
        return name
    command = arguments.get(argument)
    if isinstance(command, list):
        words = [word for word in command if isinstance(word, str)]
        shell = len(words) >= 3 and words[1] in {"-c", "-lc"}
        command = words[2] if shell else " ".join(words)
    return f"Bash:{bash_word(command)}" if isinstance(command, str) else f"{name}:unknown"


def strings_in(value: Any, *, keys: bool = False) -> Iterator[str]:
    """Yield every string inside a JSON value, with or without the keys of its objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if keys:
                yield str(key)
            yield from strings_in(item, keys=keys)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item, keys=keys)


def has_repeated_lines(text: str) -> bool:
    """Return whether a non-empty line occurs more than three times in a row."""
    if text.count("\n") < MAX_EQUAL_LINES:
        return False
    run, previous = 1, None
    for line in text.split("\n"):
        run = run + 1 if line == previous and line.strip() else 1
        if run > MAX_EQUAL_LINES:
            return True
        previous = line
    return False


def has_placeholder(text: str) -> bool:
    """Return whether a text carries a redaction placeholder, ours or one the recording agent left."""
    return ("REDACTED" in text or "redacted>" in text or "****" in text) and _ANY_PLACEHOLDER.search(text) is not None


def has_call_marks(text: str) -> bool:
    """Return whether a text holds the marks that frame turns and calls, which would break a supervised turn."""
    return "<" in text and _MARK.search(text) is not None


def neutral(text: str) -> str:
    """Return a text in NFC in which no turn or call mark is one any more (llama.cpp does not normalise)."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
    return _MARK.sub("< ", text) if "<" in text else text


def neutral_json(value: Any) -> Any:
    """Return a JSON value with every string made `neutral`, keys as well, and every number one of 64 bits."""
    if isinstance(value, str):
        return neutral(value)
    if isinstance(value, dict):
        return {neutral(str(key)): neutral_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [neutral_json(item) for item in value]
    if isinstance(value, int) and not _INTEGERS[0] <= value <= _INTEGERS[1]:
        return float(value) if abs(value) < _LARGEST_FLOAT else str(value)
    return value


def canonical_call(call: DraftCall) -> str:
    """Return name and arguments as one string; equal for equal calls."""
    return call.name + "\0" + json.dumps(call.arguments, sort_keys=True, ensure_ascii=False)


def mark_repeats(steps: list[DraftStep]) -> None:
    """Give steps that only repeat an earlier call the reason `repeated`, in place.

    A call repeats when it equals one of the step before, or when both the call and its result occurred before: running
    the tests again after an edit gives another result and is no repetition.
    """
    seen: set[tuple[str, str]] = set()
    before: set[str] = set()
    for step in steps:
        keys = [(canonical_call(call), call.result) for call in step.calls]
        if keys and step.reason is None and all(key in seen or key[0] in before for key in keys):
            step.reason = "repeated"
        seen.update(keys)
        before = {key[0] for key in keys}


def turn_kind(step: DraftStep, *, after_tool: bool) -> str:
    """Return `call`, `text_after_tool` or `text`."""
    if step.calls:
        return "call"
    return "text_after_tool" if after_tool else "text"


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Draft)


def pack(draft: Draft) -> bytes:
    """Return a draft as bytes."""
    return _encoder.encode(draft)


def unpack(data: bytes) -> Draft:
    """Return the draft of its bytes."""
    return _decoder.decode(data)

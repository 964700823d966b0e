"""Recipe `v3`: rows are whole episodes cut at a user turn, and every fault of v2 to v5 is a rule here.

Here is only what one episode decides by itself. Lengths are in `fitting.py`, shares in `shares.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.dataset.definitions import name_of_definition
from toolcall_pipeline.dataset.drafts import (
    NO_RESULT,
    Draft,
    DraftCall,
    DraftStep,
    draft_of,
    has_call_marks,
    has_placeholder,
    has_repeated_lines,
    mark_repeats,
    neutral,
    neutral_json,
    strings_in,
)
from toolcall_pipeline.dataset.schemas import as_arguments, is_usable_name
from toolcall_pipeline.dataset.templates import system_prompt
from toolcall_pipeline.store.episodes import Episode, StoredCall

_ROOTS = (
    "/home/user", "/home/user/projects", "/home/user/code", "/home/user/src", "/Users/user", "/Users/user/Developer",
    "/Users/user/work", "/workspace", "/workspaces", "/srv", "/opt/work", "/repo", "/app", "/data/src", "/mnt/work",
)  # fmt: skip


def make_drafts(episode: Episode) -> tuple[list[Draft], Counter[str]]:
    """Turn an episode into a draft.

    Args:
        episode: As read from the store: redacted, active branch only.

    Returns:
        The draft, or none and why: `ephemeral_project`, `empty_prompt`, `no_assistant_turn`.
    """
    if episode.project_kind == "ephemeral":
        return [], Counter(["ephemeral_project"])
    if not episode.prompt_text.strip():
        return [], Counter(["empty_prompt"])
    steps = _steps(episode)
    if not steps:
        return [], Counter(["no_assistant_turn"])
    mark_repeats(steps)
    working_directory = neutral(episode.cwd or episode.project_root)
    draft = draft_of(
        episode,
        row_id=episode.prompt_event_id,
        system=system_prompt(working_directory or None),
        steps=steps,
        offered=[name for name in map(name_of_definition, episode.offered_tools) if name and is_usable_name(name)],
        has_image=episode.has_image or any(call.has_image for step in episode.steps for call in step.calls),
    )
    return [move_paths(draft, working_directory)], Counter()


def _steps(episode: Episode) -> list[DraftStep]:
    """Return the turns: texts that nothing followed from are joined to the next turn, as one message."""
    steps: list[DraftStep] = []
    pending = ""
    lost_call = False
    last = len(episode.steps) - 1
    for index, step in enumerate(episode.steps):
        text = "\n\n".join(part for part in (pending, step.text.strip()) if part)
        calls = [call for call in step.calls if is_usable_name(call.tool_name)]
        loses_call = len(calls) != len(step.calls)
        if not calls and index < last:
            pending = text
            lost_call |= loses_call
            continue
        pending = ""
        if not calls and not text:
            continue
        is_interrupted = index == last and episode.is_interrupted
        is_whole = not (lost_call or loses_call)
        reason = _why_not(text, calls, is_interrupted=is_interrupted) if is_whole else "unusable_tool_name"
        lost_call = loses_call
        steps.append(
            DraftStep(
                neutral(text),
                [
                    DraftCall(
                        call.tool_name,
                        neutral_json(as_arguments(call.tool_name, call.tool_input)),
                        call.event_id,
                        NO_RESULT if call.response is None else neutral(call.response),
                    )
                    for call in calls
                ],
                reason,
            )
        )
    return steps


def _why_not(text: str, calls: list[StoredCall], *, is_interrupted: bool) -> str | None:
    """Return why a turn may not be supervised, None where it may (spec 3, item 5)."""
    if is_interrupted or any(call.is_interrupted for call in calls):
        return "interrupted"
    if any(call.is_rejected for call in calls):
        return "rejected"
    if any(call.is_error for call in calls):
        return "failed"
    if any(call.response is None for call in calls):
        return "no_result"
    if any(call.truncated_at_bytes is not None for call in calls):
        return "cut_arguments"
    texts = [text, *(string for call in calls for string in strings_in(call.tool_input, keys=True))]
    if any(map(has_repeated_lines, texts)):
        return "repeated_line"
    if any(map(has_placeholder, texts)):
        return "placeholder"
    if any(map(has_call_marks, texts)):
        return "control_marks"
    return None


def move_paths(draft: Draft, working_directory: str) -> Draft:
    """Put the project of an episode below another folder, the same for its whole family, so that no prefix is learnt.

    The working directory is in the row's system message, so every absolute path of a call can be read off the context.
    """
    root = working_directory.rstrip("/")
    if root.count("/") < 2 and not re.match(r"[A-Za-z]:\\", root):
        return draft
    main = draft.project_root.rstrip("/")
    old = main if main and (root == main or root.startswith(main + "/")) and main.count("/") >= 2 else root
    name = re.split(r"[/\\]", old)[-1]
    seed = int(sha256_text(f"{draft.family_id}\0{old}")[:8], 16)
    new = f"{_ROOTS[seed % len(_ROOTS)]}/{name}"
    pattern = re.compile(re.escape(old) + r"(?![A-Za-z0-9_.-])")

    def moved(text: str) -> str:
        return pattern.sub(lambda _: new, text) if old in text else text

    def moved_json(value: Any) -> Any:
        if isinstance(value, str):
            return moved(value)
        if isinstance(value, dict):
            return {key: moved_json(item) for key, item in value.items()}
        return [moved_json(item) for item in value] if isinstance(value, list) else value

    draft.prompt = moved(draft.prompt)
    draft.system = moved(draft.system)
    for step in draft.steps:
        step.content = moved(step.content)
        for call in step.calls:
            call.arguments = moved_json(call.arguments)
            call.result = moved(call.result)
    return draft

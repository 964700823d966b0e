"""Recipe `v2`: the source design's dataset, kept to be compared with; the gates refuse it, and rightly.

One row per call: system, prompt, the call, a preview of its result. Its faults are kept as they were (reference: the
source design's plans, section 7): the n-th call of a prompt is shown as the first reaction to it, only the right tool
is offered, no row ends in text, and the end of turn is not supervised.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline.dataset.drafts import NO_RESULT, Draft, DraftCall, DraftStep, draft_of, neutral, neutral_json
from toolcall_pipeline.dataset.schemas import as_arguments, is_usable_name
from toolcall_pipeline.store.episodes import Episode

if TYPE_CHECKING:
    from toolcall_pipeline.dataset.corpus import Candidate

SYSTEM_PROMPT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant with access to tools."
SKIPPED_TOOLS = frozenset(
    {
        "AskUserQuestion", "TodoWrite", "TaskCreate", "TaskUpdate", "TaskGet", "TaskList", "TaskOutput", "TaskStop",
        "EnterPlanMode", "ExitPlanMode", "ListMcpResourcesTool", "SlashCommand", "Skill",
    }
)  # fmt: skip
PREVIEW_CHARACTERS = 2000
LEAST_SESSION_ROWS = 2


def make_drafts(episode: Episode) -> tuple[list[Draft], Counter[str]]:
    """Return one draft per call of an episode, and why calls are none."""
    if episode.project_kind == "ephemeral":
        return [], Counter(["ephemeral_project"])
    drops: Counter[str] = Counter()
    drafts = []
    for step in episode.steps:
        for call in step.calls:
            if not episode.prompt_text.strip():
                drops["empty_prompt"] += 1
            elif call.tool_name in SKIPPED_TOOLS or not is_usable_name(call.tool_name):
                drops["skip_tool"] += 1
            else:
                result = NO_RESULT if call.response is None else neutral(call.response[:PREVIEW_CHARACTERS])
                arguments = neutral_json(as_arguments(call.tool_name, call.tool_input))
                steps = [DraftStep("", [DraftCall(call.tool_name, arguments, call.event_id, result)], None)]
                drafts.append(_draft(episode, call.event_id, call.tool_name, steps))
    return drafts, drops


def _draft(episode: Episode, row_id: str, tool_name: str, steps: list[DraftStep]) -> Draft:
    return draft_of(
        episode, row_id=row_id, system=SYSTEM_PROMPT, steps=steps, offered=[tool_name], has_image=episode.has_image
    )


def drop_short_sessions(candidates: Sequence[Candidate]) -> tuple[list[Candidate], int]:
    """Leave out sessions with fewer than two rows; return the rest and how many rows went."""
    rows = Counter(candidate.source.session_id for candidate in candidates)
    kept = [candidate for candidate in candidates if rows[candidate.source.session_id] >= LEAST_SESSION_ROWS]
    return kept, len(candidates) - len(kept)


def cap_categories(
    candidates: Sequence[Candidate], *, max_category_ratio: float, seed: int
) -> tuple[list[Candidate], Counter[str]]:
    """Drop rows so that no category has more than its share of all rows; return the rest and drops by category."""
    limit = int(max_category_ratio * len(candidates))
    members: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        members[candidate.turns[0].category].append(candidate)
    dropped: Counter[str] = Counter()
    gone: set[str] = set()
    for name, rows in members.items():
        ordered = sorted(rows, key=lambda row: sha256_text(f"{seed}\0{row.row_id}"))
        gone.update(row.row_id for row in ordered[limit:])
        if len(rows) > limit:
            dropped[name] = len(rows) - limit
    return [candidate for candidate in candidates if candidate.row_id not in gone], dropped

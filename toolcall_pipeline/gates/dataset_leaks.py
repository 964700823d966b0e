"""The gates `split_disjoint` and `decontaminated` of `v2_chat_dataset`: nothing that is asked later was trained on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.decontamination import NearDuplicates, SuitePrompts, print_prompt, row_minhash
from toolcall_pipeline.dataset.drafts import strings_in
from toolcall_pipeline.dataset.rows import Row
from toolcall_pipeline.gates.dataset_rows import BUILD_AGAIN, NO_ROWS, NO_SUITE, SHOWN, rows_of, rows_of_both_sides
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult

if TYPE_CHECKING:
    from toolcall_pipeline.artifacts import Artifact

_ASSET = "v2_chat_dataset"
_ONE_SIDE = (
    "Training or validation has no row, so nothing was kept apart: backfill more sessions, or raise "
    "dataset.validation_family_ratio."
)


def judge_split_disjoint(context: GateContext) -> GateResult:
    """Look for families, sessions and events that stand on both sides, and for rows that nearly do."""
    sides: dict[str, dict[str, set[str]]] = {"train": {}, "valid": {}}
    rows: Counter[str] = Counter()
    for side, row in rows_of_both_sides(context.artifact):
        rows[side] += 1
        found = sides[side]
        found.setdefault("families", set()).add(row.meta.family_id)
        found.setdefault("sessions", set()).add(row.meta.session_id)
        found.setdefault("prompts", set()).add(row.meta.prompt_event_id)
        found.setdefault("calls", set()).update(row.meta.call_event_ids)
    shared = {
        kind: sorted(sides["train"].get(kind, set()) & sides["valid"].get(kind, set()))
        for kind in ("families", "sessions", "prompts", "calls")
    }
    shared["near_duplicates"] = _near_duplicates(context.artifact)
    leaked = sum(map(len, shared.values()))
    return exact_verdict(
        context.rule,
        measured=leaked,
        n=rows.total(),
        explanation=f"{leaked} families, sessions, prompts, calls or near-duplicates stand in {rows['train']} training and in "
        f"{rows['valid']} validation rows.",
        how_to_fix=_mend_split(rows),
        details={kind: values[:SHOWN] for kind, values in shared.items() if values},
        also=len(rows) == len(sides),
    )


def _mend_split(rows: Counter[str]) -> str:
    if len(rows) == 2:
        return "Recipe v2 splits by session and leaks resumed ones: use v3. Otherwise: " + BUILD_AGAIN
    return _ONE_SIDE if rows else NO_ROWS


def _near_duplicates(artifact: Artifact) -> list[str]:
    """Return the training rows that nearly equal a validation row, whatever names they stand under."""
    known = NearDuplicates()
    for row in rows_of(artifact, valid=True):
        known.add(row.meta.row_id, row_minhash(_own_texts(row)))
    return [row.meta.row_id for row in rows_of(artifact) if known.is_near(row_minhash(_own_texts(row)))]


def _own_texts(row: Row) -> Iterator[str]:
    """Yield what is typed and what the agent writes in a row, without tool output."""
    for message in row.messages:
        if message.role in {"user", "assistant"}:
            yield message.content
            for call in message.tool_calls:
                yield from strings_in(call.arguments)


def judge_decontaminated(context: GateContext) -> GateResult:
    """Compare every training prompt with every suite prompt again."""
    import numpy as np

    stored = json.loads(context.artifact.path(files.SUITE_PROMPTS).read_bytes())
    prompts = [prompt for texts in stored["prompts"].values() for prompt in texts]
    ignored = np.array([int(gram) for gram in stored["boilerplate_grams"]], dtype=np.uint64)
    suite = SuitePrompts(prompts, ignored)
    places = []
    rows = 0
    for row in rows_of(context.artifact):
        rows += 1
        typed = [message.content for message in row.messages if message.role == "user"]
        if any(suite.shares_with(print_prompt(text)) for text in typed):
            places.append({"row": row.meta.row_id})
    return exact_verdict(
        context.rule,
        measured=len(places),
        n=rows,
        explanation=f"{len(places)} of {rows} training rows share a typed 13-gram or a whole prompt with the "
        f"{len(prompts)} prompts of suite version {stored['version']}.",
        how_to_fix=NO_SUITE if rows else NO_ROWS,
        details={"places": places[:SHOWN]},
        also=bool(prompts) and rows > 0,
    )


LEAK_GATES: tuple[Gate, ...] = (
    Gate("split_disjoint", _ASSET, "What trained is no question any more.", judge_split_disjoint),
    Gate("decontaminated", _ASSET, "A suite prompt in training measures memory.", judge_decontaminated),
)

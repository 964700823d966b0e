"""Read episodes back from the store, as of a set of runs: what later runs brought or said is not seen.

Streams: prompts come from a server-side cursor in a fixed order, the rows of two hundred prompts at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine, RowMapping

from toolcall_pipeline.errors import StoreError
from toolcall_pipeline.store.episodes import AssistantStep, Episode, StoredCall

_PROMPTS_AT_A_TIME = 200


@dataclass(slots=True)
class EpisodeCounts:
    """What became of the prompts; complete once the iterator has ended.

    Attributes:
        episodes: Given out.
        left_out_held_run: Need a row of a run that is not among those asked for.
        left_out_superseded: On a branch that was abandoned, as of these runs.
        left_out_synthetic: From sample or generated sessions, which were not asked for.
        steps_after_trigger: Assistant messages left out of episodes because a slash command, a notification or a
            compaction started them, not the prompt.
        orphan_rows: Calls and texts with no prompt above them.
    """

    episodes: int = 0
    left_out_held_run: int = 0
    left_out_superseded: int = 0
    left_out_synthetic: int = 0
    steps_after_trigger: int = 0
    orphan_rows: int = 0


@dataclass(frozen=True, slots=True)
class _View:
    """The runs an iteration sees.

    Attributes:
        runs: Run id to freeze number.
        held: Runs up to the newest of `runs` that are not among them.
        sample_runs: Runs of sample sessions.
        superseded: Event ids that are off the active branch.
        families: Session id to family id.
        offers: (session id, agent id) to (tools, system prompt).
    """

    runs: dict[str, int]
    held: frozenset[str]
    sample_runs: frozenset[str]
    superseded: frozenset[str]
    families: dict[str, str]
    offers: dict[tuple[str, str], tuple[tuple[Any, ...], str | None]]


@dataclass(slots=True)
class _Rows:
    """The rows below a block of prompts, by prompt event id."""

    steps: defaultdict[str, list[RowMapping]] = field(default_factory=lambda: defaultdict(list))
    late: dict[str, RowMapping] = field(default_factory=dict)
    interrupted: set[str] = field(default_factory=set)
    needs_held: set[str] = field(default_factory=set)
    used_runs: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def iter_episodes(
    engine: Engine,
    *,
    run_ids: Sequence[str] | None = None,
    up_to_freeze_number: int | None = None,
    include_synthetic: bool = False,
    counts: EpisodeCounts | None = None,
) -> Iterator[Episode]:
    """Give every episode on the active branch, as of a set of runs.

    Args:
        engine: The store.
        run_ids: The runs whose rows may be used; None takes all that were not rolled back.
        up_to_freeze_number: Only runs up to and including this one; with `run_ids` both hold.
        include_synthetic: Also give episodes of sample and generated sessions.
        counts: Filled while iterating.

    Returns:
        Episodes ordered by session, place on the branch, and prompt id; the same store and runs give the same ones.

    Raises:
        StoreError: `run_ids` names a run that is not registered.
    """
    counts = counts if counts is not None else EpisodeCounts()
    with engine.connect() as connection, engine.connect() as detail:
        view = _view(detail, run_ids, up_to_freeze_number)
        if not view.runs:
            return
        counts.orphan_rows = _count_orphans(detail, view)
        held_prompts = _prompts_only_in_held(detail, view)
        counts.left_out_held_run += held_prompts
        for block in _prompt_blocks(connection, view):
            rows = _rows_below(detail, view, [prompt["event_id"] for prompt in block])
            for prompt in block:
                episode = _episode(prompt, rows, view, counts, include_synthetic)
                if episode is not None:
                    counts.episodes += 1
                    yield episode


def _view(connection: Connection, run_ids: Sequence[str] | None, up_to: int | None) -> _View:
    known = {
        row["backfill_run_id"]: row
        for row in connection.execute(
            text("SELECT backfill_run_id, freeze_number, is_sample, rolled_back_at FROM backfill_runs")
        ).mappings()
    }
    unknown = sorted(set(run_ids or ()) - set(known))
    if unknown:
        raise StoreError(f"Runs {unknown} are not registered in this store. Registered: {len(known)} runs.")
    alive = [name for name, row in known.items() if row["rolled_back_at"] is None]
    chosen = [
        name
        for name in (alive if run_ids is None else dict.fromkeys(run_ids))
        if up_to is None or known[name]["freeze_number"] <= up_to
    ]
    runs = {name: int(known[name]["freeze_number"]) for name in chosen}
    newest = max(runs.values(), default=0)
    held = frozenset(name for name in alive if name not in runs and known[name]["freeze_number"] <= newest)
    names = sorted(runs)
    superseded = connection.execute(
        text(
            "SELECT event_id FROM (SELECT DISTINCT ON (event_id) event_id, is_superseded FROM mem_supersessions "
            "JOIN backfill_runs USING (backfill_run_id) WHERE backfill_run_id = ANY(CAST(:runs AS text[])) "
            "ORDER BY event_id, freeze_number DESC) told WHERE is_superseded"
        ),
        {"runs": names},
    )
    return _View(
        runs=runs,
        held=held,
        sample_runs=frozenset(name for name in runs if known[name]["is_sample"]),
        superseded=frozenset(superseded.scalars()),
        families=_families(connection, names),
        offers=_offers(connection, names),
    )


def _families(connection: Connection, runs: list[str]) -> dict[str, str]:
    rows = connection.execute(
        text(
            "SELECT DISTINCT ON (session_id) session_id, family_id FROM mem_session_families "
            "JOIN backfill_runs USING (backfill_run_id) WHERE backfill_run_id = ANY(CAST(:runs AS text[])) "
            "ORDER BY session_id, freeze_number DESC"
        ),
        {"runs": runs},
    )
    return {session_id: family_id for session_id, family_id in rows}


def _offers(connection: Connection, runs: list[str]) -> dict[tuple[str, str], tuple[tuple[Any, ...], str | None]]:
    """Return what each session's agent was offered; the first record of a session counts, later ones add tools."""
    rows = connection.execute(
        text(
            "SELECT session_id, agent_id, tools, system_prompt FROM mem_offered_tools "
            "JOIN backfill_runs USING (backfill_run_id) WHERE backfill_run_id = ANY(CAST(:runs AS text[])) "
            'ORDER BY session_id, agent_id, freeze_number, source_file, source_line, content_hash COLLATE "C"'
        ),
        {"runs": runs},
    )
    offers: dict[tuple[str, str], tuple[tuple[Any, ...], str | None]] = {}
    for session_id, agent_id, tools, system_prompt in rows:
        known, prompt = offers.get((session_id, agent_id), ((), None))
        offers[session_id, agent_id] = (
            (*known, *(tool for tool in tools if tool not in known)),
            prompt or system_prompt,
        )
    return offers


def _prompt_blocks(connection: Connection, view: _View) -> Iterator[list[RowMapping]]:
    result = connection.execution_options(stream_results=True, yield_per=_PROMPTS_AT_A_TIME).execute(
        text(
            "SELECT p.*, s.agent_type, r.full_path, r.canonical_root_path, r.git_remote, r.source_kind "
            "FROM mem_user_prompts p LEFT JOIN mem_sessions s USING (session_id) "
            "LEFT JOIN mem_projects r ON r.id = p.project_id "
            "WHERE p.backfill_run_id = ANY(CAST(:runs AS text[])) "
            'ORDER BY p.session_id COLLATE "C", p.position, p.event_id COLLATE "C"'
        ),
        {"runs": sorted(view.runs)},
    )
    # Asked for by name: without it SQLAlchemy gives all rows of mappings at once, whatever `yield_per` says.
    for block in result.mappings().partitions(_PROMPTS_AT_A_TIME):
        yield list(block)


_STEPS = text(
    """
    SELECT 'call' AS kind, event_id, node_id, prompt_event_id, position, turn_subindex, is_direct, message_id,
        tool_name, coalesce(tool_input_ordered::text, tool_input::text) AS tool_input, response, is_error, is_rejected,
        has_image, truncated_at_bytes, source_file, source_line, backfill_run_id, NULL AS text
    FROM mem_tool_calls
    WHERE prompt_event_id = ANY(CAST(:prompts AS text[])) AND backfill_run_id = ANY(CAST(:runs AS text[]))
    UNION ALL
    SELECT 'text', event_id, node_id, prompt_event_id, position, turn_subindex, is_direct, message_id,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, source_file, source_line, backfill_run_id, text
    FROM mem_assistant_texts
    WHERE prompt_event_id = ANY(CAST(:prompts AS text[])) AND backfill_run_id = ANY(CAST(:runs AS text[]))
    ORDER BY position, event_id
    """
)


def _rows_below(connection: Connection, view: _View, prompts: list[str]) -> _Rows:
    rows = _Rows()
    runs = sorted({*view.runs, *view.held})
    calls: dict[str, str] = {}
    for row in connection.execute(_STEPS, {"prompts": prompts, "runs": runs}).mappings():
        if row["event_id"] in view.superseded:
            continue
        if row["backfill_run_id"] in view.held:
            rows.needs_held.add(row["prompt_event_id"])
            continue
        rows.steps[row["prompt_event_id"]].append(row)
        rows.used_runs[row["prompt_event_id"]].add(row["backfill_run_id"])
        if row["kind"] == "call":
            calls[row["event_id"]] = row["prompt_event_id"]
    late = connection.execute(
        text(
            "SELECT * FROM mem_late_results WHERE call_event_id = ANY(CAST(:calls AS text[])) "
            "AND backfill_run_id = ANY(CAST(:runs AS text[])) ORDER BY event_id"
        ),
        {"calls": sorted(calls), "runs": runs},
    )
    for row in late.mappings():
        prompt = calls[row["call_event_id"]]
        if row["backfill_run_id"] in view.held:
            rows.needs_held.add(prompt)
        else:
            rows.late.setdefault(row["call_event_id"], row)
            rows.used_runs[prompt].add(row["backfill_run_id"])
    interrupted = connection.execute(
        text(
            "SELECT prompt_event_id FROM mem_interruptions WHERE prompt_event_id = ANY(CAST(:prompts AS text[])) "
            "AND backfill_run_id = ANY(CAST(:runs AS text[]))"
        ),
        {"prompts": prompts, "runs": sorted(view.runs)},
    )
    rows.interrupted.update(interrupted.scalars())
    return rows


def _episode(
    prompt: RowMapping, rows: _Rows, view: _View, counts: EpisodeCounts, include_synthetic: bool
) -> Episode | None:
    event_id = prompt["event_id"]
    is_synthetic = prompt["backfill_run_id"] in view.sample_runs
    if is_synthetic and not include_synthetic:
        counts.left_out_synthetic += 1
        return None
    if event_id in view.superseded:
        counts.left_out_superseded += 1
        return None
    if event_id in rows.needs_held:
        counts.left_out_held_run += 1
        return None
    steps = _steps(rows.steps.get(event_id, []), rows, event_id in rows.interrupted, counts)
    runs = sorted({prompt["backfill_run_id"], *rows.used_runs.get(event_id, ())}, key=view.runs.__getitem__)
    agent_id = prompt["agent_id"] or ""
    offered, system_prompt = view.offers.get((prompt["session_id"], agent_id), ((), None))
    return Episode(
        prompt_event_id=event_id,
        prompt_text=prompt["prompt_text"],
        steps=steps,
        session_id=prompt["session_id"],
        family_id=view.families.get(prompt["session_id"], prompt["session_id"]),
        turn_index=prompt["turn_index"],
        project_root=prompt["canonical_root_path"] or prompt["full_path"] or "unknown",
        git_remote=prompt["git_remote"],
        project_kind=prompt["source_kind"] or "non-git",
        agent=prompt["agent_name"] or prompt["agent_type"] or "unknown",
        agent_version=prompt["agent_version"],
        backfill_run_ids=tuple(runs),
        freeze_number=view.runs[runs[-1]],
        is_synthetic=is_synthetic,
        is_sub_agent=bool(prompt["is_sub_agent"]),
        is_interrupted=event_id in rows.interrupted,
        source_file=prompt["source_file"],
        source_line=prompt["source_line"],
        cwd=prompt["cwd"],
        has_image=bool(prompt["has_image"]),
        offered_tools=offered,
        system_prompt=system_prompt,
    )


def _steps(
    rows: list[RowMapping], below: _Rows, is_interrupted: bool, counts: EpisodeCounts
) -> tuple[AssistantStep, ...]:
    """Return assistant messages in order; the lines of one message are one step."""
    groups: list[list[RowMapping]] = []
    keys: dict[str, int] = {}
    for row in rows:
        key = row["message_id"] or row["node_id"]
        if key not in keys:
            keys[key] = len(groups)
            groups.append([])
        groups[keys[key]].append(row)
    direct = [group for group in groups if group[0]["is_direct"]]
    counts.steps_after_trigger += len(groups) - len(direct)
    return tuple(_step(group, below, is_interrupted) for group in direct)


def _step(group: list[RowMapping], below: _Rows, is_interrupted: bool) -> AssistantStep:
    first = group[0]
    return AssistantStep(
        text="\n\n".join(row["text"] for row in group if row["kind"] == "text"),
        calls=tuple(
            _call(row, below.late.get(row["event_id"]), is_interrupted) for row in group if row["kind"] == "call"
        ),
        event_ids=tuple(row["event_id"] for row in group),
        source_file=first["source_file"],
        source_line=first["source_line"],
        turn_subindex=first["turn_subindex"],
    )


def _call(row: RowMapping, late: RowMapping | None, is_interrupted: bool) -> StoredCall:
    result = late if row["response"] is None and late is not None else row
    return StoredCall(
        event_id=row["event_id"],
        tool_name=row["tool_name"],
        tool_input=msgspec.json.decode(row["tool_input"]) if row["tool_input"] is not None else None,
        response=result["response"],
        is_error=bool(result["is_error"]),
        is_rejected=bool(result["is_rejected"]),
        is_interrupted=is_interrupted and result["response"] is None,
        truncated_at_bytes=row["truncated_at_bytes"],
        source_file=row["source_file"],
        source_line=row["source_line"],
        has_image=bool(row["has_image"]) or bool(result["has_image"]),
    )


def _prompts_only_in_held(connection: Connection, view: _View) -> int:
    """Return how many episodes have rows in the runs seen, but their prompt in a held one."""
    if not view.held:
        return 0
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM mem_user_prompts p WHERE p.backfill_run_id = ANY(CAST(:held AS text[])) AND ("
                "EXISTS (SELECT 1 FROM mem_tool_calls c WHERE c.prompt_event_id = p.event_id "
                "AND c.backfill_run_id = ANY(CAST(:runs AS text[]))) OR "
                "EXISTS (SELECT 1 FROM mem_assistant_texts t WHERE t.prompt_event_id = p.event_id "
                "AND t.backfill_run_id = ANY(CAST(:runs AS text[]))))"
            ),
            {"held": sorted(view.held), "runs": sorted(view.runs)},
        ).scalar_one()
    )


def _count_orphans(connection: Connection, view: _View) -> int:
    return sum(
        int(
            connection.execute(
                text(
                    f"SELECT count(*) FROM {table} WHERE prompt_event_id IS NULL "
                    "AND backfill_run_id = ANY(CAST(:runs AS text[]))"
                ),
                {"runs": sorted(view.runs)},
            ).scalar_one()
        )
        for table in ("mem_tool_calls", "mem_assistant_texts")
    )

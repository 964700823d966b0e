"""Gates on `linked_tool_calls`: every call linked to the prompt above it, every event stored once, no secrets.

Linkage is judged from the stored graph by a walk of its own, not by the code that linked.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from toolcall_pipeline.errors import ArtifactError
from toolcall_pipeline.gates.no_secrets import NO_SECRETS_LINKED
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult
from toolcall_pipeline.sessions.lock import load_lock
from toolcall_pipeline.store import ledger, row_hash
from toolcall_pipeline.store.copied_history import first_of
from toolcall_pipeline.store.range_nodes import calls_by_file

_ASSET = "linked_tool_calls"
_SHOWN = 20
_UNIQUE_KEYS = {
    "mem_user_prompts": "mem_user_prompts_event_id_key",
    "mem_tool_calls": "mem_tool_calls_event_id_key",
    "mem_assistant_texts": "mem_assistant_texts_event_id_key",
    "mem_late_results": "mem_late_results_event_id_key",
}


def judge_linkage(context: GateContext) -> GateResult:
    """Count calls whose link is not the prompt that the event graph has above them, and calls of the files that are nowhere."""
    with context.engine.connect() as connection:
        wrong, total, linked, kinds = _compare_links(connection, context.partition)
        lost = _lost_calls(context, connection)
    return exact_verdict(
        context.rule,
        measured=float(len(wrong) + len(lost)),
        n=total + len(lost),
        explanation=f"{linked:,} of {total:,} calls have a prompt above them; {len(wrong):,} are not linked to exactly that "
        f"one (or are linked although there is none). {len(lost):,} calls of the files read are not stored.",
        how_to_fix="Look at the calls listed: `toolcall-pipeline sessions show FILE` prints the branch they are on. Roll the "
        "run back (`toolcall-pipeline backfill rollback RUN_ID`) and link it again; if that changes nothing, report the "
        "file's shape.",
        details={"calls": wrong[:_SHOWN], "kinds": dict(kinds), "orphans": total - linked, "lost": lost[:_SHOWN]},
    )


def judge_identity(context: GateContext) -> GateResult:
    """Count events stored twice: under one id, or as the same call under two.

    Raises:
        ArtifactError: The rows changed since the artifact was made.
    """
    _require_same_rows(context)
    with context.engine.connect() as connection:
        missing = _missing_unique_keys(connection)
        repeated = _repeated_ids(connection, context.partition)
        twins = _twins(connection, context.partition)
        total = int(
            connection.execute(
                text(
                    "SELECT (SELECT count(*) FROM mem_tool_calls WHERE backfill_run_id = :run) + "
                    "(SELECT count(*) FROM mem_user_prompts WHERE backfill_run_id = :run) + "
                    "(SELECT count(*) FROM mem_assistant_texts WHERE backfill_run_id = :run)"
                ),
                {"run": context.partition},
            ).scalar_one()
        )
    return exact_verdict(
        context.rule,
        measured=float(repeated + len(twins) + len(missing)),
        n=total,
        explanation=f"{repeated} events share an id with another or have none, {len(twins)} calls are stored a second time "
        f"under another id, {len(missing)} unique constraints are missing.",
        how_to_fix="Missing constraints: `toolcall-pipeline db upgrade`. Calls stored twice: the files listed copy history "
        "under new ids; report their shape, and roll the run back meanwhile.",
        details={"missing_constraints": missing, "same_call_twice": twins[:_SHOWN]},
    )


def _compare_links(connection: Connection, run: str) -> tuple[list[dict[str, Any]], int, int, Counter[str]]:
    """Return wrong links, the number of calls, how many have a prompt above them, and the kinds of faults."""
    parents, prompts = _graph(connection, run)
    above: dict[str, str | None] = {}
    wrong: list[dict[str, Any]] = []
    kinds: Counter[str] = Counter()
    total = linked = 0
    rows = connection.execution_options(yield_per=10_000).execute(
        text(
            "SELECT c.event_id, c.node_id, c.prompt_event_id, c.source_file, c.source_line, p.event_id, p.node_id "
            "FROM mem_tool_calls c LEFT JOIN mem_user_prompts p ON p.id = c.prev_user_prompt_id "
            "WHERE c.backfill_run_id = :run ORDER BY c.event_id"
        ),
        {"run": run},
    )
    for event_id, node_id, told, file, line, prompt_event_id, prompt_node in rows:
        total += 1
        expected = _walk(node_id, parents, prompts, above)
        linked += expected is not None
        fault = _fault(expected, prompt_node, told, prompt_event_id)
        if fault is not None:
            kinds[fault] += 1
            wrong.append({"call": event_id, "place": f"{file}:{line}", "fault": fault})
    return wrong, total, linked, kinds


def _lost_calls(context: GateContext, connection: Connection) -> list[dict[str, Any]]:
    """Return the calls of the files this run read, as they were frozen, that neither it nor an earlier run stored."""
    sessions = context.parent("jsonl_sessions")
    read = ledger.files_done(context.engine, context.partition)
    files = {file.path for file in load_lock(sessions).files if file.file_key in read}
    places = {call: path for path, calls in calls_by_file(sessions).items() if path in files for call in calls}
    stored = connection.execute(
        text(
            "SELECT event_id FROM unnest(CAST(:ids AS text[])) AS frozen (event_id) "
            "WHERE NOT EXISTS (SELECT 1 FROM mem_tool_calls stored WHERE stored.event_id = frozen.event_id) "
            "AND NOT EXISTS (SELECT 1 FROM mem_parked_events parked WHERE parked.event_id = frozen.event_id)"
        ),
        {"ids": sorted(places)},
    ).scalars()
    return [{"call": call, "file": places[call]} for call in stored]


def _fault(expected: str | None, found: str | None, told: str | None, joined: str | None) -> str | None:
    if expected is None and found is None:
        return None if told is None else "names a prompt that is not stored"
    if expected is None:
        return "linked although no prompt is above it"
    if found is None:
        return "not linked although a prompt is above it"
    if found != expected:
        return "linked to another prompt"
    return None if told == joined else "key and event id name different prompts"


def _graph(connection: Connection, run: str) -> tuple[dict[str, str | None], set[str]]:
    """Return each node's parent and which nodes are prompts, for the families the run touched.

    Copies of a node may name different parents: a queued prompt that was put between counts, then what was recorded first.
    A prompt that was copied under another id is the first one.
    """
    copied: dict[str, str] = dict(
        connection.execute(
            text(
                "SELECT node_id, first_node_id FROM mem_copied_nodes JOIN backfill_runs USING (backfill_run_id) WHERE "
                "freeze_number <= (SELECT freeze_number FROM backfill_runs WHERE backfill_run_id = :run)"
            ),
            {"run": run},
        ).all()  # type: ignore[arg-type]
    )
    rows = connection.execution_options(yield_per=10_000).execute(
        text(
            """
            WITH family AS (
                SELECT DISTINCT ON (session_id) session_id, family_id
                FROM mem_session_families JOIN backfill_runs USING (backfill_run_id)
                WHERE freeze_number <= (SELECT freeze_number FROM backfill_runs WHERE backfill_run_id = :run)
                ORDER BY session_id, freeze_number DESC
            ), touched AS (
                SELECT DISTINCT family_id FROM family
                JOIN mem_tool_calls c USING (session_id) WHERE c.backfill_run_id = :run
            )
            SELECT n.node_id, n.parent_node_id, n.role
            FROM touched JOIN family USING (family_id) JOIN mem_graph_nodes n USING (session_id)
            JOIN backfill_runs r ON r.backfill_run_id = n.backfill_run_id
            WHERE r.freeze_number <= (SELECT freeze_number FROM backfill_runs WHERE backfill_run_id = :run)
            ORDER BY n.node_id, n.occurred_at, n.source_file, n.source_line
            """
        ),
        {"run": run},
    )
    parents: dict[str, str | None] = {}
    prompts: set[str] = set()
    for node_id, parent, role in rows:
        node_id, parent = first_of(node_id, copied), parent and first_of(parent, copied)
        if node_id not in parents:
            parents[node_id] = parent
            if role == "prompt":
                prompts.add(node_id)
        elif parent is not None and _is_better(parent, parents[node_id]):
            parents[node_id] = parent
    return parents, prompts


def _is_better(parent: str, than: str | None) -> bool:
    return than is None or (parent.startswith("queued:") and not than.startswith("queued:"))


def _walk(node_id: str, parents: dict[str, str | None], prompts: set[str], above: dict[str, str | None]) -> str | None:
    """Return the nearest prompt up the parents; every node walked over remembers the answer."""
    path: list[str] = []
    seen: set[str] = set()
    node: str | None = node_id
    while node is not None and node not in above and node not in prompts and node not in seen:
        path.append(node)
        seen.add(node)
        node = parents.get(node)
    answer = node if node in prompts else above.get(node) if node is not None else None
    for walked in path:
        above[walked] = answer
    return answer


def _missing_unique_keys(connection: Connection) -> list[str]:
    found = set(
        connection.execute(
            text(
                "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
                "WHERE i.indisunique AND i.indisvalid AND c.relname = ANY(CAST(:names AS text[]))"
            ),
            {"names": sorted(_UNIQUE_KEYS.values())},
        ).scalars()
    )
    return sorted(set(_UNIQUE_KEYS.values()) - found)


def _repeated_ids(connection: Connection, run: str) -> int:
    return sum(
        int(
            connection.execute(
                text(
                    f"SELECT count(*) FROM {table} mine WHERE backfill_run_id = :run AND (event_id IS NULL OR EXISTS "
                    f"(SELECT 1 FROM {table} other WHERE other.event_id = mine.event_id AND other.id <> mine.id))"
                ),
                {"run": run},
            ).scalar_one()
        )
        for table in _UNIQUE_KEYS
    )


def _twins(connection: Connection, run: str) -> list[dict[str, Any]]:
    """Return calls of the run that equal another stored call in message, time, tool and arguments, under another id."""
    rows = connection.execute(
        text(
            """
            SELECT DISTINCT mine.event_id, mine.source_file, mine.source_line
            FROM mem_tool_calls mine JOIN mem_tool_calls other
              ON other.session_id = mine.session_id AND other.event_id <> mine.event_id
             AND other.message_id = mine.message_id AND other.occurred_at = mine.occurred_at
             AND other.tool_name = mine.tool_name AND other.content_hash = mine.content_hash
             AND other.agent_id IS NOT DISTINCT FROM mine.agent_id
             AND other.source_file <> mine.source_file
            WHERE mine.backfill_run_id = :run ORDER BY mine.event_id
            """
        ),
        {"run": run},
    )
    return [{"call": event_id, "place": f"{file}:{line}"} for event_id, file, line in rows]


def _require_same_rows(context: GateContext) -> None:
    """Refuse to judge an artifact whose rows are no longer the ones in the store."""
    told = row_hash.read_rows_file(context.artifact)
    found = row_hash.hash_run_rows(context.engine, context.partition)
    if told != found:
        changed = sorted(name for name in told if told[name] != found.get(name))
        raise ArtifactError(
            f"The rows of run {context.partition} in {', '.join(changed)} are not those that linked_tool_calls was made "
            "of: they were changed or removed since. Roll the run back and link it again."
        )


GATES: tuple[Gate, ...] = (
    Gate(
        "linkage", _ASSET, "Every call with a prompt above it in its event graph is linked to that one.", judge_linkage
    ),
    Gate("identity_unique", _ASSET, "Every event is stored once, however many files carry it.", judge_identity),
    NO_SECRETS_LINKED,
)

"""Gates of `jsonl_sessions`."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow.parquet as pq

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult
from toolcall_pipeline.sessions.lock import LockedFile, load_lock
from toolcall_pipeline.sessions.stage import EVENTS_NAME, QUARANTINE_NAME

_SHOWN = 20


def judge_files_accounted(context: GateContext) -> GateResult:
    """Count the lines and files that are neither read, nor unchanged, nor in quarantine with a reason.

    Three records that were written apart have to agree: the LF bytes counted in the blocks, the class of every line, and
    the rows of the event index and the quarantine.
    """
    lock = load_lock(context.artifact)
    events = _events_per_file(context.artifact)
    quarantine = _quarantine_per_file(context.artifact)
    problems: list[dict[str, Any]] = [
        {"file": locked.path, "problem": problem, "lines": lines}
        for locked in lock.files
        for problem, lines in _problems(locked, events[locked.path], quarantine[locked.path])
    ]
    known = {locked.path for locked in lock.files}
    problems += [
        {"file": path, "problem": "indexed, but not in the lock", "lines": 1} for path in sorted(set(events) - known)
    ]
    unaccounted = sum(problem["lines"] for problem in problems)
    lines = sum(locked.account.lines for locked in lock.files)
    reasons = Counter(reason for found in quarantine.values() for reason, count in found.items() for _ in range(count))
    return exact_verdict(
        context.rule,
        measured=unaccounted,
        n=lines,
        explanation=(
            f"{lines - unaccounted} of {lines} lines in {len(lock.files)} files are accounted for; "
            f"{sum(reasons.values())} entries are in quarantine, each with its reason."
        ),
        how_to_fix=(
            "Materialise jsonl_sessions in a new partition. Where the same file is named again, run `toolcall-pipeline "
            "sessions show FILE` on it and report what it shows: a reader lost a line."
        ),
        details={
            "unaccounted": problems[:_SHOWN],
            "quarantine_reasons": [{"reason": reason, "count": count} for reason, count in reasons.most_common(_SHOWN)],
        },
    )


def _events_per_file(artifact: Artifact) -> Counter[str]:
    column = pq.read_table(artifact.path(EVENTS_NAME), columns=["file"]).column("file")
    return Counter({item["values"]: item["counts"] for item in column.value_counts().to_pylist()})


def _quarantine_per_file(artifact: Artifact) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = _ByFile()
    for line in artifact.path(QUARANTINE_NAME).read_text(encoding="utf-8").splitlines():
        entry: dict[str, Any] = json.loads(line)
        found[entry["file"]][str(entry["reason"])] += 1
    return found


class _ByFile(dict[str, Counter[str]]):
    def __missing__(self, key: str) -> Counter[str]:
        self[key] = Counter()
        return self[key]


def _problems(locked: LockedFile, events: int, quarantine: Counter[str]) -> list[tuple[str, int]]:
    """Return what does not add up in one file, with the number of lines it concerns (at least one)."""
    account = locked.account
    problems: list[tuple[str, int]] = []
    if account.lines != account.accounted_lines:
        problems.append(("lines counted and lines classified differ", abs(account.lines - account.accounted_lines)))
    indexed = (
        account.prompts
        + account.sub_agent_tasks
        + account.assistant_texts
        + account.tool_calls
        + account.tool_results
        + account.compactions
        + account.interruptions
        + account.others
    )
    if indexed != events:
        problems.append(("events read and events indexed differ", max(1, abs(indexed - events))))
    entries = sum(quarantine.values())
    if locked.status == "unreadable":
        if not entries or not locked.problem:
            problems.append(("unreadable without a reason", 1))
    elif entries != account.malformed_parts or account.malformed_lines > entries:
        problems.append(
            ("malformed parts and quarantine entries differ", max(1, abs(entries - account.malformed_parts)))
        )
    if locked.next_state is None and locked.status not in ("unreadable", "unchanged"):
        problems.append(("no state to go on from", 1))
    return problems


GATES: tuple[Gate, ...] = (
    Gate(
        name="files_accounted",
        asset="jsonl_sessions",
        description="No file and no line is lost on the way in: each is read, unchanged, or in quarantine with a reason.",
        judge=judge_files_accounted,
    ),
)

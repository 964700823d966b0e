"""Stored verdicts: what was judged, under which rule, on which bytes; and overrides with their reason.

The only reader and writer of the table `gate_verdicts`. A verdict counts for exactly one (gate, artifact hash, rule
hash, suite hash); judging the same again replaces it, override included.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Engine, Row

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.gates.profiles import GateRule
from toolcall_pipeline.gates.verdict import GateResult, Verdict

_COLUMNS = (
    "gate, asset, partition, artifact_sha256, rule_sha256, suite_sha256, profile, verdict, result, overridden_reason, "
    "created_at"
)


@dataclass(frozen=True)
class VerdictKey:
    """What a verdict is about: it holds for nothing else."""

    gate: str
    artifact_sha256: str
    rule_sha256: str
    suite_sha256: str


@dataclass(frozen=True)
class StoredVerdict:
    """A verdict as it was stored.

    Attributes:
        key: What it is about.
        asset, partition, profile: Where it was given.
        result: What the gate found.
        overridden_reason: Why a person let the run go on although the gate did not pass; None where nobody did.
        created_at: When it was judged.
    """

    key: VerdictKey
    asset: str
    partition: str
    profile: str
    result: GateResult
    overridden_reason: str | None
    created_at: datetime

    @property
    def passed(self) -> bool:
        """Return whether the gate itself passed; an override is no pass."""
        return self.result.verdict is Verdict.PASS

    @property
    def is_overridden(self) -> bool:
        """Return whether a person let the run go on although the gate did not pass."""
        return not self.passed and self.overridden_reason is not None

    @property
    def shown_verdict(self) -> str:
        """Return `pass`, `fail`, `inconclusive` or `overridden`."""
        return "overridden" if self.is_overridden else self.result.verdict.value


def suite_sha256_of(artifact: Artifact) -> str:
    """Return the hash of the suite an artifact was judged with, empty where it depends on none."""
    return str(artifact.manifest.metadata.get("suite_sha256") or "")


def key_of(artifact: Artifact, rule: GateRule) -> VerdictKey:
    """Return the key of a gate's verdict on exactly this artifact under exactly this rule."""
    return VerdictKey(rule.gate, artifact.sha256, rule.sha256, suite_sha256_of(artifact))


def store_verdict(
    engine: Engine,
    key: VerdictKey,
    result: GateResult,
    *,
    partition: str,
    profile: str,
    overridden_reason: str | None = None,
) -> None:
    """Store a verdict, in place of an earlier one on the same bytes under the same rule.

    Args:
        engine: Of the store.
        key: What was judged.
        result: What the gate found.
        partition: The `backfill_run_id`.
        profile: `ship` or `smoke`.
        overridden_reason: Why the run may go on although the gate did not pass; ignored where it passed.

    Raises:
        UsageError: An override without a reason.
    """
    reason = None
    if overridden_reason is not None and result.verdict is not Verdict.PASS:
        reason = _checked_reason(key.gate, overridden_reason)
    statement = text(
        f"""INSERT INTO gate_verdicts ({_COLUMNS.rpartition(",")[0]})
        VALUES (:gate, :asset, :partition, :artifact_sha256, :rule_sha256, :suite_sha256, :profile, :verdict,
                CAST(:result AS jsonb), :overridden_reason)
        ON CONFLICT (gate, artifact_sha256, rule_sha256, suite_sha256) DO UPDATE SET
            asset = excluded.asset, partition = excluded.partition, profile = excluded.profile,
            verdict = excluded.verdict, result = excluded.result, overridden_reason = excluded.overridden_reason,
            created_at = now()"""
    )
    with engine.begin() as connection:
        connection.execute(
            statement,
            {
                **_parameters(key),
                "asset": result.asset,
                "partition": partition,
                "profile": profile,
                "verdict": result.verdict.value,
                "result": result.model_dump_json(),
                "overridden_reason": reason,
            },
        )


def load_verdict(engine: Engine, key: VerdictKey) -> StoredVerdict | None:
    """Return the verdict on exactly these bytes under exactly this rule, or None where none was given."""
    with engine.connect() as connection:
        row = connection.execute(
            text(f"SELECT {_COLUMNS} FROM gate_verdicts WHERE {_MATCHES}"), _parameters(key)
        ).one_or_none()
    return None if row is None else _stored(row)


def verdicts_of(engine: Engine, partition: str, asset: str, gate: str | None = None) -> list[StoredVerdict]:
    """Return every verdict ever given on an asset of a partition, newest first, whatever the bytes and the rule."""
    statement = f"SELECT {_COLUMNS} FROM gate_verdicts WHERE partition = :partition AND asset = :asset"
    parameters = {"partition": partition, "asset": asset}
    if gate is not None:
        statement += " AND gate = :gate"
        parameters["gate"] = gate
    with engine.connect() as connection:
        return [_stored(row) for row in connection.execute(text(f"{statement} ORDER BY id DESC"), parameters)]


_MATCHES = (
    "gate = :gate AND artifact_sha256 = :artifact_sha256 AND rule_sha256 = :rule_sha256 "
    "AND suite_sha256 = :suite_sha256"
)


def _parameters(key: VerdictKey) -> dict[str, Any]:
    return {
        "gate": key.gate,
        "artifact_sha256": key.artifact_sha256,
        "rule_sha256": key.rule_sha256,
        "suite_sha256": key.suite_sha256,
    }


def _stored(row: Row[Any]) -> StoredVerdict:
    return StoredVerdict(
        key=VerdictKey(row.gate, row.artifact_sha256, row.rule_sha256, row.suite_sha256),
        asset=row.asset,
        partition=row.partition,
        profile=row.profile,
        result=GateResult.model_validate(row.result),
        overridden_reason=row.overridden_reason,
        created_at=row.created_at,
    )


def _checked_reason(gate: str, reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise UsageError(f"Overriding gate {gate} needs a reason, in words that will be read later.")
    return reason

"""Where a partition stands: every gate in the form of `status --json`, and the one verdict they make together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.evaluation.reports.model import GateEntry, IntervalEntry, OverallVerdict
from toolcall_pipeline.gates.profiles import GateRule, all_rules, rules_for
from toolcall_pipeline.gates.verdict import GateResult
from toolcall_pipeline.gates.verdict_store import StoredVerdict, key_of, load_verdict
from toolcall_pipeline.presets import Configuration


def artifacts_in_use(store: ArtifactStore, partition: str) -> dict[str, Artifact]:
    """Return a partition's artifacts by asset, without those made from other bytes than the ones in use."""
    found = {
        asset: store.current(asset, partition) for asset in dict.fromkeys(rule.asset for rule in all_rules("ship"))
    }
    return {
        asset: artifact
        for asset, artifact in found.items()
        if artifact is not None and store.stale_parent(artifact) is None
    }


def gate_rows(engine: Engine, artifacts: Mapping[str, Artifact], configuration: Configuration) -> list[GateEntry]:
    """Return every gate of a partition in the order of the chain; what was not judged yet is `missing`.

    Args:
        engine: Of the store.
        artifacts: By asset, what the gates have to have been judged on (`artifacts_in_use`).
        configuration: Names the rules in force.
    """
    rows = []
    for (asset, _), rule in rules_for(configuration).items():
        artifact = artifacts.get(asset)
        stored = None if artifact is None else load_verdict(engine, key_of(artifact, rule))
        rows.append(entry(rule, stored, None if artifact is None else artifact.sha256))
    return rows


def entry(rule: GateRule, stored: StoredVerdict | None, artifact_sha256: str | None) -> GateEntry:
    """Return a stored verdict, or its absence, as a row."""
    if stored is None:
        return missing_entry(rule, artifact_sha256)
    return result_entry(
        rule, stored.result, artifact_sha256=artifact_sha256, overridden_reason=stored.overridden_reason
    )


def missing_entry(rule: GateRule, artifact_sha256: str | None = None) -> GateEntry:
    """Return the row of a gate that was not judged."""
    return GateEntry(
        gate=rule.gate,
        asset=rule.asset,
        verdict="missing",
        measured=None,
        comparison=rule.comparison,
        threshold=rule.threshold,
        unit=rule.unit,
        n=0,
        artifact_sha256=artifact_sha256,
        question=rule.question,
        explanation="Not judged yet.",
        how_to_fix=f"Materialise {rule.asset} with its checks.",
    )


def result_entry(
    rule: GateRule,
    result: GateResult,
    *,
    artifact_sha256: str | None = None,
    overridden_reason: str | None = None,
) -> GateEntry:
    """Return a gate's result as a row."""
    held = result.verdict.value != "pass"
    interval = None if result.interval is None else IntervalEntry(**result.interval.model_dump())
    return GateEntry(
        gate=result.gate,
        asset=result.asset,
        verdict="overridden" if held and overridden_reason else result.verdict.value,
        measured=result.measured,
        comparison=result.comparison,
        threshold=result.threshold,
        unit=result.unit,
        n=result.n,
        interval=interval,
        artifact_sha256=artifact_sha256,
        question=rule.question,
        explanation=result.explanation,
        how_to_fix=result.how_to_fix,
        overridden_reason=overridden_reason if held else None,
    )


def overall_verdict(rows: Sequence[GateEntry], profile: str, *, suite_is_sample: bool = False) -> OverallVerdict:
    """Return what the gates say together.

    A failed or an overridden gate is HOLD whatever is still missing; then an inconclusive one is INCONCLUSIVE, a missing
    one PENDING. When all passed it is SHIP under `ship` on the user's own suite, else PASSED_NOT_SHIPPABLE.
    """
    verdicts = {row.verdict for row in rows}
    if verdicts & {"fail", "overridden"}:
        return "HOLD"
    if "inconclusive" in verdicts:
        return "INCONCLUSIVE"
    if "missing" in verdicts or not rows:
        return "PENDING"
    return "SHIP" if profile == "ship" and not suite_is_sample else "PASSED_NOT_SHIPPABLE"


def partition_verdict(
    rows: Sequence[GateEntry], artifacts: Mapping[str, Artifact], configuration: Configuration
) -> OverallVerdict:
    """Return what a partition's gates say together, as what its artifacts are made of allows.

    Judged on the sample suite, or made anywhere from what an override let through, it is never SHIP.
    """
    manifests = [artifact.manifest for artifact in artifacts.values()]
    never_ships = any(manifest.overridden_gates for manifest in manifests) or any(
        str(manifest.metadata.get("suite_version", "")).startswith("sample") for manifest in manifests
    )
    return overall_verdict(rows, configuration.evaluation.profile, suite_is_sample=never_ships)

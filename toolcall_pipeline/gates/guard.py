"""The guard at the head of every asset: nothing is made from an artifact whose gates did not pass on exactly its bytes.

Dagster's blocking checks hold inside one run only; the guard holds in a later run, a backfill, a re-execution, after a
deselected check and after a reported materialisation, since it asks the stored verdicts, the files and the rows themselves,
of everything above.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.errors import ArtifactError, GateHeldError, StoreError
from toolcall_pipeline.gates.profiles import GateRule, rules_for
from toolcall_pipeline.gates.verdict_store import StoredVerdict, key_of, load_verdict, verdicts_of
from toolcall_pipeline.presets import Configuration
from toolcall_pipeline.store.row_hash import ROWS_ASSET, require_rows_unchanged


def require_passed(
    engine: Engine,
    store: ArtifactStore,
    partition: str,
    assets: Sequence[str],
    configuration: Configuration,
) -> tuple[str, ...]:
    """Refuse unless every gate of the artifacts passed, or was overridden, on exactly their bytes.

    Args:
        engine: Of the store.
        store: All artifacts.
        partition: The `backfill_run_id`.
        assets: Everything above what is to be made, not only what it reads itself: a gate that failed since holds what is
            further down as well.
        configuration: Names profile and preset, and so the rules in force.

    Returns:
        Overridden gates as `asset:gate`, sorted, those inherited from further up included; an artifact made from them
        never ships.

    Raises:
        GateHeldError: An artifact is missing, damaged, or made from other bytes than those in use, or a verdict is missing,
            failed, inconclusive, or about other bytes or another rule. The message names every such gate, why, and what
            to do.
    """
    problems: list[str] = []
    overridden: set[str] = set()
    for asset in assets:
        artifact = _whole_artifact(engine, store, partition, asset)
        overridden.update(artifact.manifest.overridden_gates)
        for rule in _rules_of(configuration, asset):
            stored = load_verdict(engine, key_of(artifact, rule))
            if stored is not None and stored.is_overridden:
                overridden.add(f"{asset}:{rule.gate}")
            elif stored is None or not stored.passed:
                problems.append(_why(engine, partition, artifact, rule, stored))
    if problems:
        count = "A gate" if len(problems) == 1 else f"{len(problems)} gates"
        raise GateHeldError(f"{count} above did not pass for partition {partition}:\n" + "\n".join(problems))
    return tuple(sorted(overridden))


def has_passed(
    engine: Engine, store: ArtifactStore, partition: str, assets: Sequence[str], configuration: Configuration
) -> bool:
    """Return whether every gate of these assets passed on the artifacts in use; an override is no pass."""
    for asset in assets:
        artifact = store.current(asset, partition)
        if artifact is None or artifact.manifest.overridden_gates or store.stale_parent(artifact):
            return False
        for rule in _rules_of(configuration, asset):
            stored = load_verdict(engine, key_of(artifact, rule))
            if stored is None or not stored.passed:
                return False
    return True


def _rules_of(configuration: Configuration, asset: str) -> list[GateRule]:
    return [rule for (owner, _), rule in rules_for(configuration).items() if owner == asset]


def _whole_artifact(engine: Engine, store: ArtifactStore, partition: str, asset: str) -> Artifact:
    """Return an asset's artifact in use, after its files, its rows and what it was made from were compared."""
    try:
        artifact = store.current(asset, partition)
        if artifact is None:
            raise GateHeldError(
                f"{asset} of partition {partition} was never made (a reported materialisation leaves nothing to judge). "
                f"Materialise {asset} with its checks."
            )
        artifact.verify()
        stale = store.stale_parent(artifact)
        if asset == ROWS_ASSET:
            require_rows_unchanged(engine, artifact)
    except (ArtifactError, StoreError) as error:
        raise GateHeldError(f"{asset} of partition {partition} is not what its gates judged: {error}") from error
    if stale is not None:
        raise GateHeldError(
            f"{asset} of partition {partition} was made from other bytes of {stale} than those in use now. Materialise "
            f"{asset} again, or make {stale} again with the configuration of before."
        )
    return artifact


def _why(engine: Engine, partition: str, artifact: Artifact, rule: GateRule, stored: StoredVerdict | None) -> str:
    asset = artifact.manifest.asset
    place = f"- {rule.gate} on {asset}"
    if stored is not None:
        result = stored.result
        return f"{place}: {result.verdict.value}. {result.explanation} What to do: {result.how_to_fix}"
    earlier = verdicts_of(engine, partition, asset, rule.gate)
    again = f"Run the checks of {asset} for this partition."
    if not earlier:
        return f"{place}: missing; it was never judged, or judging it broke. {again}"
    last = earlier[0]
    if last.key.artifact_sha256 != artifact.sha256:
        return (
            f"{place}: missing; the last verdict ({last.shown_verdict}) is about other bytes "
            f"({last.key.artifact_sha256[:12]}, the artifact in use is {artifact.sha256[:12]}). {again}"
        )
    if last.key.rule_sha256 != rule.sha256:
        return (
            f"{place}: missing; the last verdict ({last.shown_verdict}) was given under another rule "
            f"(profile {last.profile}, rule {last.key.rule_sha256[:12]}; in force: profile {rule.profile}, "
            f"rule {rule.sha256[:12]}). {again}"
        )
    return f"{place}: missing; the last verdict ({last.shown_verdict}) was given on another suite version. {again}"

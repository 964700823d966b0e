"""Every gate, by asset: `gates/<asset>.py` holds an asset's gates, this module finds and runs them.

Names are checked against `profiles.py`: a gate without a rule, or a rule without a gate, is an error and not a gap.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache

from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.errors import ConfigurationError, ToolcallPipelineError
from toolcall_pipeline.gates import verdict_store
from toolcall_pipeline.gates.profiles import GateRule, all_rules, rule_for
from toolcall_pipeline.gates.rates import result_of
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult, Verdict
from toolcall_pipeline.presets import Configuration

ASSETS_WITH_GATES: tuple[str, ...] = tuple(dict.fromkeys(rule.asset for rule in all_rules("ship")))


@dataclass(frozen=True)
class JudgedGate:
    """A gate's result as it was stored.

    Attributes:
        result: What the gate found.
        overridden_reason: Why the run goes on although it did not pass; None where it passed or nobody said so.
    """

    result: GateResult
    overridden_reason: str | None


@cache
def gates_of(asset: str) -> tuple[Gate, ...]:
    """Return the gates of an asset, in the order of `profiles.py`; none for an asset without gates.

    Raises:
        ConfigurationError: The asset's gates and its rules do not have the same names.
    """
    expected = [rule.gate for rule in all_rules("ship") if rule.asset == asset]
    if not expected:
        return ()
    module = importlib.import_module(f"toolcall_pipeline.gates.{asset}")
    gates = {gate.name: gate for gate in module.GATES}
    if sorted(gates) != sorted(expected) or any(gate.asset != asset for gate in gates.values()):
        raise ConfigurationError(
            f"gates/{asset}.py and gates/profiles.py disagree: rules {sorted(expected)}, gates {sorted(gates)}."
        )
    return tuple(gates[name] for name in expected)


def gate(asset: str, name: str) -> Gate:
    """Return one gate.

    Raises:
        ConfigurationError: The asset has no such gate.
    """
    for candidate in gates_of(asset):
        if candidate.name == name:
            return candidate
    raise ConfigurationError(f"Asset {asset!r} has no gate {name!r}. Its gates: {[g.name for g in gates_of(asset)]}.")


def make_context(
    engine: Engine, store: ArtifactStore, partition: str, asset: str, configuration: Configuration, gate_name: str
) -> GateContext:
    """Return the context in which a gate judges the artifact in use.

    Raises:
        MissingInputError: The asset was never made for the partition.
    """
    return GateContext(
        artifact=store.require(asset, partition),
        partition=partition,
        store=store,
        engine=engine,
        configuration=configuration,
        rule=rule_for(configuration, asset, gate_name),
    )


def judge_and_store(gate: Gate, context: GateContext, *, overridden_reason: str | None = None) -> JudgedGate:
    """Judge one gate and store its verdict.

    A judge that raises, or answers for another gate, leaves `inconclusive` in place of whatever was stored on the same
    bytes before, override or not, and the error goes up: it holds what follows, and `status` shows why.

    Args:
        gate: The gate.
        context: What it judges.
        overridden_reason: Why the run may go on where it does not pass.
    """
    key = verdict_store.key_of(context.artifact, context.rule)
    try:
        result = gate.judge(context)
        _check_answer(gate, context.artifact, result)
    except Exception as error:
        broken = _could_not_be_judged(context.rule, error)
        verdict_store.store_verdict(
            context.engine, key, broken, partition=context.partition, profile=context.rule.profile
        )
        raise
    verdict_store.store_verdict(
        context.engine,
        key,
        result,
        partition=context.partition,
        profile=context.rule.profile,
        overridden_reason=overridden_reason,
    )
    held = result.verdict is not Verdict.PASS
    return JudgedGate(result, overridden_reason if held else None)


def judge_asset(
    engine: Engine, store: ArtifactStore, partition: str, asset: str, configuration: Configuration
) -> list[JudgedGate]:
    """Judge every gate of an asset, in order; the first that raises ends it.

    Args:
        engine: Of the store.
        store: All artifacts.
        partition: The `backfill_run_id`.
        asset: Whose artifact is judged.
        configuration: Names profile and preset.
    """
    judged = []
    for candidate in gates_of(asset):
        context = make_context(engine, store, partition, asset, configuration, candidate.name)
        judged.append(judge_and_store(candidate, context))
    return judged


def _could_not_be_judged(rule: GateRule, error: Exception) -> GateResult:
    # Only our own errors promise to carry no session text.
    reason = str(error) if isinstance(error, ToolcallPipelineError) else "see the log of the run"
    return result_of(
        rule,
        Verdict.INCONCLUSIVE,
        measured=None,
        n=0,
        explanation=f"Could not be judged: {type(error).__name__}, {reason}",
        how_to_fix=f"Mend the cause and run the checks of {rule.asset} again.",
    )


def _check_answer(gate: Gate, artifact: Artifact, result: GateResult) -> None:
    if (result.gate, result.asset) != (gate.name, gate.asset):
        raise ConfigurationError(
            f"Gate {gate.name} on {gate.asset} answered for {result.gate} on {result.asset} "
            f"(artifact {artifact.sha256[:12]}); nothing was stored."
        )

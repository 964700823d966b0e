"""Gates as Dagster checks: one blocking, partitioned check per gate, on the gate's asset.

What a gate asks and how it is judged is in `gates/<asset>.py`; its threshold in `gates/profiles.py`. A check shows the
verdict and stores it; the guard of the next asset (`defs/stage.py`) reads what was stored. The checks of one asset are
one step, so that the smoke chain does not pay for some fifty steps.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from toolcall_pipeline.defs.configuration import CONFIGURATION_KEY, resolve_and_remember
from toolcall_pipeline.defs.metadata import describe, gate_metadata
from toolcall_pipeline.defs.partitions import BACKFILL_RUNS
from toolcall_pipeline.defs.resources import STORE_KEY, Store
from toolcall_pipeline.defs.stage import REQUIRED_RESOURCES
from toolcall_pipeline.defs.wiring import Wiring
from toolcall_pipeline.errors import ConfigurationError, ToolcallPipelineError
from toolcall_pipeline.gates import registry
from toolcall_pipeline.gates.verdict import Verdict

PREVIEW_WARNING = "Specifying a partitions_def on an AssetCheckSpec"


def check_step_name(asset: str) -> str:
    """Return the name of the step that judges an asset; overrides are configured under it."""
    return f"{asset}_gates"


def gate_checks(wiring: Wiring, asset: str) -> dg.AssetChecksDefinition:
    """Return the checks of one asset, one per gate."""
    questions = wiring.gate_questions[asset]

    @dg.multi_asset_check(
        name=check_step_name(asset),
        specs=[_spec(asset, gate, question) for gate, question in questions.items()],
        description=f"Judges {asset} and stores the verdicts that the next asset's guard asks for.",
        can_subset=True,
        required_resource_keys=REQUIRED_RESOURCES,
        # A resume job judges what lies above before its first asset's guard asks for it; nothing else orders the two.
        op_tags={"dagster/priority": "1"},
        config_schema={
            "overrides": dg.Field(
                dg.Map(str, str, key_label_name="gate"),
                default_value={},
                description="Gate to the reason for letting it through all the same. Recorded, shown amber, inherited by "
                "everything made from this; what is made so never ships.",
            )
        },
    )
    def judge(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        overrides = checked_overrides(asset, questions, context.op_execution_context.op_config["overrides"])
        selected = {key.name for key in context.selected_asset_check_keys}
        for gate in (name for name in questions if name in selected):
            yield _judge(context, wiring, asset, gate, overrides.get(gate))

    return judge


def checked_overrides(asset: str, known: Any, overrides: dict[str, str]) -> dict[str, str]:
    """Return the overrides of a run.

    Raises:
        ConfigurationError: One names no gate of the asset, or gives no reason.
    """
    for gate, reason in overrides.items():
        if gate not in known:
            raise ConfigurationError(f"{asset} has no gate {gate!r} to override. Its gates: {', '.join(known)}.")
        if not reason.strip():
            raise ConfigurationError(f"The override of {gate} on {asset} gives no reason. Write why, or remove it.")
    return overrides


def _spec(asset: str, gate: str, question: str) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=PREVIEW_WARNING)
        return dg.AssetCheckSpec(
            name=gate, asset=asset, description=question, blocking=True, partitions_def=BACKFILL_RUNS
        )


def _judge(
    context: dg.AssetCheckExecutionContext, wiring: Wiring, asset: str, gate: str, overridden_reason: str | None
) -> dg.AssetCheckResult:
    """Judge one gate; whatever it raises is shown on its page and holds."""
    store: Store = getattr(context.resources, STORE_KEY)
    partition = context.partition_key
    try:
        configuration = resolve_and_remember(store.engine, partition, getattr(context.resources, CONFIGURATION_KEY))
        gate_context = registry.make_context(store.engine, store.artifacts, partition, asset, configuration, gate)
        judged = registry.judge_and_store(
            wiring.find_gate(asset, gate), gate_context, overridden_reason=overridden_reason
        )
    # Whatever a gate raises must hold and be readable on the gate's own page; the other gates are judged all the same.
    except Exception as error:  # noqa: BLE001
        context.log.error(f"{gate} on {asset} could not be judged: {safe_error(error)}")
        return _result(asset, gate, False, safe_error(error), {"verdict": "raised", "how_to_fix": _RAISED})
    result = judged.result
    context.log.info(f"{gate} on {asset}: {describe(result)}")
    metadata = gate_metadata(result, judged.overridden_reason)
    if judged.overridden_reason:
        text = f"OVERRIDDEN ({judged.overridden_reason}). {describe(result)}"
        return _result(asset, gate, False, text, metadata, dg.AssetCheckSeverity.WARN)
    return _result(asset, gate, result.verdict is Verdict.PASS, describe(result), metadata)


_RAISED = (
    "The gate could not be judged, which holds everything behind it. Mend the error above, then run the check again."
)


def _result(
    asset: str,
    gate: str,
    passed: bool,
    description: str,
    metadata: dict[str, Any],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=asset,
        check_name=gate,
        severity=severity,
        description=description,
        metadata=metadata,
    )


def safe_error(error: Exception) -> str:
    """Return what may be shown of an error: our own messages whole, of others the kind and the place, never their text."""
    if isinstance(error, ToolcallPipelineError):
        return f"{type(error).__name__}: {error}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" at {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame is not None else ""
    return f"{type(error).__name__}{place}"

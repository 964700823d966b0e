"""What the gates of `merged_model` and `gguf_q6k` share: measured equivalence, and suite D on one model."""

from __future__ import annotations

import json
from typing import Any

from toolcall_pipeline.evaluation.cases import SuiteRun
from toolcall_pipeline.gates.rates import exact_verdict, interval_of, rate_verdict, validator_outcomes
from toolcall_pipeline.gates.statistics import estimate_rate
from toolcall_pipeline.gates.verdict import GateContext, GateResult
from toolcall_pipeline.training.merge import VALIDATOR_NAME


def load(context: GateContext, name: str) -> dict[str, Any]:
    """Return the object of one of the artifact's JSON files."""
    return json.loads(context.artifact.path(name).read_text(encoding="utf-8"))


def equivalence_verdict(
    context: GateContext, comparison: dict[str, Any], *, what: str, how_to_fix: str, details: dict[str, Any], also: bool
) -> GateResult:
    """Return the verdict of a measured comparison: same-top-token share as the rule says, mean KL below its parameter.

    The share is counted from the positions on record and compared as it is, over at least the rule's `min_n` of them; its
    interval, positions of one row counted as dependent, is drawn beside it.

    Args:
        context: Its rule has `max_mean_kl`.
        comparison: As `Comparison.to_json` gives it.
        what: Which two forms were compared.
        how_to_fix: What to do about it.
        details: Further figures.
        also: Further conditions.
    """
    limit = float(context.rule.parameters["max_mean_kl"])
    mean_kl = float(comparison["mean_kl"])
    estimate = estimate_rate(
        [(str(row), digit == "1") for row, digits in enumerate(comparison["same_top"]) for digit in digits]
    )
    result = exact_verdict(
        context.rule,
        measured=estimate.rate,
        n=estimate.n,
        explanation=(
            f"{what}: the same most likely token at {estimate.successes} of {estimate.n} supervised positions, mean KL "
            f"{mean_kl:.6f} (at most {limit})."
        ),
        how_to_fix=how_to_fix,
        details={"mean_kl": mean_kl, "max_mean_kl": limit, "max_kl": comparison["max_kl"], **details},
        also=also and mean_kl <= limit,
    )
    return result.model_copy(update={"interval": interval_of(estimate)})


def judge_validator(context: GateContext) -> GateResult:
    """Return the verdict of suite D on the model, as it was run when the artifact was made."""
    run = SuiteRun.model_validate_json(context.artifact.path(VALIDATOR_NAME).read_bytes())
    counts = context.rule.parameters.get("counts", "passed")
    return rate_verdict(
        context.rule,
        outcomes=validator_outcomes(context.rule, run),
        explanation=f"Cases of suite D that {counts}.",
        how_to_fix=(
            "Look at the failed cases in validator.json. Where base and adapter pass them, the merge or the export is at "
            "fault; otherwise train longer or on more data."
        ),
    )

"""Gates of `lora_adapter`."""

from __future__ import annotations

import json
import math
from typing import Any

from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult
from toolcall_pipeline.training.job import ADAPTER_NAME, METRICS_NAME, START_NAME
from toolcall_pipeline.training.tensor_hash import tensor_sha256

_ASSET = "lora_adapter"
_SHOWN = 20
_WATCHED = ("loss", "eval_loss", "grad_norm")


def judge_loss(context: GateContext) -> GateResult:
    """Count what is wrong with the losses: values that are not finite, steps that are missing, no improvement."""
    lines = context.artifact.path(METRICS_NAME).read_text(encoding="utf-8").splitlines()
    metrics: list[dict[str, Any]] = [json.loads(line) for line in lines]
    steps = [record["step"] for record in metrics if "loss" in record]
    evaluations = [record["eval_loss"] for record in metrics if "eval_loss" in record]
    problems = [
        {"step": record["step"], "problem": f"{name} is {record[name]}"}
        for record in metrics
        for name in _WATCHED
        if name in record and not math.isfinite(record[name])
    ]
    if steps != list(range(1, len(steps) + 1)) or not steps:
        problems.append({"step": len(steps), "problem": "the steps on record are not 1, 2, 3 ..."})
    if len(evaluations) < 2:
        problems.append({"step": 0, "problem": "the validation loss was not measured before and after"})
    elif not evaluations[-1] < evaluations[0]:
        problems.append({"step": len(steps), "problem": "the validation loss did not fall"})
    before, after = (evaluations[0], evaluations[-1]) if evaluations else (math.nan, math.nan)
    return exact_verdict(
        context.rule,
        measured=len(problems),
        n=len(metrics),
        explanation=f"The validation loss went from {before:.4f} to {after:.4f} in {len(steps)} steps.",
        how_to_fix=(
            "Lower training.learning_rate or raise training.warmup_ratio where a value is not finite; where the loss did "
            "not fall, look at the loss curve and train longer (training.epochs, training.max_steps)."
        ),
        details={"problems": problems[:_SHOWN]},
    )


def judge_trainable_changed(context: GateContext) -> GateResult:
    """Count the adapter's tensors that are still what they were before the first step, or are not finite."""
    import torch
    from safetensors import safe_open

    start: dict[str, str] = json.loads(context.artifact.path(START_NAME).read_text(encoding="utf-8"))
    problems: list[dict[str, str]] = []
    with safe_open(context.artifact.path(f"{ADAPTER_NAME}/adapter_model.safetensors"), framework="pt") as tensors:
        names = set(tensors.keys())
        for name in sorted(names):
            tensor = tensors.get_tensor(name)
            if not bool(torch.isfinite(tensor).all()):
                problems.append({"tensor": name, "problem": "holds values that are not finite"})
            elif tensor_sha256(tensor) == start.get(name):
                problems.append({"tensor": name, "problem": "did not change"})
    problems += [{"tensor": name, "problem": "trained, but not saved"} for name in sorted(start.keys() - names)]
    problems += [{"tensor": name, "problem": "saved, but never trained"} for name in sorted(names - start.keys())]
    return exact_verdict(
        context.rule,
        measured=len(problems),
        n=len(start),
        explanation=f"{len(start) - len(problems)} of {len(start)} trainable tensors changed.",
        how_to_fix=(
            "A tensor that never moves is not reached by the loss: look at training.target_modules and at the supervised "
            "tokens of the dataset, then train again."
        ),
        details={"problems": problems[:_SHOWN]},
        also=bool(start),
    )


GATES = (
    Gate(
        "loss_finite_and_better",
        _ASSET,
        "Protects from a run that broke or learnt nothing: the source's v3 was at NaN after seven hours.",
        judge_loss,
    ),
    Gate(
        "all_trainable_changed",
        _ASSET,
        "Protects from adapters of which a part was never trained, or was not saved.",
        judge_trainable_changed,
    ),
)

"""What a training would take, before it starts: rows, tokens, steps, memory, disk, time, cost, gates; and refusals.

Speed and memory come from measurements on one H100 (Qwen2.5-3B shape, LoRA on all linear layers) and on two CPU cores;
devices that were not measured are marked as assumed. Prices are assumptions of the table and can be given.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.dataset import files
from toolcall_pipeline.errors import ConfigurationError
from toolcall_pipeline.presets import Configuration, TrainingConfiguration

_GIB = 1 << 30
_FLOP_PER_PARAMETER_AND_TOKEN = 4
"""Frozen base weights need no weight gradient: 2 forward and 2 backward, not 6."""
_FLOP_OF_RECOMPUTING = 2
"""Gradient checkpointing runs the forward pass once more."""
_KEPT_PER_HIDDEN = 7.6
_KEPT_PER_INTERMEDIATE = 3.5
"""Values kept for the backward pass, per token and layer, in units of the hidden and of the intermediate size."""
_FIXED_BYTES = int(4.1 * _GIB)
"""Logits, workspace and allocator beside weights and activations: the intercept of two H100 measurements."""
_MERGE_PARAMETER_BYTES = 4
"""Merging and comparing compute in float32, one model at a time in memory."""
_KEPT_CHECKPOINTS = 3
_PACKED_RATIO = 0.97
"""Share of a pack that rows fill (best-fit decreasing)."""


class BaseFacts(Protocol):
    """What the plan needs to know of a base; `training.base_model.BaseModelInfo` has it."""

    @property
    def source(self) -> str:
        """Return the base as configured."""

    @property
    def parameter_count(self) -> int:
        """Return the numbers in its weights."""

    @property
    def path(self) -> Path:
        """Return its Hugging Face folder."""

    @property
    def q4_k_m_bytes_estimate(self) -> int:
        """Return what the size rule compares."""

    @property
    def native_context_tokens(self) -> int:
        """Return the longest context it was made for."""


@dataclass(frozen=True)
class Device:
    """A device to plan for.

    Attributes:
        memory_bytes: None where it is this machine's.
        flops: Floating-point operations a second it reaches in training (not its peak): packed, and row by row.
        most_tokens_per_second: Where kernels wait for Python and not for arithmetic, as with small bases.
        dollars_per_hour: Assumed price; 0 for one's own machine.
        is_measured: Whether `flops` was measured with this project's kind of training.
    """

    name: str
    memory_bytes: int | None
    packed_flops: float
    row_flops: float
    most_tokens_per_second: float
    dollars_per_hour: float
    is_measured: bool


_H100_PEAK = 798e12
_MOST_ON_A_GPU = 134e3
"""SmolLM2-135M on the corpus, packed, on one H100 (docs/reference/training.md)."""
DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("h100", 80 * _GIB, 0.41 * _H100_PEAK, 0.27 * _H100_PEAK, _MOST_ON_A_GPU, 3.0, True),
        Device("a100", 80 * _GIB, 0.35 * 312e12, 0.22 * 312e12, _MOST_ON_A_GPU, 2.0, False),
        Device("rtx4090", 24 * _GIB, 0.35 * 165e12, 0.22 * 165e12, _MOST_ON_A_GPU, 0.5, False),
        Device("mps", None, 3e12, 2e12, math.inf, 0.0, False),
        # SmolLM2-135M, 159 tokens/s on two cores.
        Device("cpu", None, 159 * 4 * 135e6, 159 * 4 * 135e6, math.inf, 0.0, True),
    )
}


class Plan(BaseModel):
    """The plan of one training.

    Attributes:
        memory_bytes, memory_available_bytes: Of the device that trains.
        merge_memory_bytes, machine_memory_bytes: Of this machine, which merges what was trained, and exports it.
        refusals: Why it must not start; empty where it may.
        speed_is_measured: Whether the device's speed was measured or is assumed.
    """

    model_config = ConfigDict(frozen=True)

    base: str
    device: str
    train_rows: int
    valid_rows: int
    train_tokens: int
    supervised_tokens: int
    longest_row_tokens: int
    epochs: float
    steps: int
    tokens_per_step: int
    trainable_parameters: int
    memory_bytes: int
    memory_available_bytes: int
    merge_memory_bytes: int
    machine_memory_bytes: int
    disk_bytes: int
    disk_free_bytes: int | None
    tokens_per_second: float
    hours: float
    dollars: float
    speed_is_measured: bool
    base_q4_k_m_bytes: int
    gates: tuple[str, ...]
    refusals: tuple[str, ...]

    def as_text(self) -> str:
        """Return the plan as text for a terminal."""
        basis = "measured" if self.speed_is_measured else "assumed, never measured here"
        lines = [
            f"Base {self.base} ({self.base_q4_k_m_bytes / 1e9:.2f} GB as Q4_K_M) on {self.device}",
            f"  rows              {self.train_rows} training, {self.valid_rows} validation",
            f"  tokens            {self.train_tokens} ({self.supervised_tokens} supervised), longest row "
            f"{self.longest_row_tokens}",
            f"  steps             {self.steps} of {self.tokens_per_step} tokens, {self.epochs:g} epochs",
            f"  trainable         {self.trainable_parameters} parameters",
            f"  memory            {self.memory_bytes / _GIB:.1f} GiB of {self.memory_available_bytes / _GIB:.1f} GiB",
            f"  merge             {self.merge_memory_bytes / _GIB:.1f} GiB of this machine's "
            f"{self.machine_memory_bytes / _GIB:.1f} GiB",
            f"  disk              {self.disk_bytes / 1e9:.1f} GB"
            + ("" if self.disk_free_bytes is None else f" of {self.disk_free_bytes / 1e9:.1f} GB free"),
            f"  time              {self.hours:.2f} hours at {self.tokens_per_second:.0f} tokens/s ({basis})",
            f"  cost              {self.dollars:.2f} US dollars (assumed price)",
            f"  gates             {len(self.gates)} will apply:",
            *(f"    {asset:<18}{', '.join(names)}" for asset, names in self._gates_by_asset().items()),
        ]
        lines += [f"REFUSED: {reason}" for reason in self.refusals]
        return "\n".join(lines)

    def _gates_by_asset(self) -> dict[str, list[str]]:
        by_asset: dict[str, list[str]] = {}
        for gate in self.gates:
            asset, _, name = gate.partition(":")
            by_asset.setdefault(asset, []).append(name)
        return by_asset

    def require_feasible(self) -> None:
        """Refuse to start.

        Raises:
            ConfigurationError: Something cannot fit; the message says what and what to turn.
        """
        if self.refusals:
            raise ConfigurationError("This training cannot start. " + " ".join(self.refusals))


def make_plan(
    configuration: Configuration,
    dataset: Artifact | None,
    base: BaseFacts,
    *,
    device: str,
    gates: Sequence[str] = (),
    dollars_per_hour: float | None = None,
    memory_available_bytes: int | None = None,
) -> Plan:
    """Plan a training.

    Args:
        configuration: Of the partition.
        dataset: The `v2_chat_dataset` it would train on; None plans with no rows (and refuses).
        base: The base model.
        device: One of `DEVICES`.
        gates: Names of the gates that will apply.
        dollars_per_hour: Price of the device; the table's assumption otherwise.
        memory_available_bytes: Of the device; the table's otherwise.

    Raises:
        ConfigurationError: No such device.
    """
    if device not in DEVICES:
        raise ConfigurationError(f"There is no device {device!r} to plan for. Choose one of {', '.join(DEVICES)}.")
    chosen = DEVICES[device]
    training = configuration.training
    counts = dataset_counts(dataset)
    shape = _shape(base)
    trainable = _lora_parameters(shape, training)
    steps, step_tokens, pass_tokens = _steps(training, counts)
    memory = _memory_bytes(base, shape, training, trainable, pass_tokens, device)
    available = memory_available_bytes or chosen.memory_bytes or _machine_memory_bytes()
    flops = chosen.packed_flops if training.packed_tokens and not training.rows_per_step else chosen.row_flops
    token_flop = _FLOP_PER_PARAMETER_AND_TOKEN + (_FLOP_OF_RECOMPUTING if training.gradient_checkpointing else 0)
    speed = min(flops / (token_flop * base.parameter_count), chosen.most_tokens_per_second)
    speed *= training.process_count
    trained_tokens = counts["train_tokens"] * training.epochs
    if training.max_steps is not None and steps:
        full = max(1, _steps(training.model_copy(update={"max_steps": None}), counts)[0])
        trained_tokens *= min(1.0, steps / full)
    hours = trained_tokens / speed / 3600
    disk = _disk_bytes(base, configuration, trainable)
    free = shutil.disk_usage(dataset.directory).free if dataset else None
    plan = Plan(
        base=base.source,
        device=device,
        **counts,
        epochs=training.epochs,
        steps=steps,
        tokens_per_step=step_tokens,
        trainable_parameters=trainable,
        memory_bytes=memory,
        memory_available_bytes=available,
        merge_memory_bytes=merge_memory_bytes(base.parameter_count),
        machine_memory_bytes=_machine_memory_bytes(),
        disk_bytes=disk,
        disk_free_bytes=free,
        tokens_per_second=round(speed, 1),
        hours=round(hours, 4),
        dollars=round(
            hours
            * training.process_count
            * (chosen.dollars_per_hour if dollars_per_hour is None else dollars_per_hour),
            4,
        ),
        speed_is_measured=chosen.is_measured,
        base_q4_k_m_bytes=base.q4_k_m_bytes_estimate,
        gates=tuple(gates),
        refusals=(),
    )
    return plan.model_copy(update={"refusals": tuple(_refusals(plan, configuration, base))})


def dataset_counts(dataset: Artifact | None) -> dict[str, int]:
    """Return rows and tokens of a dataset, read from the tokens that train."""
    names = ("train_rows", "valid_rows", "train_tokens", "supervised_tokens", "longest_row_tokens")
    if dataset is None:
        return dict.fromkeys(names, 0)
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(dataset.path(files.ENCODED_TRAIN), columns=["length_tokens", "supervised_tokens"])
    lengths = table["length_tokens"]
    values = (
        table.num_rows,
        pq.read_metadata(dataset.path(files.ENCODED_VALID)).num_rows,
        pc.sum(lengths).as_py() or 0,
        pc.sum(table["supervised_tokens"]).as_py() or 0,
        pc.max(lengths).as_py() or 0,
    )
    return dict(zip(names, values, strict=True))


def _refusals(plan: Plan, configuration: Configuration, base: BaseFacts) -> list[str]:
    limit = configuration.base.max_q4_k_m_bytes
    reasons = []
    if base.q4_k_m_bytes_estimate > limit:
        reasons.append(
            f"The base {base.source} would be {base.q4_k_m_bytes_estimate / 1e9:.2f} GB as Q4_K_M, over the size rule of "
            f"{limit / 1e9:.2f} GB (base.max_q4_k_m_bytes): choose a smaller base."
        )
    if not plan.train_rows:
        reasons.append("There is no training row: materialise v2_chat_dataset first.")
    if plan.memory_bytes > plan.memory_available_bytes:
        reasons.append(
            f"It needs about {plan.memory_bytes / _GIB:.1f} GiB of memory and {plan.device} has "
            f"{plan.memory_available_bytes / _GIB:.1f} GiB: lower training.packed_tokens or training.rows_per_step, turn on "
            "training.gradient_checkpointing, or choose a smaller base."
        )
    if plan.merge_memory_bytes > plan.machine_memory_bytes:
        reasons.append(merge_refusal(plan.merge_memory_bytes, plan.machine_memory_bytes))
    if plan.disk_free_bytes is not None and plan.disk_bytes > plan.disk_free_bytes:
        reasons.append(
            f"It needs about {plan.disk_bytes / 1e9:.1f} GB of disk and {plan.disk_free_bytes / 1e9:.1f} GB are free."
        )
    longest_context = base.native_context_tokens
    if longest_context and plan.longest_row_tokens > longest_context:
        reasons.append(
            f"The longest row has {plan.longest_row_tokens} tokens and the base reads {longest_context}: lower "
            "dataset.max_row_tokens."
        )
    packed = configuration.training.packed_tokens
    if packed and not configuration.training.rows_per_step and plan.longest_row_tokens > packed:
        reasons.append(
            f"The longest row has {plan.longest_row_tokens} tokens and a pack {packed}: raise training.packed_tokens or "
            "lower dataset.max_row_tokens; nothing is cut."
        )
    return reasons


def _shape(base: BaseFacts) -> dict[str, int]:
    """Return the sizes of the base from its configuration; zeros where it names none."""
    path = base.path / "config.json"
    config: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    hidden, heads = int(config.get("hidden_size", 0)), int(config.get("num_attention_heads", 1))
    head = int(config.get("head_dim") or (hidden // heads))
    return {
        "layers": int(config.get("num_hidden_layers", 0)),
        "hidden": hidden,
        "intermediate": int(config.get("intermediate_size", 0)),
        "heads": heads,
        "queries": heads * head,
        "keys": int(config.get("num_key_value_heads", heads)) * head,
    }


def _lora_parameters(shape: dict[str, int], training: TrainingConfiguration) -> int:
    hidden, inner = shape["hidden"], shape["intermediate"]
    sides = {
        "q_proj": hidden + shape["queries"],
        "k_proj": hidden + shape["keys"],
        "v_proj": hidden + shape["keys"],
        "o_proj": shape["queries"] + hidden,
        "gate_proj": hidden + inner,
        "up_proj": hidden + inner,
        "down_proj": inner + hidden,
    }
    return shape["layers"] * training.lora_rank * sum(sides.get(name, 0) for name in training.target_modules)


def _steps(training: TrainingConfiguration, counts: dict[str, int]) -> tuple[int, int, int]:
    """Return optimiser steps, tokens of a step, and tokens of one forward pass on one device."""
    rows, tokens = counts["train_rows"], counts["train_tokens"]
    if not rows:
        return 0, 0, 0
    accumulated = training.gradient_accumulation * training.process_count
    if training.rows_per_step or not training.packed_tokens:
        per_pass = training.rows_per_step or 1
        steps = math.ceil(rows * training.epochs / (per_pass * accumulated))
        pass_tokens = per_pass * counts["longest_row_tokens"]
        step_tokens = math.ceil(tokens / rows * per_pass * accumulated)
    else:
        pass_tokens = training.packed_tokens
        step_tokens = training.packed_tokens * accumulated
        steps = math.ceil(tokens * training.epochs / (step_tokens * _PACKED_RATIO))
    if training.max_steps is not None:
        steps = min(steps, training.max_steps)
    return steps, step_tokens, pass_tokens


def _memory_bytes(
    base: BaseFacts,
    shape: dict[str, int],
    training: TrainingConfiguration,
    trainable: int,
    pass_tokens: int,
    device: str,
) -> int:
    """Return the peak: weights, adapter with optimiser, activations of one pass.

    Source: 69.4 GiB (Qwen2.5-3B shape, rank 16) and 14.4 GB (SmolLM2-135M, rank 32) at 16k packed tokens, bf16, no
    checkpointing, by this project's training (docs/reference/training.md), give the constants.
    """
    is_fp32 = training.precision == "fp32" or (training.precision == "auto" and device in {"cpu", "mps"})
    number_bytes = 4 if is_fp32 else 2
    kept = _KEPT_PER_HIDDEN * shape["hidden"] + _KEPT_PER_INTERMEDIATE * shape["intermediate"]
    layers = 1 + shape["layers"] * 0.04 if training.gradient_checkpointing else shape["layers"]
    activations = number_bytes * layers * kept * pass_tokens
    if device == "mps":
        # PyTorch has no fused attention with gradients there: what each pair of tokens weighs is kept.
        activations += number_bytes * layers * shape["heads"] * pass_tokens**2
    sharded = max(1, training.process_count)
    fixed = _FIXED_BYTES if DEVICES[device].memory_bytes else _GIB
    return int(number_bytes * base.parameter_count / sharded + 16 * trainable / sharded + activations + fixed)


def merge_memory_bytes(parameter_count: int) -> int:
    """Return what merging an adapter into a base of so many parameters takes of this machine's memory."""
    return _MERGE_PARAMETER_BYTES * parameter_count + _GIB


def require_merge_memory(parameter_count: int) -> None:
    """Refuse a base whose merge would not fit into this machine's memory.

    Raises:
        ConfigurationError: It would not; the message says what to do.
    """
    needed, there = merge_memory_bytes(parameter_count), _machine_memory_bytes()
    if needed > there:
        raise ConfigurationError(merge_refusal(needed, there))


def merge_refusal(needed_bytes: int, machine_bytes: int) -> str:
    """Return why a merge cannot be made here."""
    return (
        f"Merging in float32 needs about {needed_bytes / _GIB:.1f} GiB of memory and this machine has "
        f"{machine_bytes / _GIB:.1f} GiB: run the pipeline on a larger machine, or choose a smaller base."
    )


def _disk_bytes(base: BaseFacts, configuration: Configuration, trainable: int) -> int:
    """Return adapter and checkpoints, merged model, F16 and Q6_K files, and the ladder."""
    ladder = {"Q4_K_M": 0.60, "Q5_K_M": 0.71, "Q8_0": 1.07}
    files_ratio = 2 + 2 + 0.83 + sum(ladder[name] for name in configuration.export.ladder)
    return int(base.parameter_count * files_ratio + trainable * 12 * _KEPT_CHECKPOINTS)


def _machine_memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)

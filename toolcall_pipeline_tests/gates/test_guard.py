"""The guard asks the stored verdicts and the files: every way a verdict can fail to be about this artifact holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.errors import ConfigurationError, GateHeldError, UsageError
from toolcall_pipeline.gates import registry, verdict_store
from toolcall_pipeline.gates.guard import has_passed, require_passed
from toolcall_pipeline.gates.profiles import rule_for, rules_for
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.status import (
    artifacts_in_use,
    gate_rows,
    missing_entry,
    overall_verdict,
    partition_verdict,
)
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult
from toolcall_pipeline.presets import PRESETS, resolve_configuration

PARTITION = "20261123T020000Z-nightly"
ASSET = "lora_adapter"
CONFIGURATION = PRESETS["smoke"]
GATES = ("loss_finite_and_better", "all_trainable_changed")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def make(store: ArtifactStore, content: str = "weights", asset: str = ASSET, **options: Any) -> Artifact:
    recipe = {"content": content}
    metadata = options.pop("metadata", {})
    with store.build(asset, PARTITION, recipe_of_artifact=recipe, **options) as build:
        (build.directory / "adapter.bin").write_text(content, encoding="utf-8")
        build.metadata.update(metadata)
    artifact = store.current(asset, PARTITION)
    assert artifact is not None
    return artifact


def judge(
    engine: Engine,
    store: ArtifactStore,
    gate: str,
    problems: float = 0,
    *,
    reason: str | None = None,
    configuration: Any = CONFIGURATION,
) -> registry.JudgedGate:
    def measure(context: GateContext) -> GateResult:
        return exact_verdict(
            context.rule, measured=problems, n=1, explanation="Counted", how_to_fix="Turn the rate down."
        )

    context = registry.make_context(engine, store, PARTITION, ASSET, configuration, gate)
    return registry.judge_and_store(Gate(gate, ASSET, "", measure), context, overridden_reason=reason)


def pass_all(engine: Engine, store: ArtifactStore) -> None:
    for gate in GATES:
        judge(engine, store, gate)


def guard(engine: Engine, store: ArtifactStore, configuration: Any = CONFIGURATION) -> tuple[str, ...]:
    return require_passed(engine, store, PARTITION, (ASSET,), configuration)


def test_lets_through_what_passed_on_exactly_these_bytes(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    pass_all(engine, store)
    assert guard(engine, store) == ()
    assert has_passed(engine, store, PARTITION, [ASSET], CONFIGURATION)


def test_holds_what_was_never_made(engine: Engine, store: ArtifactStore) -> None:
    with pytest.raises(GateHeldError, match="never made"):
        guard(engine, store)
    assert not has_passed(engine, store, PARTITION, [ASSET], CONFIGURATION)


def test_holds_when_one_of_two_gates_was_not_judged(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    judge(engine, store, GATES[0])
    with pytest.raises(GateHeldError, match="all_trainable_changed on lora_adapter: missing"):
        guard(engine, store)


def test_holds_a_failed_gate_and_says_why_and_what_to_do(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    pass_all(engine, store)
    judge(engine, store, GATES[0], problems=2)
    with pytest.raises(GateHeldError, match=r"fail\. Counted What to do: Turn the rate down\."):
        guard(engine, store)


def test_holds_when_the_bytes_are_others(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    pass_all(engine, store)
    make(store, "other weights")
    with pytest.raises(GateHeldError, match="other bytes"):
        guard(engine, store)


def test_holds_when_a_file_changed_under_its_manifest(engine: Engine, store: ArtifactStore) -> None:
    artifact = make(store)
    pass_all(engine, store)
    artifact.path("adapter.bin").write_text("Weights", encoding="utf-8")
    with pytest.raises(GateHeldError, match="not what its gates judged"):
        guard(engine, store)


def test_holds_when_the_rule_is_another(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    pass_all(engine, store)
    shipping = resolve_configuration("smoke", {"evaluation": {"profile": "ship"}})
    with pytest.raises(GateHeldError, match="another rule"):
        guard(engine, store, shipping)


def test_holds_when_the_suite_is_another(engine: Engine, store: ArtifactStore) -> None:
    make(store, metadata={"suite_sha256": "a" * 64})
    pass_all(engine, store)
    artifact = store.current(ASSET, PARTITION)
    assert artifact is not None
    manifest = artifact.manifest.model_copy(update={"metadata": {"suite_sha256": "b" * 64}})
    (artifact.directory / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    with pytest.raises(GateHeldError, match="another suite version"):
        guard(engine, store)


def test_a_judge_that_breaks_takes_its_old_pass_with_it(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    pass_all(engine, store)

    def broken(context: GateContext) -> GateResult:
        raise ZeroDivisionError("a secret of the session")

    context = registry.make_context(engine, store, PARTITION, ASSET, CONFIGURATION, GATES[0])
    with pytest.raises(ZeroDivisionError):
        registry.judge_and_store(Gate(GATES[0], ASSET, "", broken), context, overridden_reason="whatever it says")
    with pytest.raises(GateHeldError, match="Could not be judged: ZeroDivisionError") as caught:
        guard(engine, store)
    assert "secret" not in str(caught.value)
    row = next(
        row for row in gate_rows(engine, artifacts_in_use(store, PARTITION), CONFIGURATION) if row.gate == GATES[0]
    )
    assert row.verdict == "inconclusive"


def test_a_judge_cannot_answer_for_another_gate(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    other = rule_for(CONFIGURATION, ASSET, GATES[1])

    def impostor(context: GateContext) -> GateResult:
        return exact_verdict(other, measured=0, n=1, explanation="", how_to_fix="")

    context = registry.make_context(engine, store, PARTITION, ASSET, CONFIGURATION, GATES[0])
    with pytest.raises(ConfigurationError, match="answered for"):
        registry.judge_and_store(Gate(GATES[0], ASSET, "", impostor), context)


def test_an_override_lets_through_and_follows_what_is_made_from_it(engine: Engine, store: ArtifactStore) -> None:
    make(replace(store, overridden_gates=("v2_chat_dataset:category_cap",)))
    judge(engine, store, GATES[0], problems=1, reason="a known outlier")
    judge(engine, store, GATES[1])
    assert guard(engine, store) == ("lora_adapter:loss_finite_and_better", "v2_chat_dataset:category_cap")
    assert not has_passed(engine, store, PARTITION, [ASSET], CONFIGURATION)
    rows = {row.gate: row for row in gate_rows(engine, artifacts_in_use(store, PARTITION), CONFIGURATION)}
    assert rows[GATES[0]].verdict == "overridden"


def test_judging_again_without_the_override_holds_again(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    judge(engine, store, GATES[0], problems=1, reason="once")
    judge(engine, store, GATES[1])
    judge(engine, store, GATES[0], problems=1)
    with pytest.raises(GateHeldError):
        guard(engine, store)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_an_override_needs_a_reason(engine: Engine, store: ArtifactStore, reason: str) -> None:
    make(store)
    with pytest.raises(UsageError, match="needs a reason"):
        judge(engine, store, GATES[0], problems=1, reason=reason)


def test_every_gate_is_a_row_and_what_was_not_judged_is_missing(engine: Engine, store: ArtifactStore) -> None:
    make(store)
    judge(engine, store, GATES[0])
    rows = gate_rows(engine, artifacts_in_use(store, PARTITION), CONFIGURATION)
    assert [(row.asset, row.gate) for row in rows] == list(rules_for(CONFIGURATION))
    judged = next(row for row in rows if row.gate == GATES[0])
    assert judged.verdict == "pass"
    assert set(judged.as_status()) == {
        "gate", "asset", "verdict", "measured", "comparison", "threshold", "unit", "n", "interval", "artifact_sha256",
        "how_to_fix",
    }  # fmt: skip
    assert {row.verdict for row in rows if row.gate != GATES[0]} == {"missing"}
    assert overall_verdict(rows, "smoke") == "PENDING"


@pytest.mark.parametrize(
    ("verdicts", "profile", "sample", "expected"),
    [
        (["pass", "pass"], "ship", False, "SHIP"),
        (["pass", "pass"], "ship", True, "PASSED_NOT_SHIPPABLE"),  # the sample suite served
        (["pass", "pass"], "smoke", False, "PASSED_NOT_SHIPPABLE"),
        (["pass", "missing"], "ship", False, "PENDING"),
        (["pass", "inconclusive", "missing"], "ship", False, "INCONCLUSIVE"),
        (["fail", "inconclusive", "missing"], "ship", False, "HOLD"),
        (["pass", "overridden"], "ship", False, "HOLD"),  # an override is no pass
        (["pass", "overridden"], "smoke", False, "HOLD"),
        ([], "ship", False, "PENDING"),
    ],
)
def test_the_gates_make_one_verdict(verdicts: list[str], profile: str, sample: bool, expected: str) -> None:
    rule = rule_for(CONFIGURATION, ASSET, GATES[0])
    rows = [missing_entry(rule).model_copy(update={"verdict": verdict}) for verdict in verdicts]
    assert overall_verdict(rows, profile, suite_is_sample=sample) == expected


def test_a_gate_that_failed_on_bytes_no_longer_in_use_is_missing_and_what_stands_on_them_is_too(
    engine: Engine, store: ArtifactStore
) -> None:
    dataset = make(store, "rows", asset="v2_chat_dataset")
    make(store, parents={"v2_chat_dataset": dataset.sha256})
    pass_all(engine, store)
    assert set(artifacts_in_use(store, PARTITION)) == {"v2_chat_dataset", ASSET}
    make(store, "other rows", asset="v2_chat_dataset")
    assert set(artifacts_in_use(store, PARTITION)) == {"v2_chat_dataset"}
    assert not has_passed(engine, store, PARTITION, [ASSET], CONFIGURATION)
    with pytest.raises(GateHeldError, match="made from other bytes of v2_chat_dataset"):
        guard(engine, store)


def test_a_stored_verdict_comes_back_as_it_was(engine: Engine, store: ArtifactStore) -> None:
    artifact = make(store)
    result = judge(engine, store, GATES[0], problems=3).result
    stored = verdict_store.load_verdict(
        engine, verdict_store.key_of(artifact, rule_for(CONFIGURATION, ASSET, GATES[0]))
    )
    assert stored is not None
    assert stored.result == result
    assert (stored.partition, stored.asset, stored.profile) == (PARTITION, ASSET, "smoke")
    assert verdict_store.load_verdict(engine, replace(stored.key, suite_sha256="another")) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "SHIP"),
        ({"metadata": {"suite_version": "1"}}, "SHIP"),
        ({"metadata": {"suite_version": "sample-12345678"}}, "PASSED_NOT_SHIPPABLE"),
        ({"overridden_gates": ["v2_chat_dataset:category_cap"]}, "PASSED_NOT_SHIPPABLE"),
    ],
)
def test_what_an_override_or_the_sample_suite_touched_never_ships(
    store: ArtifactStore, options: dict[str, Any], expected: str
) -> None:
    shipping = resolve_configuration("nightly")
    overridden = options.pop("overridden_gates", ())
    make(replace(store, overridden_gates=tuple(overridden)), **options)
    rows = [missing_entry(rule).model_copy(update={"verdict": "pass"}) for rule in rules_for(shipping).values()]
    assert partition_verdict(rows, artifacts_in_use(store, PARTITION), shipping) == expected

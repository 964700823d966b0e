"""A gate whose measurement is not there never passes: it fails, says that it cannot tell, or raises (which holds)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.errors import MissingInputError
from toolcall_pipeline.gates import registry
from toolcall_pipeline.gates.profiles import GateRule, all_rules, rule_for
from toolcall_pipeline.gates.verdict import GateContext, GateResult, Verdict
from toolcall_pipeline.presets import resolve_configuration

PARTITION = "20261123T020000Z-nightly"
RULES = [rule for profile in ("ship", "smoke") for rule in all_rules(profile)]
OF_FILES = [rule for rule in RULES if rule.asset not in ("linked_tool_calls", "baseline_reports", "eval_reports")]
"""What the others judge is in the database, or in two artifacts: they have tests of their own."""
NO_COMPARISON = {"same_top_ratio": 1.0, "mean_kl": 0.0, "max_kl": 0.0, "positions_count": 0, "same_top": []}
NO_PROMPTS = {"bytes_differ_count": 0, "tokens_differ_count": 0, "refused_count": 0, "prompts_count": 0}
HOLLOW = {
    "metrics.jsonl": "",
    "trainable_start.json": "{}",
    "equivalence.json": json.dumps(
        {
            "adapter_vs_merged": NO_COMPARISON,
            "adapted_count": 0, "adapted_changed_count": 0, "other_changed_count": 0,
        }
    ),
    "template_parity.json": json.dumps(
        {"template_equal": True, "template_sha256": "", "examples": [], **NO_PROMPTS}
    ),
    "validator.json": json.dumps(
        {"model": {"name": "m", "sha256": "0", "backend": "b"}, "suite_version": "1", "suite_sha256": "0", "results": []}
    ),
}  # fmt: skip
"""Files that say nothing: as a stage would leave them that broke without saying so."""


def judge(rule: GateRule, folder: Path, files: dict[str, str]) -> GateResult:
    store = ArtifactStore(folder)
    with store.build(rule.asset, PARTITION, recipe_of_artifact={}) as build:
        for name, content in files.items():
            (build.directory / name).write_text(content, encoding="utf-8")
    configuration = resolve_configuration("smoke" if rule.profile == "smoke" else "nightly")
    context = GateContext(
        artifact=store.require(rule.asset, PARTITION),
        partition=PARTITION,
        store=store,
        engine=None,  # type: ignore[arg-type]
        configuration=configuration,
        rule=rule_for(configuration, rule.asset, rule.gate),
    )
    return registry.gate(rule.asset, rule.gate).judge(context)


def name_of(rule: GateRule) -> str:
    return f"{rule.asset}-{rule.gate}-{rule.profile}"


@pytest.mark.parametrize("rule", OF_FILES, ids=name_of)
def test_an_artifact_without_files_passes_no_gate(rule: GateRule, tmp_path: Path) -> None:
    if rule.gate == "no_secrets":  # scans whatever rows there are
        assert judge(rule, tmp_path, {}).verdict is Verdict.FAIL
        return
    with pytest.raises(MissingInputError):
        judge(rule, tmp_path, {})


@pytest.mark.parametrize(
    "rule",
    [
        rule
        for rule in OF_FILES
        if rule.gate
        in ("loss_finite_and_better", "merge_equivalence", "validator_merged", "template_parity", "validator_gguf")
    ],
    ids=name_of,
)
def test_files_that_say_nothing_pass_no_gate(rule: GateRule, tmp_path: Path) -> None:
    result = judge(rule, tmp_path, HOLLOW)
    assert result.verdict is not Verdict.PASS
    assert result.n == 0

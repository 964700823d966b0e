"""A chain of small real stages and gates under the real assets, checks, jobs, guard and verdict store.

What each gate says is read from `<home>/control.json` (`{"asset:gate": "pass|fail|inconclusive|raise"}`), so that a test,
also one in another process, can break a gate and mend it. `defs` is a code location for a real daemon.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from toolcall_pipeline import chain
from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.defs.wiring import Wiring
from toolcall_pipeline.gates.profiles import all_rules
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult, Verdict
from toolcall_pipeline.settings import Settings, load_settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store import row_hash, runs
from toolcall_pipeline.store.engine import open_store

GATE_OF = {
    "jsonl_sessions": "files_accounted",
    "linked_tool_calls": "linkage",
    "v2_chat_dataset": "mask_proof",
    "baseline_reports": "baselines_measured",
    "lora_adapter": "loss_finite_and_better",
    "merged_model": "merge_equivalence",
    "gguf_q6k": "template_parity",
    "eval_reports": "loops",
}
"""One gate per asset that tests break."""


def control_file(settings: Settings) -> Path:
    return settings.home_dir / "control.json"


def set_gates(settings: Settings, **verdicts: str) -> None:
    """Let gates say something else than pass from now on: `set_gates(s, **{"v2_chat_dataset:mask_proof": "fail"})`."""
    path = control_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(verdicts), encoding="utf-8")


def _control(settings: Settings) -> dict[str, str]:
    path = control_file(settings)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def materialise(asset: str, context: StageContext, **options: Any) -> Artifact:
    """Write one file that says what it was made from; the dataset lists the runs it took rows of."""
    settings = context.settings
    parents = {name: context.artifacts.require(name, context.partition).sha256 for name in chain.UPSTREAM[asset]}
    content: dict[str, Any] = {"asset": asset, "partition": context.partition, "parents": parents}
    content["salt"] = _control(settings).get(f"{asset}:salt", "")
    if asset == "v2_chat_dataset":
        content["runs"], content["left_out"] = chain.runs_for_dataset(context)
        content["seed"] = context.configuration.dataset.seed
    metadata = {"rows_count": 7, "is_small": True, "sizes": [{"name": "a", "rows_count": 3}]}
    found = context.artifacts.find(asset, context.partition, content)
    if found is not None:
        return found
    context.progress(1, 1, "rows", f"making {asset}")
    with context.artifacts.build(
        asset,
        context.partition,
        recipe_of_artifact=content,
        parents=parents,
    ) as build:
        (build.directory / "content.json").write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
        if asset == row_hash.ROWS_ASSET:
            rows = row_hash.hash_run_rows(context.engine, context.partition)
            (build.directory / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        build.metadata.update(metadata)
    if asset == "jsonl_sessions":
        runs.register_run(context.engine, context.partition, context.configuration, is_sample=True)
    return context.artifacts.require(asset, context.partition)


def find_gate(asset: str, name: str) -> Gate:
    def judge(context: GateContext) -> GateResult:
        control = _control(load_settings())
        said = control.get(f"{asset}:{name}@{context.partition}", control.get(f"{asset}:{name}", "pass"))
        if said == "raise":
            raise ZeroDivisionError("text that must not be shown")
        return GateResult(
            gate=name,
            asset=asset,
            verdict=Verdict(said),
            measured=0.0 if said == "pass" else 3.0,
            comparison=context.rule.comparison,
            threshold=context.rule.threshold,
            unit=context.rule.unit,
            n=7,
            explanation=f"{name} found what the control file says.",
            how_to_fix="Set the gate to pass in control.json.",
        )

    return Gate(name=name, asset=asset, description="stand-in", judge=judge)


def standin_wiring() -> Wiring:
    questions: dict[str, dict[str, str]] = {asset: {} for asset in chain.ASSETS}
    for rule in all_rules("ship"):
        questions[rule.asset][rule.gate] = rule.question
    return Wiring(
        gate_questions=questions,
        materialise=materialise,
        find_gate=find_gate,
        open_engine=open_store,
        backup=lambda settings: {"backup_bytes": 2048},
    )


if os.environ.get("TOOLCALL_PIPELINE_TEST_LOCATION") == "standin":
    from toolcall_pipeline.definitions import build_defs

    defs = build_defs(standin_wiring())

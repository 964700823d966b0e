"""Training as a process of its own behind Pipes: its figures arrive, its exit code is handed on."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from toolcall_pipeline.defs.training.pipes import TRAINER_KEY, Trainer, figures_of, is_observed, launcher, read_event
from toolcall_pipeline_tests.defs.standin import standin_wiring


@pytest.mark.parametrize("exit_code", [0, 75])
def test_the_process_reports_its_figures_and_its_exit_code(tmp_path: Path, exit_code: int) -> None:
    job_file = tmp_path / "job.json"
    job_file.write_text(json.dumps({"exit_code": exit_code}), encoding="utf-8")
    heard: list[tuple[Any, ...]] = []
    codes: list[int] = []
    trainer = Trainer([sys.executable, "-m", "toolcall_pipeline_tests.defs.fake_training"])
    wiring = replace(standin_wiring(), progress=lambda *progress: heard.append(progress))

    @dg.asset(
        name="lora_adapter",
        partitions_def=dg.StaticPartitionsDefinition(["night"]),
        required_resource_keys={TRAINER_KEY},
    )
    def adapter(context) -> None:
        codes.append(launcher(context, wiring)(job_file))
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([adapter], partition_key="night", instance=instance, resources={TRAINER_KEY: trainer})
        seen = instance.fetch_observations(dg.AssetKey("lora_adapter"), limit=10, ascending=True).records
    assert codes == [exit_code]
    assert [progress[:4] for progress in heard] == [
        ("lora_adapter", 1, 3, "steps"),
        ("lora_adapter", 2, 3, "steps"),
        ("lora_adapter", 3, 3, "steps"),
        ("lora_adapter", 3, 3, "steps"),
    ]
    figures = [{k: v.value for k, v in record.asset_observation.metadata.items()} for record in seen]
    assert figures[0] == {"training_step": 1, "training_loss": 3.0, "training_tokens_per_second": 100.0}
    assert figures[-1] == {"training_step": 3, "training_eval_loss": 0.9}
    assert all(record.partition_key == "night" for record in seen)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ('{"event": "step", "step": 1}', {"event": "step", "step": 1}),
        ("Loading weights: 100%", None),
        ("[1, 2]", None),
        ('{"loss": 1.0}', None),
        ('{"event": 3}', None),
        ("", None),
    ],
)
def test_only_events_are_read_from_what_the_process_says(line: str, event: dict[str, Any] | None) -> None:
    assert read_event(line) == event


@pytest.mark.parametrize(("total", "count"), [(3, 3), (40, 21), (1000, 21), (1, 1)])
def test_about_twenty_steps_of_a_run_are_observed_the_first_and_the_last_among_them(total: int, count: int) -> None:
    observed = [step for step in range(1, total + 1) if is_observed(step, total)]
    assert len(observed) == count
    assert {1, total} <= set(observed)


def test_only_numbers_become_figures() -> None:
    event = {"event": "step", "step": 2, "total": 9, "loss": 1, "note": "x", "flag": True}
    assert figures_of(event) == {"training_step": 2, "training_loss": 1.0}

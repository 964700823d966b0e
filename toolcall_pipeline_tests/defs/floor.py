"""Runs parts of the stand-in chain and says which assets were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import dagster as dg
from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import ArtifactStore
from toolcall_pipeline.definitions import build_defs
from toolcall_pipeline.defs.checks import check_step_name
from toolcall_pipeline.store.engine import open_store
from toolcall_pipeline_tests.defs.standin import GATE_OF, set_gates, standin_wiring

Result = Any


@dataclass
class Floor:
    """The stand-in chain on one Dagster instance."""

    PARTITION = "20261123T020000Z-nightly"

    settings: Any
    instance: dg.DagsterInstance
    definitions: dg.Definitions = field(default_factory=lambda: _definitions())

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(self.settings.artifacts_dir)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        engine = open_store(self.settings)
        try:
            yield engine
        finally:
            engine.dispose()

    def set_gate(self, asset: str, verdict: str) -> None:
        set_gates(self.settings, **{f"{asset}:{GATE_OF[asset]}": verdict})

    def mend(self) -> None:
        set_gates(self.settings)

    def run(self, job: str, *, partition: str = PARTITION, **config: Any) -> Result:
        return self.execute(self.definitions.resolve_job_def(job), partition, **config)

    def run_assets(
        self,
        assets: Sequence[str],
        *,
        checks_of: Sequence[str] | None = None,
        without_gates: Sequence[str] = (),
        partition: str = PARTITION,
        **config: Any,
    ) -> Result:
        """Run chosen assets with the checks of chosen assets (default: of the same)."""
        wiring = standin_wiring()
        checks = {
            dg.AssetCheckKey(dg.AssetKey(asset), gate)
            for asset in (assets if checks_of is None else checks_of)
            for gate in wiring.gate_questions[asset]
            if gate not in without_gates
        }
        job = self.definitions.resolve_job_def("full_chain").get_subset(
            asset_selection={dg.AssetKey(asset) for asset in assets}, asset_check_selection=checks
        )
        return self.execute(job, partition, **config)

    def execute(self, job: dg.JobDefinition, partition: str, **config: Any) -> Result:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return job.execute_in_process(
            instance=self.instance,
            partition_key=partition,
            run_config={**quiet, **config},
            raise_on_error=False,
        )


@cache
def _definitions() -> dg.Definitions:
    return build_defs(standin_wiring())


def made(result: Result) -> list[str]:
    return [e.asset_key.to_user_string() for e in result.all_events if e.is_step_materialization]


def failure_of(result: Result, step: str) -> str:
    (event,) = [e for e in result.all_events if e.is_step_failure and e.step_key == step]
    data = event.step_failure_data
    return data.user_failure_data.description if data.user_failure_data else data.error.to_string()


def evaluations(result: Result, asset: str) -> dict[str, Any]:
    return {
        e.asset_check_evaluation_data.check_name: e.asset_check_evaluation_data
        for e in result.all_events
        if e.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        and e.asset_check_evaluation_data.asset_key.to_user_string() == asset
    }


def override(asset: str, reason: str) -> dict[str, Any]:
    return {"ops": {check_step_name(asset): {"config": {"overrides": {GATE_OF[asset]: reason}}}}}

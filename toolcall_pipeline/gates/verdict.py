"""The verdict a gate returns, and the context it is judged in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolcall_pipeline.errors import ArtifactError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from toolcall_pipeline.artifacts import Artifact, ArtifactStore
    from toolcall_pipeline.gates.profiles import GateRule
    from toolcall_pipeline.presets import Configuration

Comparison = Literal["==", "<=", "<", ">=", ">", "within"]


class Verdict(StrEnum):
    """What a gate says. Only PASS lets anything through."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Interval(BaseModel):
    """An interval around a measured rate: 90 % drawn, its ends the exact one-sided 95 % bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    level: float
    method: str


class GateResult(BaseModel):
    """One gate's judgement of one artifact.

    Attributes:
        measured, comparison, threshold, unit: Such as 0.62 >= 0.60 ratio. `threshold` is a pair for `within`.
        n: Cases, rows or files behind `measured`.
        explanation: One sentence of what was found.
        how_to_fix: What to do about it.
        details: Small tables or samples for the page (never secrets): lists of objects, numbers, texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    asset: str
    verdict: Verdict
    measured: float | None
    comparison: Comparison
    threshold: float | tuple[float, float] | None
    unit: str
    n: int
    interval: Interval | None = None
    explanation: str
    how_to_fix: str
    details: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class GateContext:
    """Everything a gate may look at.

    Attributes:
        artifact: The artifact that is judged.
        partition: Its `backfill_run_id`.
        store: All artifacts, to find parents.
        engine: SQLAlchemy engine of the store's PostgreSQL.
        configuration: What the partition is made with.
        rule: The gate's own rule and threshold under the profile in force.
    """

    artifact: Artifact
    partition: str
    store: ArtifactStore
    engine: Engine
    configuration: Configuration
    rule: GateRule

    def parent(self, asset: str) -> Artifact:
        """Return the artifact of an asset above that the judged one was made of.

        Raises:
            MissingInputError: There is none.
            ArtifactError: The one in use is another.
        """
        parent = self.store.require(asset, self.partition)
        expected = self.artifact.manifest.parents.get(asset)
        if expected is not None and expected != parent.sha256:
            raise ArtifactError(
                f"{self.artifact.manifest.asset} of {self.partition} was made with {asset} {expected[:12]}, in use is "
                f"{parent.sha256[:12]}. Materialise {self.artifact.manifest.asset} again."
            )
        return parent


@dataclass(frozen=True)
class Gate:
    """A gate: a name on an asset, and how it is judged.

    Attributes:
        name, asset: Where it stands.
        description: What it protects from, one sentence.
        judge: Measures and returns the verdict; raises rather than guess (a raised gate holds).
    """

    name: str
    asset: str
    description: str
    judge: Callable[[GateContext], GateResult]

"""The shape of `results.json`: everything one judged run says, the only input of the renderers.

Strict on gates, verdict and cases; free in aggregate statistics and notable findings. Published as a JSON Schema
(draft 2020-12) beside this file: `results.schema.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolcall_pipeline.errors import InvalidResultsError, MissingInputError
from toolcall_pipeline.evaluation.cases import ModelIdentity, SuiteId, Turn, is_broken

SCHEMA_VERSION = "1"
SCHEMA_NAME = "results.schema.json"

OverallVerdict = Literal["SHIP", "HOLD", "INCONCLUSIVE", "PASSED_NOT_SHIPPABLE", "PENDING"]
GateVerdict = Literal["pass", "fail", "inconclusive", "overridden", "missing"]

STATUS_FIELDS = (
    "gate",
    "asset",
    "verdict",
    "measured",
    "comparison",
    "threshold",
    "unit",
    "n",
    "interval",
    "artifact_sha256",
    "how_to_fix",
)


class _Strict(BaseModel):
    """Base of every part: unknown fields are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IntervalEntry(_Strict):
    """An interval that is drawn: its ends are exact one-sided bounds."""

    low: float
    high: float
    level: float
    method: str


class GateEntry(_Strict):
    """One gate of one asset, judged or missing.

    Attributes:
        measured, comparison, threshold, unit, n, interval: Such as 0.62 >= 0.60 ratio on 400 cases.
        artifact_sha256: What was judged; None where there is no artifact yet, or the report itself is part of it.
        question, explanation, how_to_fix: For a person.
        overridden_reason: Set where a person let the run go on; an overridden gate is not passed.
    """

    gate: str
    asset: str
    verdict: GateVerdict
    measured: float | None
    comparison: Literal["==", "<=", "<", ">=", ">", "within"]
    threshold: float | tuple[float, float] | None
    unit: str
    n: int
    interval: IntervalEntry | None = None
    artifact_sha256: str | None = None
    how_to_fix: str = ""
    question: str = ""
    explanation: str = ""
    overridden_reason: str | None = None

    def as_status(self) -> dict[str, Any]:
        """Return exactly the fields of `status --json`."""
        return self.model_dump(mode="json", include=set(STATUS_FIELDS))


class VerdictEntry(_Strict):
    """What the gates say together."""

    verdict: OverallVerdict
    shippable: bool
    headline: str
    reasons: tuple[str, ...] = ()


class RateEntry(_Strict):
    """How often something passed."""

    n: int
    passed: int
    interval: IntervalEntry | None


class SuiteEntry(_Strict):
    """One suite: how often the candidate passed, and the models beside it on the same cases.

    Attributes:
        constrained: The same model on the same cases under a grammar of the tools' schemas; never judged.
    """

    suite: SuiteId
    question: str
    n: int
    passed: int
    interval: IntervalEntry | None
    outcomes: dict[str, int]
    pass_hat_k: dict[str, float] = Field(default_factory=dict)
    base_ratio: float | None = None
    production_ratio: float | None = None
    constrained: RateEntry | None = None


class ComparisonEntry(_Strict):
    """Candidate against another model on the same cases and seeds of one suite.

    Attributes:
        difference, low, high: Candidate minus other, with one-sided 95 % bounds.
        candidate_only, other_only: Discordant pairs.
        p, p_holm: Exact McNemar, two-sided; adjusted over the suites compared.
    """

    against: Literal["base", "production", "run"]
    model: str
    suite: SuiteId
    n: int
    candidate_ratio: float
    other_ratio: float
    difference: float
    low: float
    high: float
    candidate_only: int
    other_only: int
    p: float
    p_holm: float


class CaseEntry(_Strict):
    """One case at one seed: what was asked, what was expected, what came."""

    suite: SuiteId
    case_id: str
    cluster_id: str
    stratum: str
    seed: int
    outcome: str
    passed: bool
    prompt: str
    expected: str
    measures: dict[str, float | int | bool | None]
    turns: tuple[Turn, ...]
    seconds: float
    error: str | None
    base_outcome: str | None = None
    production_outcome: str | None = None

    @property
    def is_broken(self) -> bool:
        """Return whether it says nothing about the model, since the backend or the sandbox failed."""
        return is_broken(self.outcome, self.error)


class Retraction(_Strict):
    """A run taken back: every page of it carries the banner."""

    reason: str
    at: str


class Correction(_Strict):
    """A figure that was published wrong, beside what it is."""

    figure: str
    was: str
    corrected: str
    reason: str


class Results(_Strict):
    """One judged run.

    Attributes:
        partition: The `backfill_run_id`, or a name for a model judged outside the chain.
        suite_is_sample: Whether the shipped sample suite served; then nothing ships.
        statistics, notable_findings, provenance: Free.
    """

    schema_version: Literal["1"] = "1"
    partition: str
    profile: Literal["ship", "smoke"]
    model: ModelIdentity
    suite_version: str
    suite_sha256: str
    suite_is_sample: bool
    generation: dict[str, Any] = Field(default_factory=dict)
    verdict: VerdictEntry
    gates: tuple[GateEntry, ...]
    suites: tuple[SuiteEntry, ...]
    comparisons: tuple[ComparisonEntry, ...] = ()
    cases: tuple[CaseEntry, ...]
    statistics: dict[str, Any] = Field(default_factory=dict)
    notable_findings: tuple[Any, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)
    retraction: Retraction | None = None
    corrections: tuple[Correction, ...] = ()


def results_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `results.json`."""
    schema = Results.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://toolcall-pipeline.invalid/schemas/results-{SCHEMA_VERSION}.json",
        **schema,
        "title": "Results of one judged run",
    }


def dump_results(results: Results) -> str:
    """Return `results.json` as text: the same results, the same bytes."""
    return json.dumps(results.model_dump(mode="json"), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def load_results(path: Path) -> Results:
    """Read and check a `results.json`.

    Raises:
        MissingInputError: There is no such file.
        InvalidResultsError: It is no JSON, or does not conform to the schema; the message names the place.
    """
    if not path.is_file():
        raise MissingInputError(f"There is no results file {path}. Give the results.json of a judged run.")
    try:
        # Strict, so that it takes exactly what the schema takes; jsonschema itself needs seconds for 2,500 cases.
        return Results.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise InvalidResultsError(
            f"{path} does not conform to {SCHEMA_NAME} {_where(error)}. Judge the run again."
        ) from None


def _where(error: ValidationError) -> str:
    # The offending value can be session text; only its place and the rule it broke are named.
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"at {place}: {first['msg']}"

"""The shape of an evaluation case and of what a model did with it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SuiteId = Literal["A", "B", "C", "D", "E", "V", "BFCL"]
BROKEN_OUTCOMES = frozenset({"error", "sandbox_failed"})


class Case(BaseModel):
    """One question to a model.

    Attributes:
        suite, case_id: Identity; `case_id` is stable across suite versions.
        cluster_id: Cases of one session, prompt or task share it: they are not independent.
        stratum: Half or kind inside the suite (`call` and `conclude` in B; `in_distribution`, `no_tool` ... in D).
        messages: Chat messages up to the assistant's turn, as a chat template takes them.
        tools: OpenAI function tools on offer.
        expected: What the suite's scorer needs; documented per suite in docs/reference/suites.md.
        source: Where it was made from (family, session, file and line), empty for cases written by us.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: SuiteId
    case_id: str
    cluster_id: str
    stratum: str = ""
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    expected: dict[str, Any] = Field(default_factory=dict)
    source: dict[str, Any] = Field(default_factory=dict)


class ParsedCall(BaseModel):
    """A call read from a completion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: Any


class Defect(BaseModel):
    """Something wrong with a completion; `kind` is one of `evaluation.completions.DEFECT_KINDS`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    detail: str
    call_index: int | None = None


class Turn(BaseModel):
    """One completion of the model, read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raw: str
    text: str
    calls: tuple[ParsedCall, ...] = ()
    defects: tuple[Defect, ...] = ()
    tool_results: tuple[str, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    hit_token_limit: bool = False


class CaseResult(BaseModel):
    """What one model did with one case at one seed.

    Attributes:
        outcome: The suite's outcome label (`shape_match`, `fitting_call`, `solved`, `pass`, ...).
        passed: Whether the outcome counts for the suite's rate.
        measures: Numbers and flags that gates count (`calls_used`, `calls_needed`, `looped`, `concluded_too_soon`,
            `uses_result`, `grounded_total`, `grounded_found`, `empty_arguments` ...); never NaN, which would count as true.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    suite: SuiteId
    case_id: str
    cluster_id: str
    stratum: str = ""
    seed: int
    outcome: str
    passed: bool
    measures: dict[str, float | int | bool | None] = Field(default_factory=dict)
    turns: tuple[Turn, ...] = ()
    seconds: float = 0.0
    error: str | None = None

    @property
    def is_broken(self) -> bool:
        """Return whether it says nothing about the model, since the backend or the sandbox failed."""
        return is_broken(self.outcome, self.error)


def is_broken(outcome: str, error: str | None) -> bool:
    """Return whether a case's outcome says nothing about the model, since the backend or the sandbox failed."""
    return error is not None or outcome in BROKEN_OUTCOMES


def same_outcome(left: CaseResult, right: CaseResult) -> bool:
    """Return whether two runs of a case agree; one that broke agrees with nothing, not even with another that did."""
    return left.outcome == right.outcome and not (left.is_broken or right.is_broken)


class ModelIdentity(BaseModel):
    """Which model was judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    path: str | None = None
    quantisation: str | None = None
    backend: str


class SuiteRun(BaseModel):
    """All results of one model on one frozen suite version: what reports and gates are made from.

    Attributes:
        suite_sha256: Hash of the frozen cases, the identity of the suite version.
        decoding: `free`, or `constrained` (grammar), never mixed.
        results: One per case and seed, in suite order.
        seconds: That all of them took together; 0 where some were taken from an earlier run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelIdentity
    suite_version: str
    suite_sha256: str
    decoding: Literal["free", "constrained"] = "free"
    generation: dict[str, Any] = Field(default_factory=dict)
    results: tuple[CaseResult, ...]
    seconds: float = 0.0

    @property
    def total_seconds(self) -> float:
        """Return the seconds of all results together; their sum where that is not known."""
        return self.seconds or sum(result.seconds for result in self.results)

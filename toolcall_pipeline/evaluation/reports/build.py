"""From suite runs, cases, gates and comparisons to one `Results`; nothing is judged here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from toolcall_pipeline.evaluation.cases import Case, CaseResult, SuiteRun
from toolcall_pipeline.evaluation.reports.model import (
    CaseEntry,
    ComparisonEntry,
    GateEntry,
    OverallVerdict,
    Results,
    SuiteEntry,
    VerdictEntry,
)

SHOWN_CHARACTERS = 6_000
"""Longest prompt or expectation kept in the results; completions are kept verbatim."""

SUITE_QUESTIONS = {
    "A": "In distribution: does it make the call the session made?",
    "B": "After a tool response: does it do the right next thing?",
    "C": "Agentic: does it solve real tasks with real tools?",
    "D": "Single turn: does it make a valid, fitting call?",
    "E": "Recall: does it know the user's projects?",
    "V": "Vague prompts: does it fill the arguments?",
    "BFCL": "Public single-turn function calling",
}
_HEADLINES: dict[str, str] = {
    "SHIP": "Every gate passed on exactly these bytes.",
    "PASSED_NOT_SHIPPABLE": "Every gate it was asked passed; a run of this kind never ships.",
    "PENDING": "Not every gate has been judged yet.",
}


def build_results(
    *,
    partition: str,
    profile: Literal["ship", "smoke"],
    verdict: OverallVerdict,
    gates: Sequence[GateEntry],
    candidate: SuiteRun,
    suites: Sequence[SuiteEntry],
    comparisons: Sequence[ComparisonEntry] = (),
    cases: Sequence[Case] = (),
    base: SuiteRun | None = None,
    production: SuiteRun | None = None,
    provenance: dict[str, Any] | None = None,
    suite_is_sample: bool = False,
) -> Results:
    """Return everything one judged run says.

    Args:
        partition: The `backfill_run_id`, or a name for a model judged outside the chain.
        profile: The gate profile it was judged under.
        verdict: What the gates say together.
        gates: Every gate, in the order of the chain.
        candidate: The judged model.
        suites: Rates with intervals, one per suite.
        comparisons: Paired comparisons with base and production.
        cases: The cases themselves, for prompts and expectations.
        base: Its outcomes are shown beside the candidate's.
        production: The same.
        provenance: Where everything came from; free.
        suite_is_sample: Whether the shipped sample suite served.
    """
    return Results(
        partition=partition,
        profile=profile,
        model=candidate.model,
        suite_version=candidate.suite_version,
        suite_sha256=candidate.suite_sha256,
        suite_is_sample=suite_is_sample,
        generation={**candidate.generation, "decoding": candidate.decoding},
        verdict=_verdict_entry(verdict, gates),
        gates=tuple(gates),
        suites=tuple(suites),
        comparisons=tuple(comparisons),
        cases=tuple(_case_entries(candidate, cases, base, production)),
        statistics=_statistics(candidate),
        notable_findings=tuple(_findings(candidate, comparisons, suite_is_sample)),
        provenance=provenance or {},
    )


def _verdict_entry(verdict: OverallVerdict, gates: Sequence[GateEntry]) -> VerdictEntry:
    held = [gate for gate in gates if gate.verdict in ("fail", "overridden")]
    open_gates = [gate for gate in gates if gate.verdict == "inconclusive"]
    named = held if verdict == "HOLD" else open_gates if verdict == "INCONCLUSIVE" else []
    if verdict == "HOLD":
        headline = f"Held by {_count(held, 'gate')}: {_names(held)}."
    elif verdict == "INCONCLUSIVE":
        headline = f"{_count(open_gates, 'gate')} cannot tell yet: {_names(open_gates)}."
    else:
        headline = _HEADLINES[verdict]
    return VerdictEntry(
        verdict=verdict,
        shippable=verdict == "SHIP",
        headline=headline,
        reasons=tuple(f"{gate.gate}: {gate.explanation}" for gate in named),
    )


def _count(items: Sequence[object], word: str) -> str:
    return f"{len(items)} {word}{'' if len(items) == 1 else 's'}"


def _names(gates: Sequence[GateEntry]) -> str:
    return ", ".join(f"{gate.gate}{' (overridden)' if gate.verdict == 'overridden' else ''}" for gate in gates)


def _case_entries(
    candidate: SuiteRun, cases: Sequence[Case], base: SuiteRun | None, production: SuiteRun | None
) -> list[CaseEntry]:
    asked = {(case.suite, case.case_id): case for case in cases}
    base_outcomes, production_outcomes = _outcomes(base), _outcomes(production)
    entries = []
    for result in candidate.results:
        case = asked.get((result.suite, result.case_id))
        key = (result.suite, result.case_id, result.seed)
        entries.append(
            CaseEntry(
                **result.model_dump(exclude={"turns"}),
                turns=result.turns,
                prompt="" if case is None else _shortened(prompt_text(case)),
                expected="" if case is None else _shortened(_expected_text(case)),
                base_outcome=base_outcomes.get(key),
                production_outcome=production_outcomes.get(key),
            )
        )
    return entries


def _outcomes(run: SuiteRun | None) -> dict[tuple[str, str, int], str]:
    if run is None:
        return {}
    return {(result.suite, result.case_id, result.seed): result.outcome for result in run.results}


def prompt_text(case: Case) -> str:
    """Return what the model was asked: the last thing a person said, and what came after it."""
    messages = list(case.messages)
    last_user = max((index for index, message in enumerate(messages) if message.get("role") == "user"), default=0)
    parts = []
    for message in messages[last_user:]:
        calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
        text = str(message.get("content") or "")
        text += "".join(
            f"\n{call.get('name')}({json.dumps(call.get('arguments'), ensure_ascii=False)})" for call in calls
        )
        parts.append(text.strip() if message.get("role") == "user" else f"[{message.get('role')}] {text.strip()}")
    return "\n\n".join(parts)


def _expected_text(case: Case) -> str:
    # The files a task of suite C starts from are no expectation, and hundreds of lines.
    expected = {name: value for name, value in case.expected.items() if name != "files"}
    return json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True) if expected else ""


def _shortened(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS:
        return text
    half = SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"


def _statistics(run: SuiteRun) -> dict[str, Any]:
    results = run.results
    completion_tokens = sum(turn.completion_tokens for result in results for turn in result.turns)
    prompt_tokens = sum(turn.prompt_tokens for result in results for turn in result.turns)
    seconds = run.total_seconds
    return {
        "cases_count": len(results),
        "seconds": round(seconds, 3),
        "cases_per_second": round(len(results) / seconds, 3) if seconds else None,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "completion_tokens_per_second": round(completion_tokens / seconds, 1) if seconds else None,
        "calls_count": _summed(results, "calls"),
        "empty_arguments_count": _summed(results, "empty_arguments"),
        "token_limit_hits_count": _summed(results, "token_limit_hits"),
        "errors_count": sum(1 for result in results if result.error is not None),
        "defects": dict(
            sorted(
                Counter(defect.kind for result in results for turn in result.turns for defect in turn.defects).items()
            )
        ),
    }


def _summed(results: Sequence[CaseResult], measure: str) -> int:
    return int(sum(result.measures.get(measure) or 0 for result in results))


def _findings(candidate: SuiteRun, comparisons: Sequence[ComparisonEntry], suite_is_sample: bool) -> list[str]:
    findings = []
    if suite_is_sample:
        findings.append("The shipped sample suite served: nothing that it judges ships.")
    for item in comparisons:
        if item.difference <= 0:
            word = "no better" if item.difference == 0 else "worse"
            findings.append(
                f"Suite {item.suite} did not improve: {word} than the {item.against}, {item.candidate_ratio:.1%} against "
                f"{item.other_ratio:.1%} on the same {item.n} cases."
            )
        elif item.p_holm >= 0.05:
            findings.append(
                f"Suite {item.suite} is {item.difference * 100:+.1f} points against the {item.against}; chance explains that as well "
                f"(p = {item.p_holm:.2g} after Holm)."
            )
    errors = sum(1 for result in candidate.results if result.error is not None)
    if errors:
        findings.append(f"{errors} cases ended in an error of the backend or the sandbox; they count as not passed.")
    return findings

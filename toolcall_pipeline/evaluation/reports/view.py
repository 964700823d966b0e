"""Results as the texts and drawings that templates place: every figure is formatted here, once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from toolcall_pipeline.evaluation.reports.charts import (
    differences_svg,
    gate_interval_svg,
    outcomes_svg,
    suites_svg,
)
from toolcall_pipeline.evaluation.reports.model import (
    CaseEntry,
    ComparisonEntry,
    GateEntry,
    IntervalEntry,
    RateEntry,
    Results,
    SuiteEntry,
)

EXAMPLES_PER_DEFECT = 3
GOT_CHARACTERS = 1_600
VERDICT_WORDS = {
    "SHIP": "Ship",
    "HOLD": "Hold",
    "INCONCLUSIVE": "Inconclusive",
    "PASSED_NOT_SHIPPABLE": "Passed, not shippable",
    "PENDING": "Pending",
}
_SYMBOLS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "overridden": "!", "missing": "–"}


def report_view(results: Results) -> dict[str, Any]:
    """Return everything the report templates show, in the order they show it."""
    passing: set[tuple[str, str]] = {(case.suite, case.outcome) for case in results.cases if case.passed}
    judged = [gate for gate in results.gates if gate.verdict != "missing"]
    return {
        "partition": results.partition,
        "profile": results.profile,
        "verdict": results.verdict.verdict,
        "verdict_word": VERDICT_WORDS[results.verdict.verdict],
        "headline": results.verdict.headline,
        "reasons": list(results.verdict.reasons),
        "retraction": results.retraction,
        "corrections": list(results.corrections),
        "model": results.model,
        "facts": [
            ("Model", results.model.name),
            ("SHA-256", results.model.sha256[:16] + "…" if len(results.model.sha256) > 16 else results.model.sha256),
            ("Quantisation", results.model.quantisation or "not stated"),
            ("Backend", results.model.backend),
            ("Gate profile", results.profile),
            ("Suite version", f"{results.suite_version} ({results.suite_sha256[:12]})"),
            ("Cases", f"{len(results.cases):,}"),
            ("Gates passed", f"{sum(gate.verdict == 'pass' for gate in judged)} of {len(judged)} judged"),
        ],
        "gate_groups": _gate_groups(results.gates),
        "suites": [_suite(suite, passing) for suite in results.suites],
        "suite_version": results.suite_version,
        "suites_chart": suites_svg(results.suites) if results.suites else "",
        "columns": {
            "base": any(suite.base_ratio is not None for suite in results.suites),
            "production": any(suite.production_ratio is not None for suite in results.suites),
            "constrained": any(suite.constrained is not None for suite in results.suites),
        },
        "comparisons": _comparisons(results),
        "defects": defect_gallery(results.cases),
        "transcripts": _transcripts(results.cases),
        "findings": [_text(finding) for finding in results.notable_findings],
        "statistics": list(_flat(results.statistics)),
        "generation": list(_flat(results.generation)),
        "provenance": list(_flat(results.provenance)),
    }


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal, or a dash."""
    return "–" if share is None else f"{share * 100:.1f} %"


def _gate_groups(gates: Sequence[GateEntry]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for gate in gates:
        groups[gate.asset].append(gate_view(gate))
    return [{"asset": asset, "gates": rows} for asset, rows in groups.items()]


def gate_view(gate: GateEntry) -> dict[str, Any]:
    """Return one gate's row."""
    return {
        "gate": gate.gate,
        "question": gate.question,
        "verdict": gate.verdict,
        "word": "not asked" if gate.verdict == "missing" and not gate.how_to_fix else gate.verdict,
        "symbol": _SYMBOLS[gate.verdict],
        "measured": _value(gate.measured, gate.unit),
        "rule": _rule(gate),
        "n": f"{gate.n:,}" if gate.n else "–",
        "interval": interval_text(gate.interval),
        "method": "" if gate.interval is None else gate.interval.method,
        "chart": gate_interval_svg(gate),
        "explanation": gate.explanation,
        "how_to_fix": gate.how_to_fix if gate.verdict != "pass" else "",
        "overridden_reason": gate.overridden_reason,
    }


def interval_text(interval: IntervalEntry | None) -> str:
    """Return an interval in words."""
    if interval is None:
        return ""
    return f"{interval.low * 100:.1f} to {interval.high * 100:.1f} %"


def _rule(gate: GateEntry) -> str:
    if gate.threshold is None:
        return gate.comparison
    if is_always_met(gate):
        return "measured"
    if isinstance(gate.threshold, tuple):
        return f"{_value(gate.threshold[0], gate.unit)} to {_value(gate.threshold[1], gate.unit)}"
    if gate.unit.startswith("p "):
        return f"p {_comparison(gate.comparison)} {gate.threshold:g}"
    return f"{_comparison(gate.comparison)} {_value(gate.threshold, gate.unit)}"


def is_always_met(gate: GateEntry) -> bool:
    """Return whether a threshold lies at the end of the scale, so that being measured is all that is asked."""
    if gate.comparison in ("==", "within") or gate.threshold is None or isinstance(gate.threshold, tuple):
        return False
    low, high = (-1.0, 1.0) if gate.unit == "ratio difference" else (0.0, 1.0)
    if not (gate.unit.startswith("ratio") or gate.unit.startswith("p ")):
        return False
    return gate.threshold <= low if gate.comparison in (">=", ">") else gate.threshold >= high


def _comparison(comparison: str) -> str:
    return {">=": "≥", "<=": "≤", "==": "=", ">": ">", "<": "<"}.get(comparison, comparison)


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "ratio":
        return percent(value)
    if unit == "ratio difference":
        return f"{value * 100:+.1f} points"
    if unit.startswith("p "):
        return f"p {value:.3g}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def _outcome_parts(suite: SuiteEntry, passing: set[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """Return (name, count, CSS class) per outcome: those that count as passed first, each side by size."""
    order = sorted(suite.outcomes.items(), key=lambda item: ((suite.suite, item[0]) not in passing, -item[1], item[0]))
    parts, seen = [], {"ok": 0, "p": 0}
    for name, count in order:
        kind = "ok" if (suite.suite, name) in passing else "p"
        parts.append((name.replace("_", " "), count, f"{kind}{min(seen[kind], 2 if kind == 'ok' else 6)}"))
        seen[kind] += 1
    return parts


def _suite(suite: SuiteEntry, passing: set[tuple[str, str]]) -> dict[str, Any]:
    parts = _outcome_parts(suite, passing)
    return {
        "id": suite.suite,
        "question": suite.question,
        "n": suite.n,
        "passed": suite.passed,
        "rate": percent(suite.passed / suite.n if suite.n else None),
        "interval": interval_text(suite.interval),
        "method": "" if suite.interval is None else suite.interval.method,
        "base": percent(suite.base_ratio),
        "production": percent(suite.production_ratio),
        "constrained": rate_view(suite.constrained),
        "pass_hat_k": ", ".join(f"{name} {percent(value)}" for name, value in suite.pass_hat_k.items()),
        "outcomes": [{"name": name, "count": count, "css": css} for name, count, css in parts],
        "outcomes_chart": outcomes_svg(parts, suite.passed),
    }


def rate_view(rate: RateEntry | None) -> dict[str, str] | None:
    """Return a rate as the texts that show it; None where it was not measured."""
    if rate is None or rate.n == 0:
        return None
    return {
        "rate": percent(rate.passed / rate.n),
        "n": f"{rate.passed} of {rate.n}",
        "interval": interval_text(rate.interval),
    }


def _comparisons(results: Results) -> list[dict[str, Any]]:
    blocks = []
    for against in ("production", "base"):
        entries = [item for item in results.comparisons if item.against == against]
        if not entries:
            continue
        blocks.append(
            {
                "against": against,
                "model": entries[0].model,
                "rows": comparison_rows(entries),
                "chart": differences_svg(entries),
            }
        )
    return blocks


def comparison_rows(entries: Sequence[ComparisonEntry]) -> list[dict[str, Any]]:
    """Return paired comparisons as table rows."""
    return [
        {
            "suite": item.suite,
            "n": item.n,
            "candidate": percent(item.candidate_ratio),
            "other": percent(item.other_ratio),
            "difference": f"{item.difference * 100:+.1f}",
            "interval": f"{item.low * 100:+.1f} to {item.high * 100:+.1f}",
            "won": item.candidate_only,
            "lost": item.other_only,
            "p": f"{item.p:.3g}",
            "p_holm": f"{item.p_holm:.3g}",
            "word": _word(item.low, item.difference, item.p_holm),
        }
        for item in entries
    ]


def _word(low: float, difference: float, p_holm: float) -> str:
    if difference > 0 and p_holm < 0.05:
        return "better"
    if difference <= -0.10:
        return "worse"
    return "not worse" if low > -0.10 else "cannot tell"


def defect_gallery(cases: Sequence[CaseEntry]) -> list[dict[str, Any]]:
    """Return failed cases by what went wrong: defect kinds first, then outcomes; a few examples each."""
    kinds: dict[str, list[CaseEntry]] = defaultdict(list)
    for case in cases:
        if case.passed:
            continue
        found = {defect.kind for turn in case.turns for defect in turn.defects}
        for kind in sorted(found) or [f"{case.suite}: {case.outcome}"]:
            kinds[kind].append(case)
    gallery = []
    for kind, members in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
        gallery.append(
            {
                "kind": kind.replace("_", " "),
                "count": len(members),
                "examples": [_example(case, kind) for case in members[:EXAMPLES_PER_DEFECT]],
            }
        )
    return gallery


def _example(case: CaseEntry, kind: str) -> dict[str, Any]:
    turn = next(
        (turn for turn in case.turns if any(defect.kind == kind for defect in turn.defects)),
        case.turns[-1] if case.turns else None,
    )
    details = [] if turn is None else [defect.detail for defect in turn.defects if defect.kind == kind]
    return {
        "anchor": _anchor(case),
        "where": f"{case.suite} · {case.case_id} · seed {case.seed}",
        "outcome": case.outcome.replace("_", " "),
        "prompt": case.prompt,
        "expected": case.expected,
        "got": _clipped(turn.raw) if turn is not None else (case.error or ""),
        "detail": "; ".join(details),
    }


def _transcripts(cases: Sequence[CaseEntry]) -> list[dict[str, Any]]:
    suites: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        suites[case.suite].append(
            {
                "anchor": _anchor(case),
                "case_id": case.case_id,
                "seed": case.seed,
                "stratum": case.stratum,
                "outcome": case.outcome.replace("_", " "),
                "passed": case.passed,
                "prompt": case.prompt,
                "expected": case.expected,
                "error": case.error,
                "base": (case.base_outcome or "").replace("_", " "),
                "production": (case.production_outcome or "").replace("_", " "),
                "seconds": f"{case.seconds:.1f} s",
                "turns": [
                    {
                        "raw": turn.raw,
                        "defects": [f"{defect.kind}: {defect.detail}" for defect in turn.defects],
                        "results": list(turn.tool_results),
                        "tokens": turn.completion_tokens,
                    }
                    for turn in case.turns
                ],
            }
        )
    return [
        {"suite": suite, "cases": members, "passed": sum(member["passed"] for member in members)}
        for suite, members in sorted(suites.items())
    ]


def _anchor(case: CaseEntry) -> str:
    return "case-" + "".join(
        character if character.isalnum() else "-" for character in f"{case.suite}-{case.case_id}-{case.seed}"
    )


def _clipped(text: str) -> str:
    if len(text) <= GOT_CHARACTERS:
        return text
    return text[:GOT_CHARACTERS] + f"\n[… {len(text) - GOT_CHARACTERS:,} more characters in the transcript]"


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _text(value)))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or "none"
    return str(value)

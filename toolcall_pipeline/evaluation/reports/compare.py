"""Several runs of one suite version beside each other: gates, suites and paired differences on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.evaluation.reports.charts import differences_svg, gate_interval_svg
from toolcall_pipeline.evaluation.reports.model import ComparisonEntry, GateEntry, RateEntry, Results
from toolcall_pipeline.evaluation.reports.render import TEMPLATES_DIR, render_template
from toolcall_pipeline.evaluation.reports.view import VERDICT_WORDS, comparison_rows, gate_view, rate_view


def check_comparable(runs: Sequence[Results]) -> None:
    """Refuse runs that cannot stand beside each other.

    Raises:
        UsageError: Fewer than two runs, or runs of different suite versions.
    """
    if len(runs) < 2:
        raise UsageError(f"A comparison needs two runs or more, got {len(runs)}. Give several results.json.")
    versions = {run.suite_sha256: run for run in runs}
    if len(versions) > 1:
        listed = "; ".join(f"{run.model.name}: suite {run.suite_version} ({sha[:12]})" for sha, run in versions.items())
        raise UsageError(
            f"Results of different suite versions are not compared ({listed}). Measure the models on one version."
        )


def render_comparison_html(runs: Sequence[Results], paired: Mapping[int, Sequence[ComparisonEntry]]) -> str:
    """Return the comparison as one HTML page.

    Args:
        runs: In the order of the columns; the first is what the others are paired with.
        paired: By index into `runs`: that run against the first, suite by suite.

    Raises:
        UsageError: The runs cannot be compared.
        ReportTemplateError: A template is missing.
    """
    return render_template("compare.html.jinja", {"view": comparison_view(runs, paired)}, TEMPLATES_DIR)


def render_comparison_markdown(runs: Sequence[Results], paired: Mapping[int, Sequence[ComparisonEntry]]) -> str:
    """Return the comparison as Markdown; arguments and errors as for the page."""
    return render_template("compare.md.jinja", {"view": comparison_view(runs, paired)}, TEMPLATES_DIR)


def comparison_view(runs: Sequence[Results], paired: Mapping[int, Sequence[ComparisonEntry]]) -> dict[str, Any]:
    """Return everything the comparison templates show."""
    check_comparable(runs)
    return {
        "suite_version": runs[0].suite_version,
        "suite_sha256": runs[0].suite_sha256[:12],
        "runs": [
            {
                "letter": _letter(index),
                "name": run.model.name,
                "partition": run.partition,
                "profile": run.profile,
                "decoding": str(run.generation.get("decoding", "free")),
                "sha256": run.model.sha256[:12],
                "verdict": run.verdict.verdict,
                "verdict_word": VERDICT_WORDS[run.verdict.verdict],
                "headline": run.verdict.headline,
                "retraction": run.retraction,
                "corrections": list(run.corrections),
                "speed": _speed(run),
            }
            for index, run in enumerate(runs)
        ],
        "suites": _suite_rows(runs),
        "has_constrained": any(suite.constrained is not None for run in runs for suite in run.suites),
        "gates": _gate_rows(runs),
        "paired": [
            {
                "letter": _letter(index),
                "name": runs[index].model.name,
                "rows": comparison_rows(entries),
                "chart": differences_svg(entries),
            }
            for index, entries in sorted(paired.items())
            if entries
        ],
    }


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"R{index + 1}"


def _speed(run: Results) -> str:
    rate = run.statistics.get("completion_tokens_per_second")
    return f"{rate:,.0f} tokens/s" if isinstance(rate, (int, float)) else "–"


def _suite_rows(runs: Sequence[Results]) -> list[dict[str, Any]]:
    names = sorted({suite.suite for run in runs for suite in run.suites})
    rows = []
    for name in names:
        cells = []
        for run in runs:
            entry = next((suite for suite in run.suites if suite.suite == name), None)
            rate = None if entry is None else RateEntry(n=entry.n, passed=entry.passed, interval=entry.interval)
            constrained = None if entry is None else rate_view(entry.constrained)
            cells.append({"free": rate_view(rate), "constrained": constrained})
        rows.append({"suite": name, "cells": cells})
    return rows


def _gate_rows(runs: Sequence[Results]) -> list[dict[str, Any]]:
    keys = list(dict.fromkeys((gate.asset, gate.gate) for run in runs for gate in run.gates))
    rows = []
    for asset, name in keys:
        found = [_find(run.gates, asset, name) for run in runs]
        cells = [None if gate is None else {**gate_view(gate), "chart": gate_interval_svg(gate)} for gate in found]
        rows.append({"asset": asset, "gate": name, "cells": cells})
    return rows


def _find(gates: Sequence[GateEntry], asset: str, name: str) -> GateEntry | None:
    return next((gate for gate in gates if (gate.asset, gate.gate) == (asset, name)), None)

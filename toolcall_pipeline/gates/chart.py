"""A small picture of a partition's gates, for the page of a materialisation."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from toolcall_pipeline.evaluation.reports.model import GateEntry
from toolcall_pipeline.evaluation.reports.view import gate_view

_COLOURS = {
    "pass": "#1a7f4b",
    "fail": "#c0362c",
    "inconclusive": "#a86a08",
    "overridden": "#b4530f",
    "missing": "#7a8594",
}
_ROW, _WIDTH, _BAR_LEFT, _BAR_WIDTH = 24, 820, 470, 330


def gate_chart_svg(rows: Sequence[GateEntry]) -> str:
    """Return one line per gate: verdict, measured value, rule, and the interval on its axis; needs no style sheet."""
    height = _ROW * len(rows) + 12
    body = "".join(_line(row, index * _ROW + 6) for index, row in enumerate(rows))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
        f"{body}</svg>"
    )


def gate_chart_markdown(rows: Sequence[GateEntry]) -> str:
    """Return the chart as a Markdown image that carries its own bytes."""
    data = b64encode(gate_chart_svg(rows).encode("utf-8")).decode("ascii")
    return f"![gates](data:image/svg+xml;base64,{data})"


def _line(row: GateEntry, top: int) -> str:
    colour = _COLOURS[row.verdict]
    view = gate_view(row)
    middle = top + _ROW / 2
    rule = "" if row.verdict == "missing" else f"{view['measured']}  ({view['rule']})"
    return (
        f'<circle cx="14" cy="{middle}" r="5" fill="{colour}"/>'
        f'<text x="28" y="{middle + 4}" fill="#1b2430">{escape(row.gate)}</text>'
        f'<text x="200" y="{middle + 4}" fill="{colour}">{escape(row.verdict)}</text>'
        f'<text x="290" y="{middle + 4}" fill="#5b6776">{escape(rule)}</text>' + _interval(row, middle, colour)
    )


def _interval(row: GateEntry, middle: float, colour: str) -> str:
    if row.measured is None or row.unit != "ratio":
        return ""

    def at(share: float) -> float:
        return _BAR_LEFT + min(max(share, 0.0), 1.0) * _BAR_WIDTH

    parts = [f'<rect x="{_BAR_LEFT}" y="{middle - 2}" width="{_BAR_WIDTH}" height="4" rx="2" fill="#e7ebf0"/>']
    limits = row.threshold if isinstance(row.threshold, tuple) else (row.threshold,)
    for limit in limits:
        if limit is not None:
            parts.append(
                f'<rect x="{at(limit) - 1:.1f}" y="{middle - 9}" width="2" height="18" fill="#1b2430" opacity="0.55"/>'
            )
    if row.interval is not None:
        width = max(at(row.interval.high) - at(row.interval.low), 1)
        parts.append(
            f'<rect x="{at(row.interval.low):.1f}" y="{middle - 3}" width="{width:.1f}" height="6" rx="3" '
            f'fill="{colour}" opacity="0.45"/>'
        )
    parts.append(f'<circle cx="{at(row.measured):.1f}" cy="{middle}" r="4.5" fill="{colour}"/>')
    return "".join(parts)

"""Small drawings of figures as inline SVG: intervals, suite bars, differences, outcome shares.

Colours come from CSS classes of the page, so that one drawing serves screen, dark screen and paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from toolcall_pipeline.evaluation.reports.model import ComparisonEntry, GateEntry, SuiteEntry

_GATE_WIDTH, _GATE_HEIGHT = 240, 30
_LEFT, _RIGHT = 6, 6


class _Axis:
    """Positions of values on a horizontal axis."""

    def __init__(self, low: float, high: float, left: float, right: float) -> None:
        self.low, self.high, self.left, self.right = low, high, left, right

    def at(self, value: float) -> float:
        clipped = min(max(value, self.low), self.high)
        return self.left + (clipped - self.low) / (self.high - self.low) * (self.right - self.left)


def gate_interval_svg(gate: GateEntry) -> str:
    """Return a gate's value with its interval, the threshold and the safe side; empty for counts and for no value."""
    if gate.measured is None or not gate.unit.startswith("ratio"):
        return ""
    low, high = _domain(gate)
    axis = _Axis(low, high, _LEFT, _GATE_WIDTH - _RIGHT)
    middle = 11
    parts = [f'<line class="axis" x1="{_LEFT}" y1="{middle}" x2="{_GATE_WIDTH - _RIGHT}" y2="{middle}"/>']
    for start, end in _safe_zones(gate, low, high):
        width = axis.at(end) - axis.at(start)
        parts.append(f'<rect class="safe" x="{axis.at(start):.1f}" y="3" width="{width:.1f}" height="16"/>')
    for limit in _limits(gate):
        if low <= limit <= high:
            parts.append(f'<line class="limit" x1="{axis.at(limit):.1f}" y1="1" x2="{axis.at(limit):.1f}" y2="21"/>')
    if gate.interval is not None:
        x1, x2 = axis.at(gate.interval.low), axis.at(gate.interval.high)
        parts.append(f'<line class="whisker {gate.verdict}" x1="{x1:.1f}" y1="{middle}" x2="{x2:.1f}" y2="{middle}"/>')
        for x in (x1, x2):
            parts.append(f'<line class="cap {gate.verdict}" x1="{x:.1f}" y1="7" x2="{x:.1f}" y2="15"/>')
    parts.append(f'<circle class="dot {gate.verdict}" cx="{axis.at(gate.measured):.1f}" cy="{middle}" r="4"/>')
    parts.append(f'<text class="tick" x="{_LEFT}" y="29">{_percent(low)}</text>')
    parts.append(f'<text class="tick end" x="{_GATE_WIDTH - _RIGHT}" y="29">{_percent(high)}</text>')
    return _svg(_GATE_WIDTH, _GATE_HEIGHT, parts, f"{gate.gate}: {_percent(gate.measured)}")


def _domain(gate: GateEntry) -> tuple[float, float]:
    """Return the ends of a gate's axis: all of 0 to 1, closer where the threshold is small, symmetric for differences."""
    measured = gate.measured or 0.0
    top = measured if gate.interval is None else max(gate.interval.high, measured)
    if gate.unit != "ratio":
        bottom = measured if gate.interval is None else min(gate.interval.low, measured)
        reach = min(max(0.2, abs(bottom), abs(top)) * 1.1, 1.0)
        return -reach, reach
    limit = max(_limits(gate), default=1.0)
    if 0 < limit <= 0.2:
        return 0.0, min(max(3 * limit, 1.15 * top, 0.01), 1.0)
    return 0.0, 1.0


def _limits(gate: GateEntry) -> list[float]:
    if gate.threshold is None:
        return []
    return list(gate.threshold) if isinstance(gate.threshold, tuple) else [gate.threshold]


def _safe_zones(gate: GateEntry, low: float, high: float) -> list[tuple[float, float]]:
    limits = [min(max(limit, low), high) for limit in _limits(gate)]
    if gate.comparison == "within" and len(limits) == 2:
        return [(limits[0], limits[1])]
    if not limits or gate.comparison == "==":
        return []
    return [(limits[0], high)] if gate.comparison in (">", ">=") else [(low, limits[0])]


def suites_svg(suites: Sequence[SuiteEntry]) -> str:
    """Return one row per suite: the candidate's rate with its interval, base and production as ticks."""
    width, row = 860, 46
    axis = _Axis(0, 1, 130, width - 130)
    height = row * len(suites) + 26
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = axis.at(share)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{height - 22}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{height - 6}">{_percent(share)}</text>')
    for index, suite in enumerate(suites):
        parts += _suite_row(suite, axis, index * row + row / 2, width)
    return _svg(width, height, parts, "Share of cases passed, by suite", css="wide")


def _suite_row(suite: SuiteEntry, axis: _Axis, y: float, width: int) -> list[str]:
    parts = [
        f'<text class="label" x="8" y="{y - 1:.1f}">Suite {escape(suite.suite)}</text>',
        f'<text class="tick" x="8" y="{y + 13:.1f}">n = {suite.n}</text>',
    ]
    if suite.n == 0:
        return parts
    rate = suite.passed / suite.n
    parts.append(
        f'<rect class="bar" x="{axis.left}" y="{y - 9:.1f}" width="{axis.at(rate) - axis.left:.1f}" height="18" rx="3"/>'
    )
    if suite.interval is not None:
        x1, x2 = axis.at(suite.interval.low), axis.at(suite.interval.high)
        parts.append(f'<line class="whisker ink" x1="{x1:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y:.1f}"/>')
        for x in (x1, x2):
            parts.append(f'<line class="cap ink" x1="{x:.1f}" y1="{y - 5:.1f}" x2="{x:.1f}" y2="{y + 5:.1f}"/>')
    for name, value in (("base", suite.base_ratio), ("production", suite.production_ratio)):
        if value is not None:
            x = axis.at(value)
            parts.append(f'<line class="mark {name}" x1="{x:.1f}" y1="{y - 15:.1f}" x2="{x:.1f}" y2="{y + 15:.1f}"/>')
    parts.append(f'<text class="value" x="{width - 120}" y="{y + 5:.1f}">{_percent(rate)}</text>')
    return parts


_MARGIN = 0.10
"""Of non-inferiority, as the gate `not_worse` asks for it under `ship`."""


def differences_svg(comparisons: Sequence[ComparisonEntry]) -> str:
    """Return one row per suite: candidate minus other with its interval, and the margin of non-inferiority."""
    width, row = 860, 34
    height = row * len(comparisons) + 40
    reach = min(1.0, max([0.25, *(abs(value) for item in comparisons for value in (item.low, item.high))]) * 1.05)
    axis = _Axis(-reach, reach, 130, width - 130)
    base = height - 34
    parts = [
        f'<rect class="safe" x="{axis.at(-_MARGIN):.1f}" y="4" width="{axis.right - axis.at(-_MARGIN):.1f}" '
        f'height="{base - 4}"/>',
        f'<line class="limit" x1="{axis.at(-_MARGIN):.1f}" y1="4" x2="{axis.at(-_MARGIN):.1f}" y2="{base}"/>',
        f'<line class="axis" x1="{axis.at(0):.1f}" y1="4" x2="{axis.at(0):.1f}" y2="{base}"/>',
        f'<text class="tick mid" x="{axis.at(-_MARGIN):.1f}" y="{base + 14}">-{_percent(_MARGIN)}</text>',
        f'<text class="tick mid" x="{axis.at(0):.1f}" y="{base + 14}">0</text>',
        f'<text class="tick" x="{axis.left}" y="{base + 28}">other better</text>',
        f'<text class="tick end" x="{axis.right}" y="{base + 28}">candidate better</text>',
    ]
    for index, item in enumerate(comparisons):
        y = index * row + row / 2 + 4
        css = "fail" if item.difference <= -_MARGIN else "pass" if item.low > -_MARGIN else "inconclusive"
        x1, x2 = axis.at(item.low), axis.at(item.high)
        parts += [
            f'<text class="label" x="8" y="{y + 4:.1f}">Suite {escape(item.suite)}</text>',
            f'<line class="whisker {css}" x1="{x1:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y:.1f}"/>',
            f'<circle class="dot {css}" cx="{axis.at(item.difference):.1f}" cy="{y:.1f}" r="5"/>',
            f'<text class="value" x="{width - 120}" y="{y + 5:.1f}">{item.difference * 100:+.1f} points</text>',
        ]
    return _svg(width, height, parts, "Difference on the same cases", css="wide")


def outcomes_svg(parts: Sequence[tuple[str, int, str]], passed: int) -> str:
    """Return the shares of a suite's outcomes as one stacked bar.

    Args:
        parts: (name, count, CSS class), in the order drawn.
        passed: Cases that passed, for the caption.
    """
    width, height = 860, 22
    total = sum(count for _, count, _ in parts)
    if total == 0:
        return ""
    drawn, x = [], 0.0
    for name, count, css in parts:
        share = count / total * width
        drawn.append(
            f'<rect class="part {css}" x="{x:.1f}" y="0" width="{max(share - 1, 0.5):.1f}" height="{height}">'
            f"<title>{escape(name)}: {count}</title></rect>"
        )
        x += share
    return _svg(width, height, drawn, f"{passed} of {total} passed", css="wide")


def _svg(width: float, height: float, parts: Sequence[str], title: str, css: str = "") -> str:
    body = "".join(parts)
    return (
        f'<svg class="chart {css}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{body}</svg>'
    )


def _percent(share: float) -> str:
    value = share * 100
    return f"{value:.0f} %" if abs(value - round(value)) < 0.05 else f"{value:.1f} %"

"""The loss curve as a picture; the same metrics give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SMOOTHING = 0.9


def draw_loss_curve(metrics: list[dict[str, Any]], path: Path) -> None:
    """Draw training loss (points and running mean), evaluation loss, and learning rate over steps."""
    from matplotlib.figure import Figure

    train = [(record["step"], record["loss"]) for record in metrics if "loss" in record]
    evaluation = [(record["step"], record["eval_loss"]) for record in metrics if "eval_loss" in record]
    rates = [(record["step"], record["learning_rate"]) for record in metrics if "learning_rate" in record]
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.plot(*_columns(train), ".", color="#9ecae1", markersize=3, label="training loss, each step")
    axes.plot(*_columns(_smoothed(train)), color="#08519c", linewidth=1.6, label="training loss, running mean")
    axes.plot(*_columns(evaluation), "o-", color="#d94801", markersize=5, label="validation loss")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss per supervised token")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    right = axes.twinx()
    right.plot(*_columns(rates), color="#74c476", linewidth=1, label="learning rate")
    right.set_ylabel("learning rate")
    right.set_ylim(bottom=0)
    lines = axes.get_lines() + right.get_lines()
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="upper right", fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the exponential running mean, without the pull of its start towards zero."""
    result: list[tuple[int, float]] = []
    mean, weight = 0.0, 0.0
    for step, value in points:
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * value
        weight = _SMOOTHING * weight + (1 - _SMOOTHING)
        result.append((step, mean / weight))
    return result

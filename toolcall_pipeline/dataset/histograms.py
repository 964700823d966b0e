"""Pictures of a dataset, with the same bytes for the same figures (no dates, no versions in the file)."""

from __future__ import annotations

from pathlib import Path

from toolcall_pipeline.dataset import files

_SHOWN_CATEGORIES = 25
_BAR = "#2f6f9f"
_LIMIT = "#b3541e"


def write_histograms(
    directory: Path, categories: dict[str, int], lengths_tokens: list[int], *, max_category_ratio: float
) -> None:
    """Write the histogram of supervised turns by category, and that of row lengths.

    Args:
        directory: The artifact.
        categories: Supervised training turns by category, largest first.
        lengths_tokens: Tokens per training row.
        max_category_ratio: The cap, drawn as a line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = dict(list(categories.items())[:_SHOWN_CATEGORIES])
    height = max(2.5, 0.3 * len(shown) + 1)
    figure = Figure(figsize=(8, height), dpi=100)
    axes = figure.add_axes((0.32, 0.6 / height, 0.64, 1 - 1.0 / height))
    axes.barh(list(shown)[::-1], list(shown.values())[::-1], color=_BAR)
    axes.margins(y=0.01)
    most = max_category_ratio * sum(categories.values())
    if shown:
        axes.axvline(most, color=_LIMIT, linestyle="--", label=f"cap of a category ({max_category_ratio:.0%})")
        axes.legend(loc="lower right")
    axes.set_xlabel("supervised turns")
    axes.set_title("What the training rows teach")
    FigureCanvasAgg(figure).print_png(directory / files.TOOL_HISTOGRAM, metadata={"Software": None})
    figure = Figure(figsize=(8, 3.5), dpi=100)
    axes = figure.add_axes((0.1, 0.17, 0.86, 0.7))
    axes.hist(lengths_tokens, bins=40, color=_BAR)
    axes.set_xlabel("tokens per training row")
    axes.set_ylabel("rows")
    axes.set_title("Row lengths")
    FigureCanvasAgg(figure).print_png(directory / files.LENGTH_HISTOGRAM, metadata={"Software": None})

"""Commands on finished reports: render again, compare, retract, correct."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from toolcall_pipeline.artifacts import write_atomically
from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.evaluation.reports.compare import (
    check_comparable,
    render_comparison_html,
    render_comparison_markdown,
)
from toolcall_pipeline.evaluation.reports.model import (
    SCHEMA_NAME,
    Correction,
    Results,
    Retraction,
    dump_results,
    load_results,
    results_schema,
)
from toolcall_pipeline.evaluation.reports.render import TEMPLATES_DIR, render_html, render_markdown
from toolcall_pipeline.gates.comparison import compare_cases
from toolcall_pipeline.gates.reporting import HTML_NAME, MARKDOWN_NAME, RESULTS_NAME, to_entries

ReportFormat = Literal["html", "markdown"]
COMPARISON_HTML_NAME = "comparison.html"
COMPARISON_MARKDOWN_NAME = "comparison.md"


def render_report(
    results: Path,
    output_dir: Path,
    *,
    formats: Sequence[ReportFormat] = ("html", "markdown"),
    templates_dir: Path = TEMPLATES_DIR,
) -> list[Path]:
    """Render a report again from its results; the same results, the same bytes.

    Args:
        results: A `results.json`, or the folder it is in.
        output_dir: Where the files go.
        formats: Which to write.
        templates_dir: Where the templates are.

    Returns:
        The files written.

    Raises:
        MissingInputError: There is no results file (exit code 6).
        InvalidResultsError: It does not conform to the schema (exit code 5).
        ReportTemplateError: A template is missing (exit code 4).
    """
    loaded = load_results(_results_path(results))
    written = []
    if "html" in formats:
        written.append(output_dir / HTML_NAME)
        write_atomically(written[-1], render_html(loaded, templates_dir))
    if "markdown" in formats:
        written.append(output_dir / MARKDOWN_NAME)
        write_atomically(written[-1], render_markdown(loaded, templates_dir))
    return written


def compare_reports(results: Sequence[Path], output_dir: Path) -> list[Path]:
    """Line up any number of runs of one suite version on one page; the others are paired with the first.

    Args:
        results: `results.json` files, or the folders they are in.
        output_dir: Where `comparison.html` and `comparison.md` go.

    Returns:
        The files written.

    Raises:
        UsageError: Fewer than two runs, different suite versions, or a run with a grammar paired with one without.
        MissingInputError: A results file is missing (exit code 6).
        InvalidResultsError: One does not conform to the schema (exit code 5).
    """
    runs = [load_results(_results_path(path)) for path in results]
    check_comparable(runs)
    first = runs[0]
    paired = {
        index: to_entries(compare_cases(run.cases, first.cases), "run", first.model.name)
        for index, run in enumerate(runs)
        if index > 0 and _decoding(run) == _decoding(first)
    }
    pages = {
        COMPARISON_HTML_NAME: render_comparison_html(runs, paired),
        COMPARISON_MARKDOWN_NAME: render_comparison_markdown(runs, paired),
    }
    for name, page in pages.items():
        write_atomically(output_dir / name, page)
    return [output_dir / name for name in pages]


def retract_report(results: Path, reason: str, at: str) -> Results:
    """Mark a report as retracted and render it again: every page carries the banner from now on.

    Args:
        results: A `results.json`, or the folder it is in; rewritten in place with its pages.
        reason: Why, in words that will be read later.
        at: The day, as `2026-11-23`.

    Raises:
        UsageError: No reason.
    """
    if not reason.strip():
        raise UsageError("A retraction needs a reason, in words that will be read later.")
    path = _results_path(results)
    update = {"retraction": Retraction(reason=reason.strip(), at=at)}
    return _rewritten(path, load_results(path).model_copy(update=update))


def correct_report(results: Path, correction: Correction) -> Results:
    """Add a correction to a report and render it again: the published figure stays readable beside the correct one."""
    path = _results_path(results)
    loaded = load_results(path)
    return _rewritten(path, loaded.model_copy(update={"corrections": (*loaded.corrections, correction)}))


def write_schema(directory: Path) -> Path:
    """Write the published JSON Schema of `results.json` into a folder."""
    import json

    path = directory / SCHEMA_NAME
    write_atomically(path, json.dumps(results_schema(), indent=2, sort_keys=True) + "\n")
    return path


def _rewritten(path: Path, results: Results) -> Results:
    write_atomically(path, dump_results(results))
    render_report(path, path.parent)
    return results


def _results_path(path: Path) -> Path:
    return path / RESULTS_NAME if path.is_dir() else path


def _decoding(run: Results) -> str:
    return str(run.generation.get("decoding", "free"))

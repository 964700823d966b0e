"""Results to Markdown and to one self-contained HTML page; the same input, the same bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from toolcall_pipeline.errors import ReportTemplateError
from toolcall_pipeline.evaluation.reports.model import Results
from toolcall_pipeline.evaluation.reports.view import report_view

TEMPLATES_DIR = Path(__file__).with_name("templates")


def render_html(results: Results, templates_dir: Path = TEMPLATES_DIR) -> str:
    """Return the report as one HTML page that needs nothing beside it.

    Raises:
        ReportTemplateError: A template is missing.
    """
    return render_template("report.html.jinja", {"view": report_view(results)}, templates_dir)


def render_markdown(results: Results, templates_dir: Path = TEMPLATES_DIR) -> str:
    """Return the report as Markdown, without transcripts.

    Raises:
        ReportTemplateError: A template is missing.
    """
    return render_template("report.md.jinja", {"view": report_view(results)}, templates_dir)


def render_template(name: str, values: dict[str, Any], templates_dir: Path = TEMPLATES_DIR) -> str:
    """Fill a template; everything is escaped unless it was drawn here.

    Raises:
        ReportTemplateError: The template, or one it includes, is missing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound

    is_html = name.endswith(".html.jinja")
    environment = Environment(
        loader=FileSystemLoader(templates_dir),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_without_controls if is_html else _without_markup,
    )
    environment.filters["cell"] = _cell
    try:
        return environment.get_template(name).render(**values)
    except TemplateNotFound as error:
        raise ReportTemplateError(
            f"Report template {error.name!r} is not in {templates_dir}. Reinstall toolcall-pipeline."
        ) from error


_CONTROLS: dict[int, int] = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"},
    0x7F: 0x2421,
    # These turn the direction of writing, of all that follows if need be.
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD),
}
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])")


def _without_controls(value: Any) -> Any:
    """Show control characters of a completion as their pictures; a page may not hold them."""
    return value.translate(_CONTROLS) if isinstance(value, str) else value


def _without_markup(value: Any) -> Any:
    """Show what would be HTML inside Markdown as text, too."""
    return _MARKUP.sub("&lt;", _without_controls(value)) if isinstance(value, str) else value


def _cell(value: Any) -> str:
    """Return a text that cannot break a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")

"""What a materialisation and a gate show in the UI, made from manifests and verdicts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.gates.verdict import GateResult, Verdict

_TABLE_ROWS = 50
_PICTURE_BYTES = 400_000
_PICTURES = 4
_TEXT_CHARACTERS = 4_000
_REPORT_CHARACTERS = 60_000


def artifact_metadata(artifact: Artifact) -> dict[str, Any]:
    """Return the metadata of a materialisation: counts that Dagster plots, tables, pictures, reports, provenance."""
    manifest = artifact.manifest
    shown: dict[str, Any] = {}
    shown.update(plain_metadata(manifest.metadata))
    for path in _pictures(artifact):
        shown[path.stem] = picture(path)
    for path in sorted(artifact.directory.glob("*.html")):
        shown[f"{path.stem}_page"] = dg.MetadataValue.path(str(path))
        shown[f"{path.stem}_link"] = dg.MetadataValue.url(path.as_uri())
    report = artifact.directory / "report.md"
    if report.is_file():
        shown["report"] = dg.MetadataValue.md(report.read_text(encoding="utf-8")[:_REPORT_CHARACTERS])
    if manifest.overridden_gates:
        shown["overridden_gates"] = dg.MetadataValue.md(
            "**Never shippable.** Made over gates that were overridden: "
            + ", ".join(f"`{gate}`" for gate in manifest.overridden_gates)
        )
    return {
        **shown,
        "made_in_seconds": float(manifest.seconds),
        "artifact_bytes": sum(record.bytes for record in manifest.files.values()),
        "artifact_sha256": manifest.artifact_sha256,
        "artifact_folder": dg.MetadataValue.path(str(artifact.directory)),
        "made_from": dg.MetadataValue.json(dict(manifest.parents)),
    }


def plain_metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts, texts and small tables as Dagster shows them: numbers to plot, flat objects as tables."""
    shown: dict[str, Any] = {}
    for name, value in values.items():
        shown.update(_shown(name, value))
    return shown


def gate_metadata(result: GateResult, overridden_reason: str | None = None) -> dict[str, Any]:
    """Return the metadata of a check: measured, comparison, threshold, n, interval, verdict and what to do."""
    shown: dict[str, Any] = {
        "verdict": "overridden" if overridden_reason else str(result.verdict),
        "comparison": result.comparison,
        "threshold": _threshold(result.threshold),
        "unit": result.unit,
        "n": result.n,
        "explanation": result.explanation,
    }
    if result.measured is not None:
        shown["measured"] = float(result.measured)
    if result.interval is not None:
        interval = result.interval
        shown["interval"] = f"{interval.low:.4f} to {interval.high:.4f} ({interval.level:.0%}, {interval.method})"
        shown["interval_low"], shown["interval_high"] = interval.low, interval.high
    if overridden_reason:
        shown["overridden_reason"] = overridden_reason
    if result.verdict is not Verdict.PASS:
        # As text: the page hides Markdown behind a click, and this is what a person came for.
        shown["how_to_fix"] = result.how_to_fix
    return {**shown, **{name: value for name, value in plain_metadata(result.details).items() if name not in shown}}


def describe(result: GateResult) -> str:
    """Return one line: verdict, measured against threshold, what was found."""
    measured = "nothing measured" if result.measured is None else f"{result.measured:.6g}"
    sign = f"{result.comparison} {_threshold(result.threshold)} {result.unit}"
    return f"{result.verdict.upper()}: {measured} (asked {sign}, n {result.n}). {result.explanation}"


def picture(path: Path) -> dg.MarkdownMetadataValue:
    """Return a PNG or SVG file as a picture the UI draws."""
    kind = "svg+xml" if path.suffix == ".svg" else "png"
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return dg.MetadataValue.md(f"![{path.stem}](data:image/{kind};base64,{data})")


def table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return flat objects as a table; what is nested is left out, long texts are cut."""
    records = [
        {key: _cell(value) for key, value in row.items() if isinstance(value, str | int | float | bool | None)}
        for row in rows
    ]
    columns = list(dict.fromkeys(key for record in records for key in record))
    schema = dg.TableSchema([dg.TableColumn(name, _column_type(records, name)) for name in columns])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records[:_TABLE_ROWS]], schema)


def _shown(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, bool | int | float):
        return {name: value}
    if isinstance(value, str):
        return {name: value[:_TEXT_CHARACTERS]}
    if isinstance(value, list | tuple) and value and all(isinstance(row, Mapping) for row in value):
        return {name: table(value)}
    if isinstance(value, Mapping) and value and all(_is_number(number) for number in value.values()):
        return {name: table({"name": key, "value": number} for key, number in value.items())}
    return {name: dg.MetadataValue.json({"value": value} if not isinstance(value, list | dict) else value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> Any:
    return value[:300] if isinstance(value, str) else value


def _column_type(records: list[dict[str, Any]], name: str) -> str:
    values = [record[name] for record in records if record.get(name) is not None]
    if values and all(isinstance(value, bool) for value in values):
        return "bool"
    if values and all(_is_number(value) for value in values):
        return "int" if all(isinstance(value, int) for value in values) else "float"
    return "string"


def _threshold(threshold: float | tuple[float, float] | None) -> str:
    if threshold is None:
        return "none"
    return " to ".join(f"{end:g}" for end in threshold) if isinstance(threshold, tuple) else f"{threshold:g}"


def _pictures(artifact: Artifact) -> list[Path]:
    found = [*artifact.directory.glob("*.png"), *artifact.directory.glob("*.svg")]
    return sorted(path for path in found if path.stat().st_size <= _PICTURE_BYTES)[:_PICTURES]

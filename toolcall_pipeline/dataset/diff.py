"""How two datasets differ: configuration, figures, shares, reasons, tools and rows; for `dataset diff A B`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.writing import read_rows

_COMPARED_FIGURES = (
    "rows", "families", "tokens", "supervised_tokens", "supervised_turns", "supervised_turns_with_calls",
    "text_after_tool_turns", "text_after_tool_ratio", "largest_category", "largest_category_ratio", "repeated_rows",
    "rows_where_more_than_one_tool_fits_ratio",
)  # fmt: skip
_SHOWN_CATEGORIES = 30


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same: where, and what it is in A and in B (None where it is absent)."""

    section: str
    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class DatasetDiff:
    """All differences between two datasets, in the order of the page."""

    name_a: str
    name_b: str
    differences: tuple[Difference, ...]

    @property
    def is_same(self) -> bool:
        """Return whether nothing differs."""
        return not self.differences

    def as_text(self) -> str:
        """Return the differences as text for a terminal, one section after another."""
        lines = [f"A: {self.name_a}", f"B: {self.name_b}"]
        if self.is_same:
            return "\n".join([*lines, "", "The datasets are the same."])
        width = max(len(item.name) for item in self.differences)
        section = None
        for item in self.differences:
            if item.section != section:
                section = item.section
                lines += ["", f"{section}:"]
            lines.append(f"  {item.name:<{width}}  {_shown(item.a)}  ->  {_shown(item.b)}{_change(item)}")
        return "\n".join(lines)


def diff_datasets(a: Artifact, b: Artifact) -> DatasetDiff:
    """Compare two `v2_chat_dataset` artifacts.

    Raises:
        MissingInputError: An artifact has no dataset manifest.
    """
    first, second = _manifest(a), _manifest(b)
    found: list[Difference] = []
    compared = [
        ("configuration", first["configuration"], second["configuration"]),
        ("built from", _identity(first), _identity(second)),
        ("training rows", _figures(first, "train"), _figures(second, "train")),
        ("validation rows", _figures(first, "valid"), _figures(second, "valid")),
        ("episodes left out", first["drop_reasons"]["episodes"], second["drop_reasons"]["episodes"]),
        ("rows left out", first["drop_reasons"]["rows"], second["drop_reasons"]["rows"]),
        (
            "turns not supervised",
            first["drop_reasons"]["turns_unsupervised"],
            second["drop_reasons"]["turns_unsupervised"],
        ),
        ("supervised turns by category", _categories(first, second), _categories(second, first)),
        ("rows in common", *_rows(a, b)),
        ("tool schemas", _schemas(a), _schemas(b)),
    ]
    for section, left, right in compared:
        for name in [*left, *(name for name in right if name not in left)]:
            if left.get(name) != right.get(name):
                found.append(Difference(section, name, left.get(name), right.get(name)))
    return DatasetDiff(_name(a), _name(b), tuple(found))


def _manifest(artifact: Artifact) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(artifact.path(files.DATASET_MANIFEST).read_bytes())
    return result


def _name(artifact: Artifact) -> str:
    return f"{artifact.manifest.partition} {artifact.manifest.fingerprint[:12]}"


def _identity(manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "base": manifest["base"],
        "freeze_number": manifest["freeze_number"],
        "runs": sorted(manifest["runs"]["included"]),
        "suite_version": manifest["decontamination"]["suite_version"],
        "suite_sha256": manifest["decontamination"]["suite_sha256"],
    }


def _figures(manifest: dict[str, Any], side: str) -> dict[str, Any]:
    return {name: manifest[side][name] for name in _COMPARED_FIGURES}


def _categories(manifest: dict[str, Any], other: dict[str, Any]) -> dict[str, int]:
    counts, others = manifest["train"]["categories"], other["train"]["categories"]
    names = sorted({*counts, *others}, key=lambda name: (-max(counts.get(name, 0), others.get(name, 0)), name))
    return {name: counts.get(name, 0) for name in names[:_SHOWN_CATEGORIES]}


def _rows(a: Artifact, b: Artifact) -> tuple[dict[str, int], dict[str, int]]:
    first, second = ({row.meta.row_id for row in read_rows(item.path(files.TRAIN_CHAT))} for item in (a, b))
    common = len(first & second)
    return {"only here": len(first) - common}, {"only here": len(second) - common}


def _schemas(artifact: Artifact) -> dict[str, str]:
    tools = json.loads(artifact.path(files.TOOL_SCHEMAS).read_bytes())
    return {
        tool["function"]["name"]: ", ".join(sorted(tool["function"]["parameters"].get("properties", {})))
        for tool in tools
    }


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def _change(item: Difference) -> str:
    numbers = isinstance(item.a, int | float) and isinstance(item.b, int | float)
    if not numbers or isinstance(item.a, bool) or not item.a:
        return ""
    return f"  ({(item.b - item.a) / item.a:+.0%})"

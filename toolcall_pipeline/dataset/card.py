"""The dataset's manifest and card: what is in it, what was left out and why, and where it came from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.artifacts import sha256_file, write_atomically
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.selection import SideFigures, Sides, figures
from toolcall_pipeline.dataset.shares import Selection
from toolcall_pipeline.dataset.suite_protocol import SuiteForDataset
from toolcall_pipeline.dataset.templates import DEFAULT_SYSTEM_PROMPT
from toolcall_pipeline.dataset.writing import WrittenCounts
from toolcall_pipeline.stage_context import StageContext

if TYPE_CHECKING:
    from toolcall_pipeline.dataset.corpus import Corpus
    from toolcall_pipeline.dataset.stage import DatasetInputs

PROJECT_WARNING_RATIO = 0.30
PROJECT_WARNING_ROOTS = 4
_SHOWN_CATEGORIES = 40
_CACHE_COUNTS = ("drafts_tokenized", "drafts_reused")
"""What the cache saved: not part of the artifact, which is the same with and without it."""


def write_provenance(
    directory: Path,
    *,
    context: StageContext,
    inputs: DatasetInputs,
    corpus: Corpus,
    sides: Sides,
    selection: Selection,
    suite: SuiteForDataset | None,
    contaminated: dict[str, int],
    written: dict[str, WrittenCounts],
    tools: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Write manifest and card; return the artifact's metadata."""
    train, valid = figures(sides.train), figures(sides.valid)
    manifest = {
        "recipe": context.configuration.dataset.recipe,
        "seed": context.configuration.dataset.seed,
        "configuration": context.configuration.dataset.model_dump(mode="json"),
        "base": context.configuration.base.model,
        "freeze_number": inputs.freeze_number,
        "runs": {"included": inputs.included_runs, "left_out": inputs.left_out_runs},
        "system_prompt": DEFAULT_SYSTEM_PROMPT,
        "episodes": _sorted(Counter({name: n for name, n in corpus.counts.items() if name not in _CACHE_COUNTS})),
        "drop_reasons": {
            "episodes": _sorted(corpus.drops),
            "turns_unsupervised": _sorted(corpus.turn_drops),
            "rows": _sorted(sides.drops),
            "turns_over_category_cap": _sorted(selection.capped),
            "conclusions_over_share": selection.conclusions_left_out,
        },
        "splits": {
            "validation_family_ratio": sides.splits.ratio,
            "families": len(sides.splits.families),
            "retired_families": len(sides.splits.retired),
            "fills_suites": sides.splits.needs_met,
        },
        "decontamination": {
            "suite_version": suite.version if suite else None,
            "suite_sha256": suite.sha256 if suite else None,
            "training_rows_sharing_a_prompt": contaminated,
            "boilerplate_13_grams": len(sides.ignored_grams),
            "near_duplicates_removed": sides.drops["near_duplicate_of_validation"],
        },
        "train": _side(train, written["train"]),
        "valid": _side(valid, written["valid"]),
        "warnings": [*_emptiness(train, corpus), *project_warnings(train)],
        "tool_histogram": _tools_only(train.categories),
        "command_histogram": {
            name.removeprefix("Bash:"): count for name, count in train.categories.items() if name.startswith("Bash:")
        },
        "tools": sorted(tool["function"]["name"] for tool in tools),
    }
    _write_card(directory, manifest)
    manifest["output_sha256"] = {
        path.relative_to(directory).as_posix(): sha256_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    write_atomically(
        directory / files.DATASET_MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    )
    return metadata_of(manifest) | {name: corpus.counts[name] for name in _CACHE_COUNTS}


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts) if counts[name]}


def _tools_only(categories: dict[str, int]) -> dict[str, int]:
    tools: Counter[str] = Counter()
    for name, count in categories.items():
        tools["Bash" if name.startswith("Bash:") else name] += count
    return dict(sorted(tools.items(), key=lambda item: (-item[1], item[0])))


def _side(side: SideFigures, written: WrittenCounts) -> dict[str, Any]:
    name, ratio = side.largest_category
    return {
        "rows": side.rows,
        "families": side.families,
        "tokens": written.tokens,
        "supervised_tokens": written.supervised_tokens,
        "supervised_turns": side.supervised_turns,
        "supervised_turns_with_calls": side.supervised_calls_turns,
        "text_after_tool_turns": side.text_after_tool_turns,
        "text_turns": side.text_turns,
        "text_after_tool_ratio": round(side.text_after_tool_ratio, 6),
        "largest_category": name,
        "largest_category_ratio": round(ratio, 6),
        "repeated_rows": side.repeated_rows,
        "rows_where_more_than_one_tool_fits_ratio": round(side.more_than_one_tool_fits_ratio, 6),
        "categories": side.categories,
        "project_ratios": {
            name: round(count / side.supervised_turns, 6) for name, count in list(side.projects.items())[:20]
        }
        if side.supervised_turns
        else {},
    }


def _emptiness(train: SideFigures, corpus: Corpus) -> list[str]:
    if train.rows:
        return []
    return [f"No training row came of {corpus.counts['episodes']} episodes; what was left out is counted above."]


def project_warnings(side: SideFigures) -> list[str]:
    """Return a warning where one project holds more than 30 % of supervised turns of four roots or more."""
    if len(side.projects) < PROJECT_WARNING_ROOTS or not side.supervised_turns:
        return []
    return [
        f"Project {name} holds {count / side.supervised_turns:.1%} of the supervised turns."
        for name, count in side.projects.items()
        if count > PROJECT_WARNING_RATIO * side.supervised_turns
    ]


def metadata_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the figures shown with the artifact, with snake_case names and units."""
    train, valid = manifest["train"], manifest["valid"]
    return {
        "train_rows": train["rows"],
        "valid_rows": valid["rows"],
        "train_tokens": train["tokens"],
        "supervised_tokens": train["supervised_tokens"],
        "supervised_turns": train["supervised_turns"],
        "supervised_call_turns": train["supervised_turns_with_calls"],
        "text_after_tool_ratio": train["text_after_tool_ratio"],
        "largest_category_ratio": train["largest_category_ratio"],
        "largest_category": train["largest_category"],
        "more_than_one_tool_fits_ratio": train["rows_where_more_than_one_tool_fits_ratio"],
        "family_count": manifest["splits"]["families"],
        "validation_family_ratio": manifest["splits"]["validation_family_ratio"],
        "tool_count": len(manifest["tools"]),
        "included_run_count": len(manifest["runs"]["included"]),
        "left_out_run_count": len(manifest["runs"]["left_out"]),
        "contaminated_rows_removed": sum(manifest["decontamination"]["training_rows_sharing_a_prompt"].values()),
        "near_duplicates_removed": manifest["decontamination"]["near_duplicates_removed"],
        "suite_sha256": manifest["decontamination"]["suite_sha256"] or "",
        "suite_version": manifest["decontamination"]["suite_version"] or "",
        "recipe": manifest["recipe"],
        "tool_histogram": manifest["tool_histogram"],
        "warnings": manifest["warnings"],
    }


def _table(title: tuple[str, str], rows: dict[str, Any]) -> str:
    lines = [f"| {title[0]} | {title[1]} |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


def _size_category(rows: int) -> str:
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if rows < limit:
            return name
    return "100K<n<1M"


def _write_card(directory: Path, manifest: dict[str, Any]) -> None:
    drops, runs = manifest["drop_reasons"], manifest["runs"]
    sections = [
        _front_matter(manifest) + _figures_section(manifest),
        "## What was left out\n\n" + _table(("episodes", "count"), drops["episodes"]),
        _table(("rows", "count"), drops["rows"]),
        _table(("turns kept as context only", "count"), drops["turns_unsupervised"]),
        _table(("turns over the category cap", "count"), drops["turns_over_category_cap"]),
        _splits_section(manifest),
        "## Supervised turns by category\n\n"
        + _table(("category", "turns"), dict(list(manifest["train"]["categories"].items())[:_SHOWN_CATEGORIES])),
        "## Runs\n\n" + _table(("run", "left out because"), dict.fromkeys(runs["included"], "") | runs["left_out"]),
    ]
    if manifest["warnings"]:
        sections.append("## Warnings\n\n" + "\n".join(f"* {text}" for text in manifest["warnings"]) + "\n")
    write_atomically(directory / files.CARD, "\n".join(sections))


def _front_matter(manifest: dict[str, Any]) -> str:
    """Return the YAML at the head of a Hugging Face dataset card."""
    return f"""---
language:
- en
license: other
pretty_name: Tool calls of coding-agent sessions ({manifest["recipe"]})
task_categories:
- text-generation
tags:
- tool-calling
- function-calling
- agents
size_categories:
- {_size_category(manifest["train"]["rows"])}
configs:
- config_name: default
  default: true
  data_files:
  - split: train
    path: {files.TRAIN_PARQUET}
  - split: validation
    path: {files.VALID_PARQUET}
- config_name: encoded
  data_files:
  - split: train
    path: {files.ENCODED_TRAIN}
  - split: validation
    path: {files.ENCODED_VALID}
---
"""


def _figures_section(manifest: dict[str, Any]) -> str:
    train, valid = manifest["train"], manifest["valid"]
    return f"""# Tool calls of coding-agent sessions

Recipe `{manifest["recipe"]}`, seed {manifest["seed"]}, freeze number {manifest["freeze_number"]}, tokenizer and template of
`{manifest["base"]}`. Rows are chat messages with the tools on offer; `arguments` and `tools` are JSON strings. Only turns
marked `supervised` are trained on. Texts were redacted before they were stored. The sessions are the user's own: ask
before you publish them.

## Figures

| | train | validation |
|---|---:|---:|
""" + "".join(
        f"| {name.replace('_', ' ')} | {train[name]} | {valid[name]} |\n"
        for name in (
            "rows", "families", "tokens", "supervised_tokens", "supervised_turns", "supervised_turns_with_calls",
            "text_after_tool_ratio", "largest_category", "largest_category_ratio", "repeated_rows",
            "rows_where_more_than_one_tool_fits_ratio",
        )
    )  # fmt: skip


def _splits_section(manifest: dict[str, Any]) -> str:
    splits, decontamination = manifest["splits"], manifest["decontamination"]
    return (
        "## Splits and decontamination\n\n"
        f"Split by session family with a stable hash; {splits['families']} families, "
        f"{splits['validation_family_ratio']:.1%} in validation. Training rows that share a typed 13-gram "
        f"or the whole prompt with suite version {decontamination['suite_version']}: "
        f"{decontamination['training_rows_sharing_a_prompt'] or 'none'} (removed). Near-duplicates of validation rows "
        f"removed: {decontamination['near_duplicates_removed']}.\n"
    )

"""Gates of `gguf_q6k`."""

from __future__ import annotations

import json
from typing import Any

from toolcall_pipeline.artifacts import sha256_file
from toolcall_pipeline.export.quantise import FILE_TYPES, file_type_of
from toolcall_pipeline.export.stage import EARLIER_NAME, PARITY_NAME, QUANTISATION_NAME, SHIPPED, gguf_file
from toolcall_pipeline.gates.model_equivalence import equivalence_verdict, judge_validator, load
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.statistics import mcnemar_exact
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult
from toolcall_pipeline.training.gguf_header import read_gguf_header
from toolcall_pipeline.training.merge import EQUIVALENCE_NAME

_ASSET = "gguf_q6k"
_SHOWN = 20


def judge_quant_equivalence(context: GateContext) -> GateResult:
    """Compare the file that ships with the merged model it was made from."""
    data = load(context, EQUIVALENCE_NAME)
    header = read_gguf_header(gguf_file(context.artifact))
    is_shipped_kind = file_type_of(header) == FILE_TYPES[SHIPPED]
    return equivalence_verdict(
        context,
        data[f"merged_vs_{SHIPPED}"],
        what=f"Merged model against {SHIPPED}",
        how_to_fix=(
            "Compare with merged_vs_F16 in equivalence.json: where F16 differs as well, the conversion is at fault "
            "(llama.cpp and transformers disagree on this architecture); otherwise the quantisation loses too much."
        ),
        details={
            "merged_vs_F16": {name: value for name, value in data["merged_vs_F16"].items() if name != "same_top"},
            "bits_per_weight": round(header.bits_per_weight, 3),
            "is_q6_k": is_shipped_kind,
            "ladder": ladder_table(
                data, json.loads(context.artifact.path(QUANTISATION_NAME).read_text("utf-8"))["ladder"]
            ),
        },
        also=is_shipped_kind,
    )


def ladder_table(equivalence: dict[str, Any], rungs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every quantisation beside the one that ships, paired over the same positions.

    Returns:
        One object a rung: its size and distances from the merged model, at how many positions it keeps the merged model's
        token where the shipped one does not and the other way round, and the exact McNemar p-value of that.
    """
    shipped = equivalence[f"merged_vs_{SHIPPED}"]["same_top"]
    table = []
    for rung in rungs:
        other = equivalence[f"merged_vs_{rung['quantisation']}"]["same_top"]
        pairs = [
            (str(row), int(theirs) - int(ours))
            for row, (mine, its) in enumerate(zip(shipped, other, strict=True))
            for ours, theirs in zip(mine, its, strict=True)
        ]
        differences = [difference for _, difference in pairs]
        table.append(
            {
                name: rung[name]
                for name in ("quantisation", "bits_per_weight", "size_bytes", "same_top_ratio", "mean_kl")
            }
            | {
                "better_than_shipped": differences.count(1),
                "worse_than_shipped": differences.count(-1),
                "p_value": round(mcnemar_exact(pairs), 6),
            }
        )
    return table


def judge_template_parity(context: GateContext) -> GateResult:
    """Count the prompts whose rendered bytes or token ids differ between this file and its training."""
    report = load(context, PARITY_NAME)
    violations = sum(
        int(report[name]) for name in ("bytes_differ_count", "tokens_differ_count", "refused_count")
    ) + int(not report["template_equal"])
    return exact_verdict(
        context.rule,
        measured=violations,
        n=int(report["prompts_count"]),
        explanation=(
            f"The template string is {'' if report['template_equal'] else 'not '}the one that trained; of "
            f"{report['prompts_count']} prompts llama.cpp's own engine renders {report['bytes_differ_count']} and tokenizes "
            f"{report['tokens_differ_count']} differently, and refuses {report['refused_count']}."
        ),
        how_to_fix=(
            "template_parity.json names the first prompts that differ and where. Write the chat template so that both "
            "engines render it alike (dataset/chat_templates), build the dataset again and train again."
        ),
        details={"examples": report["examples"][:_SHOWN], "template_sha256": report["template_sha256"]},
        also=int(report["prompts_count"]) > 0,
    )


def judge_earlier_untouched(context: GateContext) -> GateResult:
    """Count the earlier exports whose bytes are no longer what they were when this one began.

    One that is gone altogether was pruned, which is allowed; one whose folder is there without its file was not.
    """
    problems: list[dict[str, Any]] = []
    earlier: Any = load(context, EARLIER_NAME)
    for entry in earlier:
        path = context.store.root / entry["file"]
        if not path.parent.exists():
            continue
        found = sha256_file(path) if path.is_file() else "missing"
        if not found == entry["found_sha256"] == entry["recorded_sha256"]:
            problems.append({"file": entry["file"], "expected": entry["recorded_sha256"], "found": found})
    return exact_verdict(
        context.rule,
        measured=len(problems),
        n=len(earlier),
        explanation=f"{len(earlier) - len(problems)} of {len(earlier)} earlier files are what they were.",
        how_to_fix="An earlier export was changed or lost a file: put it back from a backup, or delete its folder.",
        details={"changed": problems[:_SHOWN]},
    )


GATES = (
    Gate(
        "quant_equivalence",
        _ASSET,
        "Protects from shipping a file of other weights, or one that lost too much.",
        judge_quant_equivalence,
    ),
    Gate(
        "template_parity",
        _ASSET,
        "Protects from serving a prompt the model never saw: a template off by one byte.",
        judge_template_parity,
    ),
    Gate("validator_gguf", _ASSET, "Protects from shipping what cannot make a valid call.", judge_validator),
    Gate("earlier_untouched", _ASSET, "Protects the files that already ship.", judge_earlier_untouched),
)

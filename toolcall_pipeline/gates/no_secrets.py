"""The gate `no_secrets`: an independent scanner looks at what was stored, and at what is trained on.

`NO_SECRETS_LINKED` and `NO_SECRETS_DATASET` are listed by the assets' own gate modules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.dataset.drafts import strings_in
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult
from toolcall_pipeline.redaction.baseline import Baseline, load_baseline
from toolcall_pipeline.redaction.independent_scan import ScanReport, scan
from toolcall_pipeline.redaction.placeholders import count_placeholders

if TYPE_CHECKING:
    from toolcall_pipeline.artifacts import Artifact
    from toolcall_pipeline.gates.profiles import GateRule

_SHOWN = 20
_CHAT_SUFFIX = ".chat.jsonl"
_HOW_TO_FIX = (
    "Look at each finding: `toolcall-pipeline secrets list PARTITION`. A true secret: revoke it, add a rule to "
    "redaction/rules (or the string to redaction.toml), roll the run back and load it again. A false alarm: "
    "`toolcall-pipeline secrets accept PARTITION HASH --reason TEXT`, then judge the gate again."
)


def judge_no_secrets(
    rule: GateRule,
    report: ScanReport,
    *,
    supervised_placeholders: int = 0,
    what: str = "stored texts",
    may_be_empty: bool = True,
) -> GateResult:
    """Return the verdict of a scan: nothing outside the baseline, no placeholder a model would be taught to write.

    Args:
        rule: The rule in force: 0 findings.
        report: What the independent scan found.
        supervised_placeholders: Placeholders inside arguments the model is trained to write.
        what: What was scanned, for the explanation.
        may_be_empty: Whether a scan of no text at all passes, as of a night with nothing new.
    """
    found = report.new_count + supervised_placeholders
    explanation = (
        f"{report.new_count} findings outside the reviewed baseline in {report.texts_count} {what} "
        f"({report.characters_count} characters); {report.known_count} accepted ones."
    )
    if supervised_placeholders:
        explanation += f" {supervised_placeholders} placeholders stand in arguments that are trained on."
    return exact_verdict(
        rule,
        measured=found,
        n=report.texts_count,
        explanation=explanation,
        how_to_fix=_HOW_TO_FIX,
        details={
            "findings_by_detector": [{"detector": name, "count": n} for name, n in sorted(report.by_detector.items())],
            "findings": [asdict(finding) for finding in report.findings[:_SHOWN]],
            "supervised_placeholders": supervised_placeholders,
        },
        also=may_be_empty or report.texts_count > 0,
    )


def _baseline_of(context: GateContext) -> Baseline:
    # The artifacts' root is `<home>/artifacts`: the baseline that counts is the one of the same installation.
    from toolcall_pipeline.settings import Settings

    return load_baseline(Settings(home=context.store.root.parent))


def _judge_linked(context: GateContext) -> GateResult:
    from toolcall_pipeline.store.stored_texts import iter_run_texts

    report = scan(iter_run_texts(context.engine, context.partition), _baseline_of(context))
    return judge_no_secrets(context.rule, report)


def _judge_dataset(context: GateContext) -> GateResult:
    placeholders = [0]
    report = scan(iter_dataset_texts(context.artifact, placeholders), _baseline_of(context))
    return judge_no_secrets(
        context.rule,
        report,
        supervised_placeholders=placeholders[0],
        what="texts of training and validation rows",
        may_be_empty=False,
    )


def iter_dataset_texts(artifact: Artifact, supervised_placeholders: list[int]) -> Iterator[tuple[str, str, str]]:
    """Give (file and field, row, text) of every string of a dataset's rows.

    Args:
        artifact: A finished `v2_chat_dataset`.
        supervised_placeholders: Its one element is raised by every placeholder in a supervised call's arguments.
    """
    for name in sorted(artifact.manifest.files):
        if not name.endswith(_CHAT_SUFFIX):
            continue
        with artifact.path(name).open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                for field, text in _row_texts(json.loads(line), supervised_placeholders):
                    yield f"{name} {field}", f"line {number}", text


def _row_texts(row: dict[str, Any], supervised_placeholders: list[int]) -> Iterator[tuple[str, str]]:
    yield "tools", row["tools"]
    for message in row["messages"]:
        yield f"{message['role']} content", message["content"]
        for call in message["tool_calls"]:
            # Inside a JSON string a secret's quotes and line ends are escaped: it is read as the model writes it.
            arguments = call["arguments"]
            if message["supervised"]:
                supervised_placeholders[0] += count_placeholders(arguments)
            for value in strings_in(json.loads(arguments), keys=True):
                yield "arguments", value
    for field, value in row["meta"].items():
        if isinstance(value, str):
            yield f"meta {field}", value


NO_SECRETS_LINKED = Gate(
    "no_secrets",
    "linked_tool_calls",
    "An independent scanner finds nothing outside the reviewed baseline in what the run stored.",
    _judge_linked,
)
NO_SECRETS_DATASET = Gate(
    "no_secrets",
    "v2_chat_dataset",
    "An independent scanner finds nothing new in the rows, and no supervised argument holds a placeholder.",
    _judge_dataset,
)

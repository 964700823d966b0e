"""Gates of `v2_chat_dataset`: each reads the artifact's own files again, and believes no figure of its manifest.

`split_disjoint` and `decontaminated` stand in `dataset_leaks.py`, `no_secrets` in `no_secrets.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.masks import IGNORED, EncodedRow, prove_row
from toolcall_pipeline.dataset.rows import Row, template_messages
from toolcall_pipeline.dataset.schemas import CallChecker, is_valid_schema
from toolcall_pipeline.dataset.shares import TEXT, TEXT_AFTER_TOOL, supervised_categories
from toolcall_pipeline.dataset.templates import ChatTemplate, TrainingTemplate, training_template
from toolcall_pipeline.dataset.writing import read_encoded, read_lines
from toolcall_pipeline.errors import DatasetError
from toolcall_pipeline.gates.dataset_leaks import LEAK_GATES
from toolcall_pipeline.gates.dataset_rows import BUILD_AGAIN, NO_ROWS, NO_SUITE, SHOWN, rows_of, rows_of_both_sides
from toolcall_pipeline.gates.no_secrets import NO_SECRETS_DATASET
from toolcall_pipeline.gates.rates import exact_verdict
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from toolcall_pipeline.artifacts import Artifact

ASSET = "v2_chat_dataset"
PARITY_ROWS = 500


def _numbered(artifact: Artifact) -> Iterator[tuple[str, Row | None]]:
    """Yield (file and line, row) of both sides; the row is None where the line is none."""
    for name in (files.TRAIN_CHAT, files.VALID_CHAT):
        for number, row in read_lines(artifact.path(name)):
            yield f"{name}:{number}", row


def _with_tokens(artifact: Artifact) -> Iterator[tuple[str, Row | None, EncodedRow | None]]:
    """Yield (file and line, row, its tokens) of both sides; None where one of the two is not there."""
    for chat, encoded in ((files.TRAIN_CHAT, files.ENCODED_TRAIN), (files.VALID_CHAT, files.ENCODED_VALID)):
        lines, tokens = read_lines(artifact.path(chat)), read_encoded(artifact.path(encoded))
        for number, (line, encoding) in enumerate(zip_longest(lines, tokens), 1):
            yield f"{chat}:{number}", line[1] if line else None, encoding


def judge_min_examples(context: GateContext) -> GateResult:
    """Count supervised calls of distinct training rows."""
    calls: set[str] = set()
    unnamed = rows = 0
    for row in rows_of(context.artifact):
        rows += 1
        for message in row.messages:
            if message.supervised:
                calls.update(call.event_id for call in message.tool_calls if call.event_id)
                unnamed += sum(call.event_id is None for call in message.tool_calls)
    return exact_verdict(
        context.rule,
        measured=len(calls) + unnamed,
        n=rows,
        explanation=f"{len(calls) + unnamed} distinct supervised calls in {rows} training rows.",
        how_to_fix="Backfill more sessions, or look at the drop reasons in the dataset card: what was left out, and why?",
    )


def judge_synthetic_share(context: GateContext) -> GateResult:
    """Measure the share of training rows that come from generated or sample sessions."""
    counts = Counter(row.meta.synthetic for row in rows_of(context.artifact))
    total = sum(counts.values())
    return exact_verdict(
        context.rule,
        measured=counts[True] / total if total else float("nan"),
        n=total,
        explanation=f"{counts[True]} of {total} training rows are synthetic.",
        how_to_fix="Leave generated sessions out of the sessions folder; sample runs never ship.",
    )


def judge_no_empty_arguments(context: GateContext) -> GateResult:
    """Check every call of every row against its schema, and every schema itself."""
    problems: Counter[str] = Counter()
    places = []
    rows = calls = 0
    checkers: dict[str, CallChecker] = {}
    for place, row in _numbered(context.artifact):
        rows += 1
        if row is None:
            problems["cut_or_unreadable"] += 1
            places.append({"place": place, "tool": "", "problem": "cut_or_unreadable"})
            continue
        offered = {}
        for tool in row.tools:
            text = json.dumps(tool)
            if text not in checkers:
                checkers[text] = _checker(tool, problems)
            offered[tool["function"]["name"]] = checkers[text]
        for call in (call for message in row.messages for call in message.tool_calls):
            calls += 1
            checker = offered.get(call.name)
            problem = checker.problem(call.name, call.arguments) if checker else "unknown_tool"
            if problem:
                problems[problem] += 1
                places.append({"place": place, "tool": call.name, "problem": problem})
    wrong = sum(problems.values())
    return exact_verdict(
        context.rule,
        measured=wrong,
        n=calls,
        explanation=f"{wrong} of {calls} calls are cut, empty where their schema needs arguments, or do not fit it.",
        how_to_fix=BUILD_AGAIN if rows else NO_ROWS,
        details={"problems": dict(problems), "places": places[:SHOWN]},
        also=rows > 0,
    )


def _checker(tool: dict[str, Any], problems: Counter[str]) -> CallChecker:
    """Return a checker of one tool; a schema that is none is a problem, and offers nothing."""
    if is_valid_schema(tool["function"]["parameters"]):
        return CallChecker({tool["function"]["name"]: tool})
    problems["invalid_schema"] += 1
    return CallChecker({})


def _template(artifact: Artifact) -> TrainingTemplate:
    settings = json.loads(artifact.path(files.TEMPLATE_SETTINGS).read_bytes())
    tokens = (settings["bos_token"], settings["eos_token"])
    serving = ChatTemplate(artifact.path(files.CHAT_TEMPLATE).read_text("utf-8"), *tokens)
    training = ChatTemplate(artifact.path(files.TRAINING_TEMPLATE).read_text("utf-8"), *tokens)
    return TrainingTemplate(serving, training if settings["has_markers"] else None)


def judge_renders(context: GateContext) -> GateResult:
    """Render every row, compare it with what its tokens say, and look for a supervised one among them."""
    from tokenizers import Tokenizer

    template = _template(context.artifact)
    tokenizer = Tokenizer.from_file(str(context.artifact.path(files.TOKENIZER)))
    limit = context.configuration.dataset.max_row_tokens
    faults: Counter[str] = Counter()
    places = []
    count = 0
    for place, row, encoding in _with_tokens(context.artifact):
        count += 1
        found = _render_faults(template, row, encoding, limit, tokenizer)
        faults.update(found)
        if found:
            places.append({"place": place, "faults": ", ".join(found)})
    return exact_verdict(
        context.rule,
        measured=len(places),
        n=count,
        explanation=f"{len(places)} of {count} rows do not render, are too long, have other tokens than their text or no "
        "supervised one.",
        how_to_fix=BUILD_AGAIN if count else NO_ROWS,
        details={"faults": dict(faults), "places": places[:SHOWN]},
        also=count > 0,
    )


def _render_faults(
    template: TrainingTemplate, row: Row | None, encoding: EncodedRow | None, limit_tokens: int, tokenizer: Tokenizer
) -> list[str]:
    if row is None or encoding is None:
        return ["unreadable" if row is None else "no_tokens"]
    found = []
    try:
        text = template.serving.render(template_messages(row.messages), list(row.tools))
        if not _says(encoding, text, tokenizer):
            found.append("other_text")
    except DatasetError:
        found.append("does_not_render")
    if all(label == IGNORED for label in encoding.labels):
        found.append("no_supervised_token")
    if len(encoding.input_ids) > limit_tokens:
        found.append("too_long")
    if encoding.row_id != row.meta.row_id:
        found.append("other_row")
    return found


def _says(encoding: EncodedRow, text: str, tokenizer: Tokenizer) -> bool:
    """Return whether tokens decode to a text; what a prompt or a tool says trains nothing, but is trained upon."""
    from tokenizers.decoders import ByteLevel

    if not isinstance(tokenizer.decoder, ByteLevel):
        return True  # Others give spaces back that were never there.
    expected = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    return tokenizer.decode(encoding.input_ids, skip_special_tokens=False) == expected


def judge_mask_proof(context: GateContext) -> GateResult:
    """Decode the supervised spans of every row from its tokens alone and compare them with the turns marked."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(context.artifact.path(files.TOKENIZER)))
    places = []
    count = 0
    kinds: Counter[str] = Counter()
    for place, row, encoding in _with_tokens(context.artifact):
        count += 1
        if row is None or encoding is None:
            faults = ["unreadable" if row is None else "no tokens"]
        else:
            faults = prove_row(row, encoding.input_ids, encoding.labels, tokenizer)
        if faults:
            kinds.update(fault.split(": ", 1)[-1] for fault in faults)
            places.append({"place": place, "faults": "; ".join(faults[:4])})
    return exact_verdict(
        context.rule,
        measured=len(places),
        n=count,
        explanation=f"In {len(places)} of {count} rows the supervised tokens are not exactly the turns marked supervised.",
        how_to_fix="Train on no dataset that fails here. Recipe v2 fails by design (its end of turn is not supervised): "
        "use v3. Otherwise: " + BUILD_AGAIN
        if count
        else NO_ROWS,
        details={"kinds": dict(kinds.most_common(SHOWN)), "places": places[:SHOWN]},
        also=count > 0,
    )


def judge_template_parity_training(context: GateContext) -> GateResult:
    """Render suite prompts and rows with the training and the serving template, and each turn as serving would."""
    template = _template(context.artifact)
    faults: Counter[str] = Counter()
    places = []
    count = 0
    # Prompts do not reach every branch of a template: the text itself must be the one that the serving template gives.
    if training_template(template.serving).text != context.artifact.path(files.TRAINING_TEMPLATE).read_text("utf-8"):
        faults["training_template_text"] += 1
        places.append({"place": files.TRAINING_TEMPLATE})
    for case in context.artifact.path(files.PARITY_CASES).read_text("utf-8").splitlines():
        data = json.loads(case)
        count += 1
        if _differs(template, data["messages"], data["tools"], generation=True):
            faults["suite_prompt"] += 1
            places.append({"place": f"suite prompt {count}"})
    rows = 0
    for _, row in rows_of_both_sides(context.artifact):
        if rows == PARITY_ROWS:
            break
        rows += 1
        found = _row_parity(template, row)
        faults.update(found)
        if found:
            places.append({"place": row.meta.row_id, "faults": ", ".join(found)})
    return exact_verdict(
        context.rule,
        measured=sum(faults.values()),
        n=count + rows,
        explanation=f"{sum(faults.values())} differences between training and serving in the template's text, on {count} "
        f"suite prompts and {rows} rows.",
        how_to_fix=_mend_parity(faults, rows=rows, prompts=count),
        details={"faults": dict(faults), "places": places[:SHOWN]},
        also=rows > 0 and count > 0,
    )


def _mend_parity(faults: Counter[str], *, rows: int, prompts: int) -> str:
    if not faults and not rows:
        return NO_ROWS
    if not faults and not prompts:
        return NO_SUITE
    return "The training template drifted from the serving template: build it again with the base's own template."


def _differs(
    template: TrainingTemplate, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, generation: bool
) -> bool:
    training = template.marked or template.serving
    return training.render(messages, tools, generation) != template.serving.render(messages, tools, generation)


def _row_parity(template: TrainingTemplate, row: Row) -> list[str]:
    """Return what differs: the whole row, or what stands before a supervised turn against what serving would render."""
    messages, tools = template_messages(row.messages), list(row.tools)
    faults = ["row"] if _differs(template, messages, tools, generation=False) else []
    text, spans = template.render_spans(messages, tools)
    places = [index for index, message in enumerate(row.messages) if message.role == "assistant"]
    for index, span in zip(places, spans, strict=True):
        if not row.messages[index].supervised:
            continue
        prompt = template.serving.render(messages[:index], tools, add_generation_prompt=True)
        if span is None or text[: span[0]] != prompt:
            faults.append("turn_prompt")
        elif not text[: span[1]].endswith(template.serving.eos_token):
            faults.append("turn_end")
    return faults


def _category_counts(context: GateContext) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    for row in rows_of(context.artifact):
        counts.update(supervised_categories(row.messages))
    return counts, sum(counts.values())


def judge_category_cap(context: GateContext) -> GateResult:
    """Measure the largest share that one category of calls has of the supervised turns."""
    counts, total = _category_counts(context)
    calls = {name: count for name, count in counts.items() if name not in {TEXT, TEXT_AFTER_TOOL}}
    name = max(sorted(calls), key=lambda key: calls[key]) if calls else ""
    return exact_verdict(
        context.rule,
        measured=calls[name] / total if calls else float("nan"),
        n=total,
        explanation=f"The largest category, {name or 'none'}, has {calls.get(name, 0)} of {total} supervised turns.",
        how_to_fix="Use recipe v3, which meets the cap by leaving turns unsupervised; with very few tools in the "
        "sessions, backfill more varied ones.",
        details={"categories": dict(counts.most_common(SHOWN))},
    )


def judge_text_after_tool_share(context: GateContext) -> GateResult:
    """Measure the share of supervised turns that conclude in text after a tool result."""
    counts, total = _category_counts(context)
    return exact_verdict(
        context.rule,
        measured=counts[TEXT_AFTER_TOOL] / total if total else float("nan"),
        n=total,
        explanation=f"{counts[TEXT_AFTER_TOOL]} of {total} supervised turns are text after a tool result.",
        how_to_fix="Use recipe v3 and set dataset.text_after_tool_ratio between 0.15 and 0.30. Too few conclusions in the "
        "sessions themselves (interrupted ones have none) need more sessions.",
    )


GATES: tuple[Gate, ...] = (
    Gate("min_examples", ASSET, "Too few examples teach nothing reliable.", judge_min_examples),
    Gate("synthetic_share", ASSET, "Generated prompts made v1 loop on real ones.", judge_synthetic_share),
    Gate(
        "no_empty_arguments", ASSET, "Calls that do not fit their schema teach empty calls.", judge_no_empty_arguments
    ),
    Gate("renders", ASSET, "Rows without a supervised token turned v3's loss into NaN.", judge_renders),
    Gate(
        "mask_proof", ASSET, "A mask that leaves out the end of turn taught v2 and v5 never to stop.", judge_mask_proof
    ),
    Gate(
        "template_parity_training",
        ASSET,
        "A model trained on other bytes than it is served with is another model.",
        judge_template_parity_training,
    ),
    Gate("category_cap", ASSET, "One dominating tool is the answer to everything.", judge_category_cap),
    Gate(
        "text_after_tool_share",
        ASSET,
        "Without conclusions v2 looped; with too many v4 stopped after one call.",
        judge_text_after_tool_share,
    ),
    *LEAK_GATES,
    NO_SECRETS_DATASET,
)

"""Reading a completion: raw text in; calls, text and defects out (docs/reference/completions.md).

Nothing is repaired that serving would not repair. Spans are cut in `completion_spans.py`, schemas checked in
`tool_schemas.py`, repetition found in `repetition.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toolcall_pipeline.evaluation.cases import Defect, ParsedCall
from toolcall_pipeline.evaluation.completion_spans import CallBody, Span, cut_spans, read_json
from toolcall_pipeline.evaluation.repetition import periodic_tail, repetition_in, repetition_in_arguments
from toolcall_pipeline.evaluation.tool_schemas import schema_defects, tools_by_name
from toolcall_pipeline.evaluation.untagged_calls import role_words, untagged_call

DEFECT_KINDS: dict[str, str] = {
    "invalid_json": "what stands between the tags is not one JSON object with a name",
    "unknown_tool": "the tool is not on offer",
    "missing_argument": "a required argument is not there",
    "schema_violation": "an argument does not fit the tool's schema",
    "empty_arguments": "nothing is given where the schema requires something",
    "text_after_call": "anything but another call or the end of turn after a call",
    "argument_repetition": "an argument repeats itself",
    "text_repetition": "what is said repeats itself",
    "unclosed_call": "the closing tag never came",
    "token_limit": "the completion ran into the token limit",
    "untagged_call": "what looks like a call stands outside the tags, where serving reads it as text",
    "role_words": "a role word or a token of a chat template stands in what is said",
    "stray_tag": "a closing tag without an opening one",
    "several_in_one_tag": "a list, or several objects, between one pair of tags",
}
SHAPE_DEFECTS = frozenset(
    {
        "invalid_json",
        "text_after_call",
        "unclosed_call",
        "untagged_call",
        "role_words",
        "stray_tag",
        "several_in_one_tag",
    }
)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reading:
    """A completion, read; unpacks as `calls, text, defects`.

    Attributes:
        calls: In order.
        text: Every character that is in no call and no tag, thought included, without the space that only separates
            those; empty where there is nothing else.
        defects: Kinds of `DEFECT_KINDS`, in order of the completion.
        spans: The completion cut without gap or overlap.
    """

    calls: tuple[ParsedCall, ...]
    text: str
    defects: tuple[Defect, ...]
    spans: tuple[Span, ...]

    def __iter__(self) -> Iterator[Any]:
        """Yield calls, text, defects."""
        return iter((self.calls, self.text, self.defects))


def read_completion(raw: str, tools: Sequence[dict[str, Any]] | None, *, hit_token_limit: bool = False) -> Reading:
    """Read the calls, the text and the defects of a raw completion.

    Args:
        raw: What the model wrote, special tokens included where the backend shows them.
        tools: Tools on offer; None where they are not known, and no call is held against a schema.
        hit_token_limit: Generation was cut at the limit.

    Returns:
        The reading. Never raises, whatever the text.
    """
    spans = cut_spans(raw)
    schemas = tools_by_name(tools) if tools is not None else None
    calls: list[ParsedCall] = []
    defects: list[Defect] = []
    texts: list[str] = []
    spoken: list[str] = []
    is_after_call = False
    for span in spans:
        piece = raw[span.start : span.end]
        if span.kind == "call" and span.body is not None:
            is_after_call = True
            _read_body(piece, span.body, schemas, calls, defects)
        elif span.kind in ("text", "think"):
            # Space between calls and tags separates them; it is no text.
            texts.append(piece if piece.strip() or len(spans) == 1 else "")
            spoken.append(piece if span.kind == "text" else "")
            if is_after_call and piece.strip():
                defects.append(Defect(kind="text_after_call", detail=f"{len(piece.strip())} characters"))
        elif span.is_stray:
            defects.append(Defect(kind="stray_tag", detail="</tool_call> without <tool_call>"))
    text = "".join(texts)
    said = "".join(spoken)
    called, role = untagged_call(said, schemas), role_words(said)
    if called:
        defects.append(Defect(kind="untagged_call", detail=f"{called[:80]!r} outside the tags"))
    elif role and not any(defect.kind == "text_after_call" for defect in defects):
        defects.append(Defect(kind="role_words", detail=f"{role!r} in what is said"))
    repeated = repetition_in(said)
    if repeated:
        defects.append(Defect(kind="text_repetition", detail=repeated))
    if hit_token_limit:
        defects.append(Defect(kind="token_limit", detail="no end of turn before the limit"))
    return Reading(tuple(calls), text if text.strip() else "", tuple(defects), tuple(spans))


def visible_text(text: str) -> str:
    """Return a reading's text without thought, stripped: what a person is shown."""
    return "".join(text[span.start : span.end] for span in cut_spans(text) if span.kind != "think").strip()


def parse_completions(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read a stream of completions (command `parse-completion`).

    Args:
        lines: Either JSON lines `{"id", "text", "tools"}` (`tools` may be left out), or one raw completion: whatever
            does not begin with an object that has `id` and `text`, or a text under `text`, is taken whole as raw text.

    Yields:
        `{"id", "calls", "text", "defects"}`, one per completion; a line that is no such object yields
        `{"id", "error"}` and does not stop the stream.
    """
    iterator = iter(lines)
    head: list[str] = []
    for line in iterator:
        head.append(line)
        if line.strip():
            break
    first = _object(head[-1]) if head else {}
    if not isinstance(first.get("text"), str) and not {"id", "text"} <= set(first):
        yield _answer(None, "".join((*head, *iterator)), None)
        return
    for number, line in enumerate((*head, *iterator), 1):
        if line.strip():
            yield _answer_line(line, number)


def _answer_line(line: str, number: int) -> dict[str, Any]:
    request = _object(line)
    text, tools = request.get("text"), request.get("tools")
    wrong = None
    if not request:
        wrong = "no JSON object"
    elif not isinstance(text, str):
        wrong = "no text under text"
    elif tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        wrong = "under tools something else than a list of tools"
    if wrong is None:
        return _answer(request.get("id"), str(text), tools)
    expected = 'Expected {"id": "...", "text": "raw completion", "tools": [...]}; tools may be left out.'
    return {"id": request.get("id"), "error": f"Line {number} has {wrong}. {expected}"}


def _object(line: str) -> dict[str, Any]:
    """Return the JSON object of a line; an empty one where it holds none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _answer(identity: Any, raw: str, tools: list[dict[str, Any]] | None) -> dict[str, Any]:
    calls, text, defects = read_completion(raw, tools)
    return {
        "id": _clean(identity),
        "calls": [call.model_dump() for call in calls],
        "text": _clean(text),
        "defects": [defect.model_dump() for defect in defects],
    }


def _read_body(
    piece: str,
    body: CallBody,
    schemas: dict[str, dict[str, Any]] | None,
    calls: list[ParsedCall],
    defects: list[Defect],
) -> None:
    if body.problem is not None:
        defects.append(Defect(kind="invalid_json", detail=body.problem))
    found, problem = _calls_of(body.values)
    if problem == "several":
        defects.append(Defect(kind="several_in_one_tag", detail=f"{len(found)} calls between one pair of tags"))
    elif problem:
        defects.append(Defect(kind="invalid_json", detail=problem))
    for call in found:
        index = len(calls)
        calls.append(call)
        if schemas is not None:
            defects.extend(schema_defects(call.name, call.arguments, schemas, call_index=index))
        repeated = repetition_in_arguments(call.arguments)
        if repeated:
            defects.append(Defect(kind="argument_repetition", detail=repeated, call_index=index))
    if not found:
        unescaped = piece.replace("\\n", "\n")
        repeated = repetition_in(unescaped) or (None if body.closed else periodic_tail(unescaped))
        if repeated:
            defects.append(Defect(kind="argument_repetition", detail=repeated))
    if not body.closed:
        defects.append(Defect(kind="unclosed_call", detail="</tool_call> is missing"))


def _calls_of(values: tuple[Any, ...]) -> tuple[list[ParsedCall], str | None]:
    """Return the calls in what stood between two tags, and what is wrong with its form."""
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    calls = [_call_of(item) for item in items]
    good = [call for call in calls if call is not None]
    if values and (not items or len(good) < len(items)):
        return good, "no object with a name"
    is_plain = len(values) == 1 and not isinstance(values[0], list)
    return good, None if is_plain or not values else "several"


def _call_of(item: Any) -> ParsedCall | None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"].strip():
        return None
    arguments = item.get("arguments")
    if isinstance(arguments, str):
        decoded = read_json(arguments.strip(), 0)
        if not isinstance(decoded, str) and isinstance(decoded[0], dict) and decoded[1] == len(arguments.strip()):
            arguments = decoded[0]
    return ParsedCall(name=_clean(item["name"]), arguments=_clean({} if arguments is None else arguments))


def _clean(value: Any) -> Any:
    """Return a JSON value without lone surrogates, which no UTF-8 file can hold."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value

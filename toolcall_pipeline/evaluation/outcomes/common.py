"""What every suite measures of a completion, and how values of calls are compared."""

from __future__ import annotations

import posixpath
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolcall_pipeline.evaluation.cases import Case, ParsedCall, Turn
from toolcall_pipeline.evaluation.completions import SHAPE_DEFECTS, visible_text
from toolcall_pipeline.evaluation.grounding import count_grounded, names_in_answer, names_in_call

Measures = dict[str, float | int | bool | None]


@dataclass(frozen=True, slots=True)
class Scored:
    """A scorer's word: the outcome, whether it counts, and what gates count."""

    outcome: str
    passed: bool
    measures: Measures = field(default_factory=dict)


def base_measures(case: Case, turns: Sequence[Turn], known_paths: Sequence[str] = ()) -> Measures:
    """Return the measures every suite shares; `docs/reference/suites.md` lists them."""
    defects = [defect for turn in turns for defect in turn.defects]
    in_calls, in_answers = grounded(case, turns, known_paths)
    return {
        "completions": len(turns),
        "calls": sum(len(turn.calls) for turn in turns),
        "empty_arguments": sum(defect.kind == "empty_arguments" for defect in defects),
        "shape_defects": sum(any(defect.kind in SHAPE_DEFECTS for defect in turn.defects) for turn in turns),
        "repetition_defects": sum(defect.kind in ("argument_repetition", "text_repetition") for defect in defects),
        "token_limit_hits": sum(turn.hit_token_limit for turn in turns),
        "grounded_found": in_calls[0] + in_answers[0],
        "grounded_total": in_calls[1] + in_answers[1],
        "grounded_in_calls_found": in_calls[0],
        "grounded_in_calls_total": in_calls[1],
        "prompt_tokens": sum(turn.prompt_tokens for turn in turns),
        "completion_tokens": sum(turn.completion_tokens for turn in turns),
    }


def grounded(case: Case, turns: Sequence[Turn], known_paths: Sequence[str]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return how many names exist in what the model had been shown, and how many there are: in calls, in answers.

    What the session itself named exists too: it had seen more than the case shows. An answer may speak of the tools;
    a path that only their schemas know (`file_path`, `string`) is none.
    """
    context = "\n".join((context_text(case), _texts(case.expected.get("calls")), str(case.expected.get("text") or "")))
    tools = "\n".join(map(_texts, case.tools))
    in_calls, in_answers = Counter[str](), Counter[str]()
    for turn in turns:
        for index, call in enumerate(turn.calls):
            found, total = count_grounded(names_in_call(call), context, known_paths)
            in_calls.update(found=found, total=total)
            # What the model itself wrote into a file exists from then on.
            context += "\n" + _argument_text(call)
            if index < len(turn.tool_results):
                context += "\n" + turn.tool_results[index]
        found, total = count_grounded(names_in_answer(visible_text(turn.text)), f"{context}\n{tools}", known_paths)
        in_answers.update(found=found, total=total)
    return (in_calls["found"], in_calls["total"]), (in_answers["found"], in_answers["total"])


def context_text(case: Case) -> str:
    """Return the conversation a case shows the model before its first turn, calls included."""
    parts: list[str] = []
    for message in case.messages:
        parts.append(str(message.get("content") or ""))
        for call in message.get("tool_calls") or ():
            parts.append(_texts(call.get("function", {}).get("arguments")))
    return "\n".join(parts)


def calls_since_prompt(case: Case) -> list[ParsedCall]:
    """Return the calls made in a case's messages since the last prompt, in order."""
    first = max((index for index, message in enumerate(case.messages) if message["role"] == "user"), default=0)
    return [
        ParsedCall(name=call["function"]["name"], arguments=call["function"]["arguments"])
        for message in case.messages[first:]
        for call in message.get("tool_calls") or ()
    ]


def expected_calls(case: Case) -> list[ParsedCall]:
    """Return the calls a case expects, in order."""
    return [ParsedCall(name=call["name"], arguments=call["arguments"]) for call in case.expected.get("calls") or ()]


def has_defect(turn: Turn, *kinds: str) -> bool:
    """Return whether a completion has a defect of one of these kinds."""
    return any(defect.kind in kinds for defect in turn.defects)


def attempted_call(turn: Turn) -> bool:
    """Return whether the model tried to call, well or badly."""
    return bool(turn.calls) or has_defect(turn, "invalid_json", "unclosed_call", "untagged_call", "stray_tag")


def never_ends(turn: Turn) -> bool:
    """Return whether a completion ran into the token limit, or says the same over and over: it has not learnt to end."""
    return turn.hit_token_limit or has_defect(turn, "token_limit", "text_repetition")


def are_values_equal(name: str, ours: Any, theirs: Any) -> bool:
    """Return whether two argument values mean the same: paths as paths, commands as shell words, texts by words."""
    if isinstance(ours, str) and isinstance(theirs, str):
        if ours == theirs:
            return True
        if name.endswith(("path", "file", "filename", "dir", "directory")):
            return _is_same_path(ours, theirs)
        if name in ("command", "cmd", "script"):
            return _shell_words(ours) == _shell_words(theirs)
        return ours.split() == theirs.split()
    return bool(ours == theirs)


def matching_value_ratio(call: ParsedCall, gold: ParsedCall) -> float:
    """Return the share of the expected call's values that the call has too, 0 to 1 (1 where none are expected)."""
    if not isinstance(gold.arguments, dict) or not isinstance(call.arguments, dict):
        return float(call.arguments == gold.arguments)
    if not gold.arguments:
        return 1.0
    equal = sum(
        name in call.arguments and are_values_equal(name, call.arguments[name], value)
        for name, value in gold.arguments.items()
    )
    return equal / len(gold.arguments)


def _is_same_path(ours: str, theirs: str) -> bool:
    left, right = (posixpath.normpath(path.strip().replace("\\", "/")) for path in (ours, theirs))
    if left == right:
        return True
    # One relative, one absolute: the same file where the relative one is the end of the other.
    short, long = sorted((left, right), key=len)
    return not short.startswith(("/", "..")) and short != "." and long.endswith("/" + short)


def _shell_words(command: str) -> list[str]:
    try:
        return shlex.split(command, comments=True)
    except ValueError:
        return command.split()


def _argument_text(call: ParsedCall) -> str:
    return _texts(call.arguments)


def _texts(value: Any) -> str:
    from toolcall_pipeline.evaluation.repetition import iterate_texts

    return "\n".join(iterate_texts(value))

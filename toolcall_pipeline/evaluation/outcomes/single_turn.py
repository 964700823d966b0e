"""Suite D (and BFCL): one ask, the right number of well-formed calls of a fitting tool, or none where none is needed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any
from urllib.parse import unquote

from toolcall_pipeline.evaluation.cases import Case, ParsedCall, Turn
from toolcall_pipeline.evaluation.completions import visible_text
from toolcall_pipeline.evaluation.outcomes.common import (
    Scored,
    are_values_equal,
    attempted_call,
    expected_calls,
    matching_value_ratio,
)
from toolcall_pipeline.evaluation.repetition import iterate_texts

# The worst first: it names the outcome.
_BLOCKING = (
    "invalid_json",
    "unclosed_call",
    "stray_tag",
    "untagged_call",
    "role_words",
    "several_in_one_tag",
    "unknown_tool",
    "empty_arguments",
    "missing_argument",
    "schema_violation",
    "text_after_call",
    "argument_repetition",
    "text_repetition",
    "token_limit",
)
_WORD = re.compile(r"[^\W_]+")
# `-n20` gives 20, and `\bname\b` looks for name.
_OPTION = re.compile(r"(?<!\w)(-[A-Za-z])(?=\d)")
_PATTERN_SIGN = re.compile(r"\\[bdsw]", re.IGNORECASE)
# A few words of an ask may be all there is to say.
_MAX_ECHOED_WORDS = 3
# All that is asked without a tool can be answered by anyone.
_REFUSAL = re.compile(
    r"""(?:(?:I['\u2019]m |I am )?(?:very |so )?sorry\b[^.!?]{0,40}?)?"""
    r"""\bI(?: can(?:not|['\u2019]t| not)(?! (?:think|imagine|recommend|stress|overstate|wait|help but))"""
    r"""|(?: am|['\u2019]m) (?:not able|unable)| don['\u2019]t know| do not know)\b""",
    re.IGNORECASE,
)
# Tools that take a file type know some by another name than their extension.
_FILE_TYPES = {"md": "markdown", "py": "python", "rs": "rust", "ts": "typescript", "yml": "yaml"}


def score(case: Case, turn: Turn, labels: Mapping[tuple[str, str], bool]) -> Scored:
    """Return `pass`, the worst defect's kind, or the outcome.

    That is `wrong_tool`, `wrong_call_count`, `wrong_values` (what the ask names is not in the call, or in the place of
    something else), `call_not_asked`, `no_call` or `no_answer`.
    """
    del labels
    gold = expected_calls(case)
    outcome = _outcome(case, turn, len(gold))
    ratio = None
    if gold and turn.calls:
        ratio = max(matching_value_ratio(turn.calls[0], one) for one in gold)
    return Scored(
        outcome,
        outcome == "pass",
        {
            "parsed": _is_parsed(turn, bool(gold)),
            "wrong_action": outcome in ("wrong_tool", "unknown_tool", "call_not_asked"),
            "calls_asked": len(gold),
            "calls_used": len(turn.calls),
            "matching_value_ratio": ratio,
        },
    )


def _outcome(case: Case, turn: Turn, asked: int) -> str:
    if not asked:
        if attempted_call(turn):
            return "call_not_asked"
        said = visible_text(turn.text)
        return "no_answer" if _is_echo(case, said) or _REFUSAL.match(said) else "pass"
    kinds = {defect.kind for defect in turn.defects}
    worst = next((kind for kind in _BLOCKING if kind in kinds), None)
    if worst:
        return worst
    if not turn.calls:
        return "no_call"
    fitting = set(case.expected.get("tools") or ()) | {call.name for call in expected_calls(case)}
    if any(call.name not in fitting for call in turn.calls):
        return "wrong_tool"
    if len(turn.calls) != asked:
        return "wrong_call_count"
    if any(hands_the_ask_on(case, call) for call in turn.calls):
        return "wrong_values"
    return "pass" if _do_as_asked(turn.calls, expected_calls(case), case.expected.get("named")) else "wrong_values"


def hands_the_ask_on(case: Case, call: ParsedCall) -> bool:
    """Return whether an argument holds the whole ask, which names everything, where the right call's do not."""
    asked = _plain(str(case.messages[-1].get("content") or ""))
    if len(asked.split()) <= _MAX_ECHOED_WORDS:
        return False
    holds = [
        any(asked in _plain(text) for text in iterate_texts(one.arguments)) for one in (call, *expected_calls(case))
    ]
    return holds[0] and not any(holds[1:])


def _do_as_asked(
    calls: Sequence[ParsedCall], gold: Sequence[ParsedCall], named: Sequence[Sequence[str]] | None
) -> bool:
    """Return whether the calls, in some order, each hold what one of the asks names; where nothing is on record, yes."""
    if named is None:
        return True
    return any(
        all(_states(call, values) and not _is_swapped(call, one) for call, one, values in zip(order, gold, named))
        for order in permutations(calls)
    )


def _states(call: ParsedCall, named: Sequence[str]) -> bool:
    """Return whether a call's arguments hold every word of what an ask names, wherever and in whatever spelling."""
    words = _words(call.arguments)
    return all(word in words or _FILE_TYPES.get(word, word) in words for value in named for word in _words(value))


def _is_swapped(call: ParsedCall, gold: ParsedCall) -> bool:
    """Return whether one argument holds what another should: a flight from where it should go to."""
    if call.name != gold.name or not isinstance(call.arguments, dict) or not isinstance(gold.arguments, dict):
        return False
    return any(
        name in call.arguments
        and are_values_equal(name, call.arguments[name], gold.arguments[other])
        and not are_values_equal(name, call.arguments[name], gold.arguments[name])
        for name, other in permutations(gold.arguments, 2)
    )


def _words(value: Any) -> set[str]:
    """Return the words of a JSON value: case, accents, leading zeros, URL escapes and pattern signs make no other word."""
    pending, words = [value], set[str]()
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            pending.extend(item.values() if isinstance(item, dict) else item)
        elif isinstance(item, float) and item.is_integer():
            pending.append(int(item))
        else:
            letters = unicodedata.normalize("NFKD", unquote(str(item)))
            plain = "".join(letter for letter in letters if not unicodedata.combining(letter)).lower()
            for text in (plain, _OPTION.sub(r"\1 ", _PATTERN_SIGN.sub(" ", plain))):
                words.update(word.lstrip("0") or "0" for word in _WORD.findall(text))
    return words


def _is_echo(case: Case, text: str) -> bool:
    """Return whether a text says nothing that the ask did not say: nothing at all, or the ask or a part of it."""
    said, asked = _plain(text), _plain(str(case.messages[-1].get("content") or ""))
    return not said or (len(said.split()) > _MAX_ECHOED_WORDS and said in asked)


def _plain(text: str) -> str:
    """Return a text in lower case with single spaces and without the sign it ends in."""
    return " ".join(text.lower().split()).rstrip(".?!")


def _is_parsed(turn: Turn, is_call_asked: bool) -> bool:
    """Return whether a call could be read where one is asked, or none was tried where none is."""
    return bool(turn.calls) if is_call_asked else not attempted_call(turn)

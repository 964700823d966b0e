"""Ground truth of suite C: end state and answer, checked by code.

`expected["check"]` has `files` (path to what its text must contain, must not contain, or equal; null: must not
exist), `unchanged` (true: every other file as it was), and `answer` (groups of alternatives; one of each group must be
stated as a whole word).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolcall_pipeline.evaluation.cases import Case
from toolcall_pipeline.evaluation.facts import copies_result, states

_NUMBER_WORDS = (
    r"(?:zero|none|(?:are|is|found|has|have|contains?) no)",
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_IGNORED = re.compile(r"(^|/)(__pycache__|\.pytest_cache)(/|$)|\.pyc$")


def solved(case: Case, files: Mapping[str, str], answer: str, results: Sequence[str] = ()) -> bool:
    """Return whether the repository's end state and the answer are what the task asked for.

    Where an answer is asked for, what files and tool results say is none when it is handed on whole.

    Args:
        case: Of suite C.
        files: Of the repository as they are in the end, path to text.
        answer: The last text.
        results: What the tools had answered.
    """
    check: dict[str, Any] = case.expected["check"]
    wanted: dict[str, Any] = check.get("files") or {}
    if any(not _is_file_right(files.get(path), rule) for path, rule in wanted.items()):
        return False
    if check.get("unchanged", True) and not _is_rest_unchanged(case.expected["files"], files, wanted):
        return False
    groups = check.get("answer") or ()
    if groups and copies_result(answer, [*case.expected["files"].values(), *results]):
        return False
    return all(any(_states(answer, term) for term in group) for group in groups)


def _is_file_right(text: str | None, rule: dict[str, Any] | None) -> bool:
    if rule is None:
        return text is None
    if text is None:
        return False
    if "equals" in rule and text.strip() != str(rule["equals"]).strip():
        return False
    if any(part not in text for part in rule.get("contains") or ()):
        return False
    return not any(part in text for part in rule.get("excludes") or ())


def _is_rest_unchanged(before: Mapping[str, str], after: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    if any(after.get(path) != text for path, text in before.items() if path not in wanted):
        return False
    return all(path in before or path in wanted or _IGNORED.search(path) for path in after)


def _states(answer: str, term: str) -> bool:
    """Return whether an answer states a term as a whole word.

    Numbers also with thousands separators, and up to twelve in English words where the answer has no digit at all.
    """
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer)
    pattern = re.escape(term)
    if term.isdecimal() and int(term) < len(_NUMBER_WORDS) and not re.search(r"\d", plain):
        pattern = _NUMBER_WORDS[int(term)]
    return states(plain, rf"(?<![\w.-]){pattern}(?![\w-]|\.\w)")

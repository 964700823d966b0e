"""Suite E: does the model know the user's projects? An echo of the question earns nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from toolcall_pipeline.evaluation.cases import Case, Turn
from toolcall_pipeline.evaluation.completions import visible_text
from toolcall_pipeline.evaluation.facts import spaced, states
from toolcall_pipeline.evaluation.outcomes.common import Scored


def score(case: Case, turn: Turn, labels: Mapping[tuple[str, str], bool]) -> Scored:
    """Return pass (an answer of the key is stated), partial (a weaker one), or fail.

    Terms match as whole words and never inside others (a folder not as the first part of a longer path either); a term
    that the question itself contains does not count, and an answer that names more than one wrong candidate does not.
    """
    del labels
    text = visible_text(turn.text).lower()
    question = " ".join(str(message.get("content") or "") for message in case.messages).lower()
    end = r"(?![\w-]|/\w)" if case.stratum == "folder" else r"(?![\w-])"
    answers, partial, distractors = (case.expected.get(key) or () for key in ("answers", "partial", "distractors"))
    hedged = len(_stated(text, distractors, question, end)) > 1
    if not hedged and _stated(text, answers, question, end):
        return Scored("pass", True, {"partial": False})
    if _stated(text, [*partial, *answers], question, end):
        return Scored("partial", False, {"partial": True})
    return Scored("fail", False, {"partial": False})


def _stated(text: str, terms: Iterable[str], question: str, end: str) -> list[str]:
    found = []
    for term in terms:
        pattern = rf"(?<![\w-]){re.escape(term.lower())}{end}"
        if states(text, pattern) and not any(re.search(pattern, one) for one in (question, spaced(question))):
            found.append(term)
    return found

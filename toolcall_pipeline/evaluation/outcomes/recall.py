"""Suite E: does the model know the user's projects? An echo of the question earns nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from toolcall_pipeline.evaluation.cases import Case, Turn
from toolcall_pipeline.evaluation.completions import visible_text
from toolcall_pipeline.evaluation.outcomes.common import Scored


def score(case: Case, turn: Turn, labels: Mapping[tuple[str, str], bool]) -> Scored:
    """Return pass (an answer of the key is stated), partial (a weaker one), or fail.

    Terms match as whole words and never inside others; a term that the question itself contains does not count, and
    an answer that lists more wrong candidates than the key has answers does not either.
    """
    del labels
    text = visible_text(turn.text).lower()
    question = " ".join(str(message.get("content") or "") for message in case.messages).lower()
    hedged = len(_stated(text, case.expected.get("distractors") or (), question)) > 1
    if not hedged and _stated(text, case.expected.get("answers") or (), question):
        return Scored("pass", True, {"partial": False})
    if _stated(text, [*(case.expected.get("partial") or ()), *(case.expected.get("answers") or ())], question):
        return Scored("partial", False, {"partial": True})
    return Scored("fail", False, {"partial": False})


def _stated(text: str, terms: Iterable[str], question: str) -> list[str]:
    found = []
    for term in terms:
        pattern = rf"(?<![\w-]){re.escape(term.lower())}(?![\w-])"
        if re.search(pattern, text) and not re.search(pattern, question):
            found.append(term)
    return found

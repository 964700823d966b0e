"""Facts: what a conclusion must contain to have used a result."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"[\w][\w./:@#+-]*[\w]|\d+")
_COMMON = frozenset(
    [
        "the",
        "and",
        "for",
        "with",
        "this",
        "that",
        "from",
        "are",
        "was",
        "were",
        "has",
        "have",
        "not",
        "you",
        "your",
        "all",
        "can",
        "will",
        "its",
        "into",
        "but",
        "any",
        "each",
        "one",
        "two",
        "there",
        "here",
        "then",
        "than",
        "when",
        "which",
        "what",
        "line",
        "lines",
        "file",
        "files",
        "error",
        "errors",
        "result",
        "results",
        "output",
        "done",
        "true",
        "false",
        "none",
        "null",
        "test",
        "tests",
        "code",
        "name",
        "names",
        "value",
        "values",
        "function",
        "class",
        "import",
        "return",
        "content",
        "contents",
        "path",
        "paths",
        "tool",
        "tools",
        "use",
        "used",
        "using",
        "user",
        "users",
        "data",
        "list",
        "item",
        "items",
        "total",
        "number",
        "passed",
        "failed",
        "run",
        "running",
        "found",
        "using",
        "some",
        "more",
        "most",
    ]
)
MAX_FACTS = 24


def facts_of(results: Sequence[str], conclusion: str, shown_before: str) -> list[str]:
    """Return the distinctive words of tool results that a conclusion states and nobody had said before.

    Args:
        results: Tool results the conclusion can draw on.
        conclusion: What the session concluded.
        shown_before: Prompts, and the calls' own arguments: an echo of those is no use of a result.

    Returns:
        Lower-case tokens, numbers and names first, at most 24; empty where the conclusion states nothing of them.
    """
    known = set(_tokens(shown_before))
    in_results = {token for result in results for token in _tokens(result)}
    facts = [token for token in dict.fromkeys(_tokens(conclusion)) if token in in_results and token not in known]
    facts = [token for token in facts if token not in _COMMON and (len(token) > 3 or token.isdigit())]
    facts.sort(key=lambda token: (not any(char.isdigit() or char in "._/" for char in token), -len(token)))
    return facts[:MAX_FACTS]


def contains_fact(text: str, facts: Sequence[str]) -> bool:
    """Return whether a text states at least one fact as a whole word."""
    tokens = set(_tokens(text))
    return any(fact.lower() in tokens for fact in facts)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for match in _TOKEN.finditer(text.lower()):
        token = match.group().rstrip(".:")
        tokens.append(token)
        # `src/app.py:12` also states `src/app.py` and `12`.
        parts = [part for part in re.split(r"[:/=]", token) if part]
        if len(parts) > 1:
            tokens.extend(parts)
    return tokens

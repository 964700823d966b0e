"""Facts: what a conclusion must contain to have used a result."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from toolcall_pipeline.evaluation.repetition import MIN_4GRAMS

_TOKEN = re.compile(r"[\w][\w./:@#+-]*[\w]|\d+")
_WORD = re.compile(r"\w+")
_PARTS = re.compile(r"[:=]")
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Thai to Burmese, Khmer, kana, Han and Hangul: written without spaces, or with particles right behind a word."""
_SCRIPT_CHANGE = re.compile(rf"(?<=[{UNSPACED}])(?=[^\W{UNSPACED}]|[/~])|(?<=[^\W{UNSPACED}])(?=[{UNSPACED}])")
# With two words between at most, in the same clause; `not 1 but 2` says 2.
_DENIED = re.compile(
    r"""(?:\b(?:not|never|neither|nor|cannot)|n['\u2019]t)[ `"'*]+(?:(?!but\b)[\w/.'-]+[ `"'*]+){0,2}\Z""",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_COMMON = frozenset({
    "the", "and", "for", "with", "this", "that", "from", "are", "was", "were", "has", "have", "not", "you", "your",
    "all", "can", "will", "its", "into", "but", "any", "each", "one", "two", "there", "here", "then", "than",
    "when", "which", "what", "line", "lines", "file", "files", "error", "errors", "result", "results", "output",
    "done", "true", "false", "none", "null", "test", "tests", "code", "name", "names", "value", "values",
    "function", "class", "import", "return", "content", "contents", "path", "paths", "tool", "tools", "use", "used",
    "using", "user", "users", "data", "list", "item", "items", "total", "number", "passed", "failed", "run",
    "running", "found", "some", "more", "most",
})  # fmt: skip
MAX_FACTS = 24
# A word that more of all conclusions state than this is said by luck, and shows no use of a result.
_COMMON_RATIO = 0.02
# Of a conclusion's word 4-grams; in the shared sessions no conclusion takes more than half of them from results.
_COPIED_RATIO = 0.8
# Of its words, in whatever order, where it has that many: 0.94 at most of 2,831 conclusions of the shared sessions.
_SHUFFLED_RATIO = 0.95
_MIN_SHUFFLED_WORDS = 40


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
    facts = [token for token in facts if token not in _COMMON and len(token) > (1 if token.isdigit() else 3)]
    facts.sort(key=lambda token: (not any(char.isdigit() or char in "._/" for char in token), -len(token)))
    return facts[:MAX_FACTS]


def drop_common_facts(facts: Sequence[Sequence[str]], conclusions: Sequence[str]) -> list[list[str]]:
    """Return each case's facts without those that many other conclusions state too.

    Args:
        facts: Of each case, from `facts_of`.
        conclusions: What the sessions concluded, of these cases and any more there are.
    """
    stated = Counter(token for conclusion in conclusions for token in set(_tokens(conclusion)))
    most = max(1, int(_COMMON_RATIO * len(conclusions)))
    return [[fact for fact in own if stated[fact] <= most] for own in facts]


def contains_fact(text: str, facts: Sequence[str]) -> bool:
    """Return whether a text states at least one fact as a whole word, or as the end of a longer path."""
    tokens = set(_tokens(text))
    ends = {token[cut + 1 :] for token in tokens for cut, char in enumerate(token) if char == "/"}
    return any(fact.lower() in tokens | ends for fact in facts)


def uses_result(text: str, facts: Sequence[str], results: Sequence[str]) -> bool:
    """Return whether a conclusion states a fact in words of its own: a result that is handed on is not used.

    Lines of a result that stand in it whole do not count, except such of a single word (a number, a path): there is no
    other way to say those.
    """
    shown = {_plain_line(line) for result in results for line in result.splitlines()}
    own = (line for line in text.splitlines() if len(line.split()) == 1 or _plain_line(line) not in shown)
    return contains_fact("\n".join(own), facts) and not copies_result(text, results)


def states(text: str, pattern: str) -> bool:
    """Return whether a pattern stands in a text without a denial right before it: `it is not 8080` does not say 8080."""
    return any(
        not _DENIED.search(one, 0, match.start())
        for one in (text, spaced(text))
        for match in re.finditer(pattern, one, re.IGNORECASE)
    )


def spaced(text: str) -> str:
    """Return a text with a space where a script without spaces meets another: `端口是8080` states 8080."""
    return _SCRIPT_CHANGE.sub(" ", text)


def _plain_line(line: str) -> str:
    return line.strip("`*->•| \t")


def copies_result(text: str, results: Sequence[str]) -> bool:
    """Return whether a text is mostly made of tool results, however their lines are broken or their words put in order."""
    grams = _four_grams(text)
    if len(grams) >= MIN_4GRAMS and len(grams & set().union(*map(_four_grams, results))) >= _COPIED_RATIO * len(grams):
        return True
    words = _WORD.findall(text.lower())
    shown = {word for result in results for word in _WORD.findall(result.lower())}
    return len(words) >= _MIN_SHUFFLED_WORDS and sum(word in shown for word in words) >= _SHUFFLED_RATIO * len(words)


def _four_grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[index : index + 4]) for index in range(len(words) - 3)}


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    plain = _THOUSANDS.sub("", text.lower())
    for one in dict.fromkeys((plain, spaced(plain))):
        for match in _TOKEN.finditer(one):
            token = match.group().rstrip(".:")
            tokens.append(token)
            # `src/app.py:12` also states `src/app.py`, `12`, `src` and `app.py`.
            for part in _PARTS.split(token):
                tokens.extend(dict.fromkeys((part, *part.split("/"))))
    return [token for token in tokens if token]

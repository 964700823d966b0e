"""Whether what a model names exists: paths and identifiers in its arguments and answers, against context and sandbox.

v4 rewrote the user's paths to the prefix most of its rows had, and invented pull request numbers. Both are names that
nothing the model was shown contains.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import Any

from toolcall_pipeline.evaluation.cases import ParsedCall
from toolcall_pipeline.evaluation.facts import UNSPACED, spaced

_PATH = re.compile(
    r"(?<![\w/.:~-])(?:~?/|\.{1,2}/|[A-Za-z]:\\)?(?:[\w.@+-]+[/\\])+[\w.@+-]*|(?<![\w/.-])[\w-]+\.[A-Za-z]{1,5}\b"
)
_NUMBER_REFERENCE = re.compile(
    r"(?<!\w)#\d{2,7}\b|\b(?:gh\s+(?:pr|issue)\s+[a-z]+|PR|issue|pull request)\s+#?\d{1,7}\b", re.IGNORECASE
)
# Tickets and orders (ENT-241, A1042), and UUIDs.
_IDENTITY = re.compile(r"\b(?:[A-Z]{2,10}-\d{1,7}|[A-Z]{1,3}\d{3,8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
_HASH = re.compile(r"(?<![\w-])(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}(?![\w-])")
_BACKTICKED = re.compile(r"`([A-Za-z_][\w.:]{3,80})(\(\))?`")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_LINE = re.compile(r"(?::\d+)+$")
# What a word must have to be a name of code, and not `false` or `pytest`.
_CODE_NAME = re.compile(r"[_.:\d]|[a-z][A-Z]")
_FILE_EXTENSIONS = frozenset({
    "py", "pyi", "js", "ts", "tsx", "jsx", "json", "jsonl", "yaml", "yml", "toml", "md", "txt", "rst", "html",
    "css", "scss", "sh", "bash", "sql", "go", "rs", "java", "c", "h", "cpp", "hpp", "cs", "rb", "php", "ini", "cfg",
    "conf", "lock", "xml", "csv", "tsv", "log", "env", "swift", "kt", "vue", "svelte", "ipynb", "parquet", "gguf",
})  # fmt: skip
# What a call brings into being is not expected to exist yet.
_NEW_CONTENT_KEYS = frozenset(
    {"content", "new_string", "new_str", "file_text", "new_source", "edits", "description", "prompt", "todos", "patch"}
)
SEARCH_KEYS = frozenset({"pattern", "query", "regex"})
"""Arguments that hold what is looked for: it need not exist."""
_NOWHERE = frozenset({"", ".", "./", "..", "../", "/"})
_SYSTEM_PREFIXES = ("/dev/", "/tmp", "/usr/", "/etc/", "/bin/", "/proc/")


def names_in_call(call: ParsedCall) -> set[str]:
    """Return the paths and references a call's arguments name, without what the call writes anew or looks for."""
    names: set[str] = set()
    pending: list[tuple[str, Any]] = [("", call.arguments)]
    while pending:
        key, value = pending.pop()
        if key in _NEW_CONTENT_KEYS or key in SEARCH_KEYS:
            continue
        if isinstance(value, dict):
            pending.extend((str(inner), item) for inner, item in value.items())
        elif isinstance(value, list):
            pending.extend((key, item) for item in value)
        elif isinstance(value, str):
            names |= _names(value, is_path=key.endswith(("path", "file", "filename")) and "\n" not in value)
    return names


def names_in_answer(text: str) -> set[str]:
    """Return the paths, references and back-ticked identifiers an answer names."""
    code = (match for match in _BACKTICKED.finditer(text) if match[2] or _CODE_NAME.search(match[1]))
    return _names(text, is_path=False) | {_LINE.sub("", match[1]).rstrip(".:") for match in code}


def count_grounded(names: Iterable[str], context: str, known_paths: Iterable[str] = ()) -> tuple[int, int]:
    """Return how many names exist, and how many there are.

    Args:
        names: From `names_in_call` or `names_in_answer`.
        context: Everything the model had been shown before it named them.
        known_paths: Paths that exist in the sandbox, relative to its working folder.

    Returns:
        (found, total). A path exists where the context shows it, or all its parts, or the sandbox has it in a folder
        that was shown; a new file of a known name in a folder that exists counts as existing. `a.py:12` is `a.py`, and `module.name` exists where both are shown.
    """
    found = total = 0
    lowered = context.lower().replace("\\", "/")
    known = _with_folders(known_paths)
    for name in names:
        if name.startswith(_SYSTEM_PREFIXES):
            continue
        total += 1
        found += _exists(name, lowered, known)
    return found, total


def _with_folders(paths: Iterable[str]) -> set[str]:
    """Return paths in lower case, and every folder above one."""
    known: set[str] = set()
    for path in paths:
        low = path.lower()
        while low and low not in known:
            known.add(low)
            low = posixpath.dirname(low)
    return known


def _exists(name: str, lowered: str, known: set[str]) -> bool:
    low = posixpath.normpath(name.lower().replace("\\", "/"))
    if _is_shown(low, lowered) or _is_known(low, lowered, known):
        return True
    parts = [part for part in re.split(r"[.:]+", low) if part]
    if "/" not in low and len(parts) > 1 and parts[-1] not in _FILE_EXTENSIONS:
        return all(_is_shown(part, lowered) for part in parts)
    if any(_is_shown(folder, lowered) and _is_shown(rest, lowered) for folder, rest in _cuts(low)):
        # A shown folder, joined with a path shown relative to it.
        return True
    parent, base = posixpath.split(low)
    if parent not in ("", "/", ".") and (_is_shown(parent, lowered) or _is_known(parent, lowered, known)):
        return _is_new_name_plausible(base, lowered)
    return False


def _is_known(path: str, lowered: str, known: set[str]) -> bool:
    """Return whether the sandbox has a path or folder, relative or below a folder that was shown."""
    return path in known or any(rest in known and _is_shown(folder, lowered) for folder, rest in _cuts(path))


def _cuts(path: str) -> Iterator[tuple[str, str]]:
    """Yield a path cut in two at each of its slashes."""
    return ((path[:index], path[index + 1 :]) for index, char in enumerate(path) if char == "/" and index)


def _is_shown(name: str, lowered: str) -> bool:
    """Return whether a name stands in the context as a whole: not inside a longer word."""
    if not name:
        return False
    position = lowered.find(name)
    while position >= 0:
        end = position + len(name)
        before = lowered[position - 1] if position else " "
        after = lowered[end] if end < len(lowered) else " "
        starts = name.startswith(("/", "~", "#")) or not (_is_letter(before) or before in "_-")
        if starts and not (_is_letter(after) or after == "_"):
            return True
        position = lowered.find(name, position + 1)
    return False


def _is_letter(char: str) -> bool:
    """Return whether a character makes one word with a name beside it."""
    return char.isalnum() and not _UNSPACED.match(char)


def _is_new_name_plausible(base: str, lowered: str) -> bool:
    """Return whether a file name in a known folder is itself known, in whole or by its stem."""
    stem = base.rsplit(".", 1)[0]
    return bool(stem) and (_is_shown(base, lowered) or _is_shown(stem, lowered))


def _names(text: str, *, is_path: bool) -> set[str]:
    if is_path:
        return {text.strip()} if text.strip() not in _NOWHERE else set()
    text = spaced(text)
    names = {match.group().rstrip(".,:;") for match in _PATH.finditer(text) if _looks_like_path(match.group())}
    names |= {"#" + re.sub(r"\D", "", match.group()) for match in _NUMBER_REFERENCE.finditer(text)}
    names |= {match.group() for pattern in (_HASH, _IDENTITY) for match in pattern.finditer(text)}
    return {name for name in names if len(name) > 1 and name not in _NOWHERE}


def _looks_like_path(token: str) -> bool:
    token = token.rstrip(".,:;")
    if "/" in token or "\\" in token:
        parts = [part for part in re.split(r"[/\\]", token) if part]
        extension = parts[-1].rsplit(".", 1)[-1].lower() if parts and "." in parts[-1] else ""
        return token.startswith(("/", "./", "../", "~/")) or extension in _FILE_EXTENSIONS
    return token.rsplit(".", 1)[-1].lower() in _FILE_EXTENSIONS

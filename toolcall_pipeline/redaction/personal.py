"""What identifies the user without being a secret: names in home paths, and what the user lists.

Home names become the neutral `user`, which is no placeholder: a model may well be trained on `/home/user/project`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from toolcall_pipeline.redaction.options import RedactionOptions

NEUTRAL_NAME = "user"

# Names no person has: replacing them would only lose what the path says.
_SHARED = (
    r"(?:[uU]ser|USER|[sS]hared|[pP]ublic|[dD]efault|[gG]uest|[aA]ll [uU]sers|[dD]efault [uU]ser|defaultuser0|linuxbrew)"
    r"(?![\w@+~-]|\.[\w@+~-])"
)
_SLASHES = r"(?:/|\\{1,8})"
# A name ends before a dot that ends a sentence.
_REST = r"[\w@+~-]*(?:\.+[\w@+~-]+)*"
_NAME = rf"(?:[^\W_]{_REST}|_[\w@+~-]{_REST})"
_SPACED_NAME = r"[^\W_][\w.@+-]*(?: [\w.@+-]+){1,3}(?=\\)"
# Roots below which `Users` and `home` are home folders although a word stands before them.
_MOUNTS = r"(?:/mnt/[a-z]|/[a-z]|/cygdrive/[a-z]|/System/Volumes/Data|/Volumes/[^/\s\"']{1,40}|/private|/host|/rootfs|/hostfs)"
_NOT_BEFORE = r"\w.)\]}~$*%-"
# The common form, `/Users/name` after anything that is no part of a path, with a rare literal first: one fast pass.
_COMMON = tuple(
    (
        root,
        re.compile(rf"{root}/(?<=/{root}/)(?<![{_NOT_BEFORE}]/{root}/)(?!{_SHARED}){_NAME}"),
        f"{root}/{NEUTRAL_NAME}",
    )
    for root in ("Users", "home")
)
_OTHER = tuple(
    re.compile(rf"{root}(?!/{NEUTRAL_NAME}(?![\w.@+~-])){_SLASHES}(?!{_SHARED})(?P<name>{_SPACED_NAME}|{_NAME})")
    for root in ("Users", "home")
)
_OTHER_CASES = tuple(
    (literal, re.compile(rf"{literal[:-1]}\\{{1,8}}(?!{_SHARED})(?P<name>{_SPACED_NAME}|{_NAME})"))
    for literal in ("USERS\\", "users\\")
)
# Patterns that begin with a literal: searched many bytes at once.
_HINTS = tuple(map(re.compile, (b"Users", b"home", rb"\\(?<=USERS\\|users\\)")))
_SLUGS = tuple(
    (f"-{root}-", re.compile(rf"{root}-(?!{NEUTRAL_NAME}(?:-|$|[\s\"'/\\]))(?P<name>[^\W_][\w.]*)(?=-|$|[\s\"'/\\])"))
    for root in ("Users", "home")
)
_BEFORE_PATH = re.compile(
    rf"(?:^|[^{_NOT_BEFORE}]|(?:^|[^\w]){_MOUNTS}|[A-Za-z]:|(?:^|\s)-[ILv])(?:/|\\{{1,8}})$"
    r"|(?:wsl\$|wsl\.localhost)(?:/|\\{1,8})[\w.-]+(?:/|\\{1,8})$|%[23][fF]$"
)
_BEFORE_SLUG = re.compile(r"(?:^|[\s\"'/\\`(=,:])-$|(?:^|[\s\"'/\\`(=,:])[A-Za-z]--$")
_LOOK_BACK_CHARACTERS = 64


def home_name_hints(data: bytes) -> Iterator[int]:
    """Give the places in UTF-8 text at which `replace_home_names` has something to look at."""
    for hint in _HINTS:
        for match in hint.finditer(data):
            yield match.start()


def replace_home_names(text: str) -> tuple[str, int]:
    """Replace the user name in every home path by `user`.

    Covers POSIX and Windows forms, mounted drives, JSON-escaped backslashes, and the dashed folder names agents make
    of paths (`-Users-name-project`). Web paths such as `https://host/home/about` stay.

    Returns:
        The text and the number of names replaced. Applying it twice changes nothing.
    """
    count = 0
    for (root, common, replacement), other, (slug, slug_pattern) in zip(_COMMON, _OTHER, _SLUGS, strict=True):
        if root in text:
            text, replaced = common.subn(replacement, text)
            count += replaced
            text, replaced = _replace(text, other, _BEFORE_PATH)
            count += replaced
            if slug in text:
                text, replaced = _replace(text, slug_pattern, _BEFORE_SLUG)
                count += replaced
    if "\\" in text:
        for literal, pattern in _OTHER_CASES:
            if literal in text:
                text, replaced = _replace(text, pattern, _BEFORE_PATH)
                count += replaced
    return text, count


def user_name_replacer(options: RedactionOptions) -> Callable[[str], tuple[str, int]] | None:
    """Return a function that replaces the user's own names wherever they stand as words, or None without any."""
    if not options.user_names:
        return None
    names = sorted(options.user_names, key=len, reverse=True)
    # A name also stands inside paths, slugs and addresses; only letters and digits around it make another word of it.
    pattern = re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, names))})(?![^\W_])", re.IGNORECASE)
    return lambda text: pattern.subn(NEUTRAL_NAME, text)


def literal_patterns(options: RedactionOptions) -> list[tuple[str, re.Pattern[str]]]:
    """Return (rule id, pattern) of the strings and hosts the user lists."""
    patterns: list[tuple[str, re.Pattern[str]]] = []
    if options.strings:
        strings = sorted(options.strings, key=len, reverse=True)
        patterns.append(("user.private", re.compile("|".join(map(re.escape, strings)), re.IGNORECASE)))
    if options.private_hosts:
        hosts = "|".join(re.escape(host.lstrip(".")) for host in options.private_hosts)
        pattern = rf"(?<![\w.-])(?:[a-z0-9_-]+\.)*(?:{hosts})(?![\w-])"
        patterns.append(("user.private_host", re.compile(pattern, re.IGNORECASE)))
    return patterns


def _replace(text: str, pattern: re.Pattern[str], before: re.Pattern[str]) -> tuple[str, int]:
    parts: list[str] = []
    position = 0
    for match in pattern.finditer(text):
        start = match.start()
        if before.search(text, max(0, start - _LOOK_BACK_CHARACTERS), start) is None:
            continue
        parts += [text[position : match.start("name")], NEUTRAL_NAME]
        position = match.end("name")
    if not parts:
        return text, 0
    parts.append(text[position:])
    return "".join(parts), len(parts) // 2

"""What identifies the user without being a secret: names in home paths, and what the user lists.

Home names become the neutral `user`, which is no placeholder: a model may well be trained on `/home/user/project`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from toolcall_pipeline.redaction.options import RedactionOptions

NEUTRAL_NAME = "user"

# Names no person has: replacing them would only lose what the path says.
_SHARED_NAMES = frozenset(
    {"user", "shared", "public", "default", "guest", "all users", "default user", "linuxbrew", "defaultuser0"}
)
_SLASHES = r"(?:/|\\{1,8})"
_NAME = r"[^\W_][\w.@+~-]*|_[\w.@+~-]+"
_SPACED_NAME = r"[^\W_][\w.@+-]*(?: [\w.@+-]+){1,3}(?=\\)"
# Roots below which `Users` and `home` are home folders although something stands before them.
_MOUNTS = r"(?:/mnt/[a-z]|/[a-z]|/cygdrive/[a-z]|/System/Volumes/Data|/Volumes/[^/\s\"']{1,40}|/private|/host|/rootfs|/hostfs)"
_HOME_PATHS = (
    # /Users/name, C:\Users\name, /mnt/c/Users/name; each pattern starts with a literal so that the search is a memchr.
    re.compile(rf"Users(?P<slash>{_SLASHES})(?P<name>{_SPACED_NAME}|{_NAME})"),
    re.compile(rf"home(?P<slash>{_SLASHES})(?P<name>{_SPACED_NAME}|{_NAME})"),
    re.compile(r"USERS(?P<slash>\\{1,8})(?P<name>[^\W_][\w.@+~-]*)"),
    re.compile(r"users(?P<slash>\\{1,8})(?P<name>[^\W_][\w.@+~-]*)"),
)
_SLUGS = (
    re.compile(r"Users-(?P<name>[^\W_][\w.]*)(?=-|$|[\s\"'/\\])"),
    re.compile(r"home-(?P<name>[^\W_][\w.]*)(?=-|$|[\s\"'/\\])"),
)
_BEFORE_PATH = re.compile(
    rf"(?:^|[^\w.)\]}}~$*%-]|(?:^|[^\w]){_MOUNTS}|[A-Za-z]:|^-[ILv]|\s-[ILv])(?:/|\\{{1,8}})$"
    r"|(?:wsl\$|wsl\.localhost)(?:/|\\{1,8})[\w.-]+(?:/|\\{1,8})$|[A-Za-z]:(?:/|\\{1,8})$|%[23][fF]$"
)
_BEFORE_SLUG = re.compile(r"(?:^|[\s\"'/\\`(=,:])-$|(?:^|[\s\"'/\\`(=,:])[A-Za-z]--$")
_LOOK_BACK_CHARACTERS = 64


def _replace(text: str, pattern: re.Pattern[str], before: re.Pattern[str]) -> tuple[str, int]:
    parts: list[str] = []
    position = 0
    for match in pattern.finditer(text):
        start = match.start()
        name = match["name"]
        stripped = name.rstrip(".")
        if not stripped or stripped.lower() in _SHARED_NAMES:
            continue
        if before.search(text, max(0, start - _LOOK_BACK_CHARACTERS), start) is None:
            continue
        parts += [text[position : match.start("name")], NEUTRAL_NAME]
        position = match.start("name") + len(stripped)
    if not parts:
        return text, 0
    parts.append(text[position:])
    return "".join(parts), len(parts) // 2


def replace_home_names(text: str) -> tuple[str, int]:
    """Replace the user name in every home path by `user`.

    Covers POSIX and Windows forms, mounted drives, JSON-escaped backslashes, and the dashed folder names agents make
    of paths (`-Users-name-project`). Web paths such as `https://host/home/about` stay.

    Returns:
        The text and the number of names replaced. Applying it twice changes nothing.
    """
    count = 0
    if "Users" in text:
        for pattern, before in ((_HOME_PATHS[0], _BEFORE_PATH), (_SLUGS[0], _BEFORE_SLUG)):
            text, replaced = _replace(text, pattern, before)
            count += replaced
    if "home" in text:
        for pattern, before in ((_HOME_PATHS[1], _BEFORE_PATH), (_SLUGS[1], _BEFORE_SLUG)):
            text, replaced = _replace(text, pattern, before)
            count += replaced
    for literal, pattern in (("USERS\\", _HOME_PATHS[2]), ("users\\", _HOME_PATHS[3])):
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


def literal_patterns(options: RedactionOptions) -> list[tuple[str, re.Pattern[bytes]]]:
    """Return (rule id, pattern) of the strings and hosts the user lists, for the scanner's pass over bytes."""
    patterns: list[tuple[str, re.Pattern[bytes]]] = []
    if options.strings:
        strings = sorted(options.strings, key=len, reverse=True)
        joined = "|".join(re.escape(value) for value in strings)
        patterns.append(("user.private", _ignoring_case(joined)))
    if options.private_hosts:
        hosts = "|".join(re.escape(host.lstrip(".")) for host in options.private_hosts)
        patterns.append(("user.private_host", _ignoring_case(rf"(?<![\w.-])(?:[a-z0-9_-]+\.)*(?:{hosts})(?![\w-])")))
    return patterns


def _ignoring_case(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode("utf-8"), re.IGNORECASE)

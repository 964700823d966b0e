"""What identifies the user without being a secret: names in home paths, and what the user lists.

Home names become the neutral `user`, which is no placeholder: a model may well be trained on `/home/user/project`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from stringzilla import find

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


class _Root(NamedTuple):
    """The forms of a path below a folder of homes: the common one and what takes its place, others, in folder names."""

    name: bytes
    common: tuple[re.Pattern[str], str]
    other: re.Pattern[str]
    slug: re.Pattern[str]


def _root(name: str) -> _Root:
    # `/Users/name` after anything that is no part of a path, with a rare literal first: one fast pass.
    common = rf"{name}/(?<=/{name}/)(?<![{_NOT_BEFORE}]/{name}/)(?!{_SHARED}){_NAME}"
    other = rf"{name}(?!/{NEUTRAL_NAME}(?![\w.@+~-])){_SLASHES}(?!{_SHARED})(?P<name>{_SPACED_NAME}|{_NAME})"
    slug = rf"{name}-(?!{NEUTRAL_NAME}(?:-|$|[\s\"'/\\]))(?P<name>[^\W_][\w.]*)(?=-|$|[\s\"'/\\])"
    replacement = f"{name}/{NEUTRAL_NAME}"
    return _Root(name.encode(), (re.compile(common), replacement), re.compile(other), re.compile(slug))


_ROOTS = (_root("Users"), _root("home"))
_OTHER_CASES = tuple(
    (f"{name}\\".encode(), re.compile(rf"{name}\\{{1,8}}(?!{_SHARED})(?P<name>{_SPACED_NAME}|{_NAME})"))
    for name in ("USERS", "users")
)
# Where one of these stands in UTF-8 text, `replace_home_names` has something to look at.
HOME_NAME_HINTS = (*(root.name for root in _ROOTS), *(literal for literal, _ in _OTHER_CASES))
_BEFORE_PATH = re.compile(
    rf"(?:^|[^{_NOT_BEFORE}]|(?:^|[^\w]){_MOUNTS}|[A-Za-z]:|(?:^|\s)-[ILv])(?:/|\\{{1,8}})$"
    r"|(?:wsl\$|wsl\.localhost)(?:/|\\{1,8})[\w.-]+(?:/|\\{1,8})$|%[23][fF]$"
)
_BEFORE_SLUG = re.compile(r"(?:^|[\s\"'/\\`(=,:])-$|(?:^|[\s\"'/\\`(=,:])[A-Za-z]--$")
_LOOK_BACK_CHARACTERS = 64


def replace_home_names(text: str, data: bytes | None = None) -> tuple[str, int]:
    """Replace the user name in every home path by `user`.

    Covers POSIX and Windows forms, mounted drives, JSON-escaped backslashes, and the dashed folder names agents make
    of paths (`-Users-name-project`). Web paths such as `https://host/home/about` stay.

    Args:
        text: The text.
        data: Its UTF-8, where the caller has it: what is looked for is looked for in there.

    Returns:
        The text and the number of names replaced. Applying it twice changes nothing.
    """
    data = text.encode("utf-8", "surrogatepass") if data is None else data
    count = 0
    for root, (common, replacement), other, slug in _ROOTS:
        if find(data, root) >= 0:
            text, replaced = common.subn(replacement, text)
            count += replaced
            text, replaced = _replace(text, other, _BEFORE_PATH)
            count += replaced
            if find(data, b"-%s-" % root) >= 0:
                text, replaced = _replace(text, slug, _BEFORE_SLUG)
                count += replaced
    for literal, pattern in _OTHER_CASES:
        if find(data, literal) >= 0:
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

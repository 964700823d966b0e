"""What a path or a git address says by its form alone: temporary folders, names, addresses without credentials."""

from __future__ import annotations

import ntpath
import posixpath
import re
from urllib.parse import urlsplit, urlunsplit

_TEMPORARY_ROOT = (
    r"(?:(?:/private)?/(?:var/)?tmp"
    r"|(?:/private)?/var/folders/[^/]+/[^/]+/T"
    r"|[a-z]:[\\/]+Users[\\/]+[^\\/]+[\\/]+AppData[\\/]+Local[\\/]+Temp"
    r"|[a-z]:[\\/]+Windows[\\/]+Temp)"
)
_TEMPORARY_NAME = (
    r"(?:pytest-of-[^\\/]+"  # pytest's tmp_path
    r"|tmp[a-z0-9_]{4,12}"  # Python's tempfile: tmp and eight characters
    r"|\.tmp[a-z0-9]{6}"  # Rust's tempfile
    r"|tmp\.[a-z0-9]{6,12}"  # mktemp -d
    r"|[\w-]+\.(?=[a-z0-9]*\d)[a-z0-9]{8,12}"  # mktemp -t name
    r"|go-build\d{4,}"
    r"|Test\w+\d{6,}[\\/]+\d{3})"  # Go's t.TempDir
)
_EPHEMERAL = re.compile(rf"{_TEMPORARY_ROOT}[\\/]+{_TEMPORARY_NAME}(?:[\\/].*)?", re.IGNORECASE | re.DOTALL)
# Node's mkdtemp ends in six random characters: a shape only where everything is temporary anyway.
_EPHEMERAL_MACOS = re.compile(r"(?:/private)?/var/folders/[^/]+/[^/]+/T/[^/]+-[A-Za-z0-9]{6}(?:/.*)?", re.DOTALL)
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_SCP_LIKE = re.compile(r"(?:(?P<user>[^@/\s]+)@)?(?P<host>\[[^\]]+\]|[^:/\s]+):(?P<path>[^\s]+)")

_AUTHORITY = re.compile(r"(?P<scheme>[^/?#]*//)(?P<user>[^/?#]*@)?(?P<host>\[[^\]]*\]|[^/?#@:]*):(?P<port>[^/?#@]*)")


def is_ephemeral(path: str) -> bool:
    """Tell whether a path is a folder that a test or mktemp made, by its shape anchored at the temporary roots.

    A folder `pytest-of-me` in a home, or a project in `/tmp` under a name of its own, is none.
    """
    return bool(_EPHEMERAL.fullmatch(path) or _EPHEMERAL_MACOS.fullmatch(path))


def path_name(path: str) -> str:
    """Return the last part of a POSIX or Windows path, or the path itself at a root."""
    module = ntpath if _WINDOWS_PATH.match(path) else posixpath
    return module.basename(path.rstrip("/\\")) or path


def normal_path(path: str) -> str:
    """Return a path without `.`, `..` and trailing slashes, in its own system's form; nothing on disk is looked at."""
    module = ntpath if _WINDOWS_PATH.match(path) else posixpath
    return module.normpath(path)


def strip_userinfo(address: str) -> str:
    """Return a git address without user name, password and tokens in its query.

    `https://user:token@host/a.git`, `ssh://git@host/a.git`, `git@host:a.git` and `//user@host/a` lose everything before
    the `@`; local paths stay. A password with an unescaped `/`, `?` or `#` is none the less one.
    """
    address = _with_whole_authority(address.strip())
    if "://" in address or address.startswith("//"):
        try:
            parts = urlsplit(address)
        except ValueError:
            return re.sub(r"//[^/]*@", "//", address)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    match = _SCP_LIKE.fullmatch(address)
    if match and not _WINDOWS_PATH.match(address) and (match["user"] or "/" not in match["host"]):
        return f"{match['host']}:{match['path']}"
    return address


def _with_whole_authority(address: str) -> str:
    """Return an address without the userinfo that a sign in its password would cut in two.

    What stands before the first `/` then looks like a host with a port that is no number, and an `@` still follows.
    """
    match = _AUTHORITY.match(address)
    if match is None or "@" not in address[match.end() :]:
        return address
    user, host, port = match["user"], match["host"], match["port"]
    behind = address.rpartition("@")[2]
    is_port = port.isdigit() and (user is not None or "." in host or host.startswith("[") or "/" not in behind)
    return address if is_port else match["scheme"] + behind


def remote_identity(address: str | None) -> str | None:
    """Return what two checkouts of one repository have in common: `host/path` in lower case, without `.git`.

    `git@github.com:Me/App.git`, `ssh://git@github.com:22/me/app` and `https://github.com/me/app/` are one.
    """
    if not address:
        return None
    address = strip_userinfo(address)
    if "://" in address or address.startswith("//"):
        parts = urlsplit(address)
        host, path = parts.hostname or "", parts.path
    elif (match := _SCP_LIKE.fullmatch(address)) and not _WINDOWS_PATH.match(address):
        host, path = match["host"], match["path"]
    else:
        host, path = "", address
    path = path.strip("/").removesuffix(".git").rstrip("/")
    return f"{host}/{path}".lower() if host else path

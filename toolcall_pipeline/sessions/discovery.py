"""Find session files below a folder and say which format each has, by its content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from toolcall_pipeline.errors import MissingInputError
from toolcall_pipeline.sessions.decoding import decode_tolerantly
from toolcall_pipeline.sessions.formats import FORMATS, OTHER_FORMAT

# A file names its format in its first lines; one that starts with this many unknown ones is another program's.
_SNIFFED_LINES = 40
_SNIFFED_BYTES = 8 << 20
_DECIDING_VOTES = 3


def discover(root: Path) -> list[Path]:
    """Return every `**/*.jsonl` below a folder, sorted by relative path; links to folders are not followed.

    Raises:
        MissingInputError: As `require_folder`.
    """
    return [root / path for path in relative_paths(root)]


def require_folder(root: Path) -> None:
    """Check that a sessions folder can be read.

    Raises:
        MissingInputError: The folder is not there, is no folder, cannot be listed, or its name is not UTF-8.
    """
    if str(root) != str(root).encode("utf-8", "replace").decode("utf-8"):
        raise MissingInputError(
            f"The name of the sessions folder {str(root)!a} is not UTF-8. Rename it, or link to it."
        )
    if not root.is_dir():
        found = " (a file is there)" if root.exists() else ""
        raise MissingInputError(
            f"There is no sessions folder {root}{found}. Give an existing folder with *.jsonl files by --sessions."
        )
    try:
        os.scandir(root).close()
    except OSError as error:
        raise MissingInputError(f"The sessions folder {root} cannot be listed: {error.strerror}.") from error


def relative_paths(root: Path) -> list[str]:
    """Return the same as paths below the folder, POSIX.

    Raises:
        MissingInputError: As `require_folder`.
    """
    require_folder(root)
    # Without pathlib: it took half of a night in which little is new.
    below = len(os.path.join(root, ""))
    return sorted(path[below:].replace(os.sep, "/") for path in _files_below(str(root)))


def _files_below(root: str) -> Iterator[str]:
    """Yield the files below a folder, and each folder below it that cannot be listed: it is counted as unreadable."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError:
            yield folder
            continue
        for entry in found:
            if _is_folder(entry):
                folders.append(entry.path)
            elif entry.name.endswith(".jsonl") and _may_be_file(entry):
                yield entry.path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a file, or cannot be asked: reading it will say why."""
    try:
        return entry.is_file()
    except OSError:
        return True


def sniff_format(path: Path, *, end_byte: int | None = None) -> str:
    """Return the format of a file: the one most of its first lines look like, `other` where none does.

    Args:
        path: The file.
        end_byte: Look no further than this.

    Raises:
        OSError: The file cannot be read.
    """
    stop = _SNIFFED_BYTES if end_byte is None else min(end_byte, _SNIFFED_BYTES)
    votes = dict.fromkeys(FORMATS, 0)
    with path.open("rb") as stream:
        for _ in range(_SNIFFED_LINES):
            line = stream.readline(stop - stream.tell())
            if not line:
                break
            for value in _objects(line):
                for name, session_format in FORMATS.items():
                    votes[name] += session_format.looks_like(value)
            if max(votes.values()) >= _DECIDING_VOTES:
                break
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] else OTHER_FORMAT


def _objects(line: bytes) -> list[dict[str, Any]]:
    try:
        value = orjson.loads(line)
    except ValueError:
        return decode_tolerantly(line).objects
    return [value] if isinstance(value, dict) else []

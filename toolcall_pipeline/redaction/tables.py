"""The cells of a column of secrets, below the heading that a rule found: CSV, TSV, tables of text and of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Line ends and tabs as they are, or escaped, as JSON and logs hold them.
_LINE_END = re.compile(rb"\r?\n|\\+r?\\*n")
_DELIMITER = re.compile(rb"(\||;|,|\t|\\+t)")
_PADDING = b" \t\"'`\\"
_RULER = re.compile(rb"[\s|:+>#-]*")
_HEADING = re.compile(
    rb"(?i)(?:^|[ _.-])(?:password|passwd|passphrase|passwort|pwd|secret|token|(?:api|access|private)?[ _-]?key)$"
)
_PASSWORD_HEADING = re.compile(rb"(?i)pass|pwd")
# References, fillers, addresses, numbers and dates, paths.
_NO_SECRET = re.compile(rb"\s|^[$<{\[(*]|\*{3}|://|^[\d.:,_/+-]+$|^\.?/[a-z\d._/-]+$")
_LETTER_NEXT_TO_DIGIT = re.compile(rb"[A-Za-z](?=\d)|\d(?=[A-Za-z])")
_MAX_HEADING_BYTES = 4096
_MIN_PASSWORD_BYTES = 6
_MIN_TOKEN_BYTES = 16
_MIN_CHANGES = 3
_MIN_COLUMNS = 2


def secret_cells(value: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Give the bytes of every cell that looks like a secret in the columns whose heading says that they hold them.

    Args:
        value: The text.
        start: Where in it the rule for headings found one.
    """
    first = max(0, start - _MAX_HEADING_BYTES)
    line_start = max((match.end() for match in _LINE_END.finditer(value, first, start + 2)), default=first)
    line_end = _LINE_END.search(value, start + 2)
    if line_end is None:
        return
    delimiter = _delimiter_of(value[line_start : line_end.start()], start - line_start)
    headings = value[line_start : line_end.start()].split(delimiter)
    if sum(1 for heading in headings if heading.strip(_PADDING)) < _MIN_COLUMNS:
        return
    columns = [number for number, heading in enumerate(headings) if _HEADING.search(heading.strip(_PADDING))]
    while line_end:
        row_start = line_end.end()
        line_end = _LINE_END.search(value, row_start)
        row = value[row_start : line_end.start() if line_end else len(value)]
        if _RULER.fullmatch(row):
            continue
        cells = row.split(delimiter)
        # The last row may go on: a closing quote and what follows it, where the table stands in a string.
        if len(cells) < len(headings) or (line_end and len(cells) > len(headings)):
            return
        for column in columns:
            cell = cells[column].strip(_PADDING)
            if _HEADING.search(cell):
                return
            if _is_secret(cell, headings[column]):
                at = value.index(cell, row_start + len(delimiter.join([*cells[:column], b""])))
                yield at, at + len(cell)


def _delimiter_of(heading: bytes, start: int) -> bytes:
    """Return what parts the cells of a heading: what stands next after the name that was found, or last before it."""
    after = _DELIMITER.search(heading, max(0, start) + 2)
    before = _DELIMITER.findall(heading)
    return after[1] if after else before[-1] if before else b","


def _is_secret(cell: bytes, heading: bytes) -> bool:
    """Tell a generated or chosen secret from a word, a number, a date or a reference."""
    digits = len(re.findall(rb"\d", cell))
    if not digits or not re.search(rb"[A-Za-z]", cell) or _NO_SECRET.search(cell):
        return False
    if _PASSWORD_HEADING.search(heading):
        return len(cell) >= _MIN_PASSWORD_BYTES
    return len(cell) >= _MIN_TOKEN_BYTES and digits > 1 and len(_LETTER_NEXT_TO_DIGIT.findall(cell)) >= _MIN_CHANGES

"""From what rules fire on to what is replaced: whole tokens, never overlapping, never a placeholder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from toolcall_pipeline.redaction import addresses
from toolcall_pipeline.redaction.options import RedactionOptions
from toolcall_pipeline.redaction.placeholders import PLACEHOLDER_BYTES, kind_of_rule
from toolcall_pipeline.redaction.tables import secret_cells

_WORD = re.compile(rb"[A-Za-z0-9_-]*")
_WORD_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_BASE64_TAIL = re.compile(rb"[A-Za-z0-9_+/-]*={0,3}")
# The letters of an escape before a token (`\n`, `\u0026`, `%22`) are no part of it.
_ESCAPE_LETTERS = re.compile(rb"(?<=\\)(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[nrtbfv])|(?<=%)[0-9a-fA-F]{2}")
_REST_OF_QUOTED = re.compile(rb"[^\s\"'`\\<>]*")
_MAX_EXTENSION_BYTES = 4096
_MIN_REPEATED_BYTES = 12
_SECRET_KIND = "secret"
_HOST_RULE = "custom.private-host"
_HEADING_RULE = "custom.secret-table-header"


@dataclass(frozen=True, slots=True)
class Unit:
    """A string as it is scanned: its value, and before it the key it stands under, if that tells something."""

    context: str
    value: str

    @property
    def text(self) -> str:
        """Return what is scanned."""
        return f'{self.context} = "{self.value}"' if self.context else self.value

    @property
    def prefix_bytes(self) -> int:
        """Return how many bytes are scanned before the value; the key is ASCII."""
        return len(self.context) + 4 if self.context else 0


@dataclass(frozen=True, slots=True)
class Replacement:
    """Bytes of a unit's value to replace, and why."""

    start: int
    end: int
    rule_id: str
    kind: str


def merge_spans(
    value: bytes, found: Sequence[tuple[int, int, str]], *, offset: int, options: RedactionOptions
) -> list[Replacement]:
    """Return the replacements for what the rules found in a value, in order, without overlaps.

    Findings are cut at the value's ends, extended to whole tokens and joined where they overlap; those that touch an
    existing placeholder are dropped. A secret that stands in the same string again, without the context that gave it
    away, is replaced there too.

    Args:
        value: The string's bytes.
        found: (start, end, rule id), counted from `offset` bytes before the value.
        offset: Bytes that were scanned before the value.
        options: Says which addresses stay.
    """
    taken = [match.span() for match in PLACEHOLDER_BYTES.finditer(value)]
    spans: list[tuple[int, int, str]] = []
    for start, end, rule_id in found:
        start, end = max(0, start - offset), min(len(value), end - offset)
        if start >= end or _is_kept(value[start:end], rule_id, options):
            continue
        if rule_id == _HEADING_RULE:
            pieces = list(secret_cells(value, start))
        else:
            start, end = _whole_token(value, start, end)
            pieces = [(start, _end_of_quoted(value, start, end) if _kind(rule_id) == _SECRET_KIND else end)]
        spans += [(start, end, rule_id) for start, end in pieces if not _overlaps(start, end, taken)]
    spans += _repeated(value, spans, taken)
    return _joined(spans)


def _is_kept(secret: bytes, rule_id: str, options: RedactionOptions) -> bool:
    if rule_id == _HOST_RULE:
        return not options.private_host_names
    if rule_id != addresses.RULE_ID:
        return False
    if not options.email_addresses:
        return True
    domain = secret.rpartition(b"@")[2].decode("utf-8", "replace").lower()
    return any(domain == kept or domain.endswith("." + kept) for kept in options.kept_email_domains)


def _whole_token(value: bytes, start: int, end: int) -> tuple[int, int]:
    """Extend a span to the borders of the token it stands in, so that no end of a secret is left over."""
    tail = _BASE64_TAIL if any(character in value[start:end] for character in b"+/=") else _WORD
    if _is_token_byte(value[end - 1 : end]):
        match = tail.match(value, end, min(len(value), end + _MAX_EXTENSION_BYTES))
        end = match.end() if match else end
    if _is_token_byte(value[start : start + 1]):
        # From the right: a regular expression would begin again at every byte.
        head = value[max(0, start - _MAX_EXTENSION_BYTES) : start]
        before = start - len(head) + len(head.rstrip(_WORD_BYTES))
        escape = _ESCAPE_LETTERS.match(value, before)
        start = escape.end() if escape and escape.end() < end else before
    return start, end


def _end_of_quoted(value: bytes, start: int, end: int) -> int:
    """Return where a quoted value ends whose beginning was found: a sign inside it may have ended what the rule saw."""
    quote = value[start - 1 : start]
    if quote not in (b'"', b"'", b"`"):
        return end
    rest = _REST_OF_QUOTED.match(value, end, min(len(value), end + _MAX_EXTENSION_BYTES))
    return rest.end() if rest and value[rest.end() : rest.end() + 16].lstrip(b"\\")[:1] == quote else end


def _overlaps(start: int, end: int, taken: list[tuple[int, int]]) -> bool:
    return any(start < taken_end and taken_start < end for taken_start, taken_end in taken)


def _is_token_byte(character: bytes) -> bool:
    return character.isalnum() or character in (b"_", b"-", b"+", b"/", b"=")


def _repeated(
    value: bytes, spans: list[tuple[int, int, str]], taken: list[tuple[int, int]]
) -> list[tuple[int, int, str]]:
    more: list[tuple[int, int, str]] = []
    for secret, rule_id in {value[start:end]: rule_id for start, end, rule_id in spans}.items():
        if len(secret) < _MIN_REPEATED_BYTES or rule_id.startswith("user."):
            continue
        position = value.find(secret)
        while position >= 0:
            end = position + len(secret)
            if not _overlaps(position, end, taken):
                more.append((position, end, rule_id))
            position = value.find(secret, end)
    return more


def _joined(spans: list[tuple[int, int, str]]) -> list[Replacement]:
    result: list[Replacement] = []
    for start, end, rule_id in sorted(spans, key=lambda span: (span[0], -span[1], span[2])):
        if result and start < result[-1].end:
            last = result[-1]
            result[-1] = Replacement(last.start, max(last.end, end), *_better(last, rule_id))
        else:
            result.append(Replacement(start, end, rule_id, _kind(rule_id)))
    return result


def _better(last: Replacement, rule_id: str) -> tuple[str, str]:
    """Return the rule that names the joined finding: one that knows the secret's own form before one that does not."""
    if last.kind == _SECRET_KIND and _kind(rule_id) != _SECRET_KIND:
        return rule_id, _kind(rule_id)
    return last.rule_id, last.kind


def _kind(rule_id: str) -> str:
    kind = kind_of_rule(rule_id)
    return _SECRET_KIND if kind.startswith(("secret_", "generic_", "curl_", "sidekiq_")) else kind

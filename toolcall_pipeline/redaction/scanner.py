"""The maintained scanner (kingfisher), with its rule catalogue and our rule files, loaded once per process; and `addresses.py`.

Only this module knows kingfisher. It gives spans of bytes; what becomes of them is `redactor.py`'s.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from toolcall_pipeline.errors import RedactionError
from toolcall_pipeline.redaction import addresses
from toolcall_pipeline.redaction.escapes import Unescaped

_RULE_FOLDER = resources.files("toolcall_pipeline.redaction") / "rules"
_lock = threading.Lock()

# The catalogue hides what only completes another finding (client ids, account names, hosts). These hidden ones are
# secrets all the same.
_SECRET_COMPONENTS = frozenset(
    {
        "betterleaks.alibaba-sts-security-token",
        "betterleaks.cloudinary-api-key",
        "betterleaks.exoscale-api-secret",
        "betterleaks.ovh-application-key",
        "betterleaks.ovh-consumer-key",
        "betterleaks.polymarket-api-secret",
        "betterleaks.polymarket-passphrase",
        "veles.secrets/packagistsecret-api-key",
    }
)
# Rules of ours know these forms and, unlike the catalogue, the manuals' own `postgres:postgres@localhost`.
_REPLACED_BY_OURS = frozenset({"betterleaks.generic-credential-uri"})


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end` (exclusive) that a rule takes for a secret."""

    start: int
    end: int
    rule_id: str


def rule_files() -> list[Path]:
    """Return our own rule files, sorted by name."""
    return sorted(Path(str(entry)) for entry in _RULE_FOLDER.iterdir() if entry.name.endswith(".toml"))


@lru_cache(maxsize=1)
def rules_fingerprint() -> str:
    """Return the hash of the scanner's version and of every rule file: what decides a redaction beside the options."""
    digest = hashlib.sha256(metadata.version("kingfisher-secret-scanner").encode())
    for path in rule_files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(addresses.PATTERNS)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _scanner() -> Any:
    try:
        from kingfisher_sdk import DetectionPolicy, Rules, Scanner

        # No inline ignores: a marker inside a session must not switch its redaction off.
        policy = DetectionPolicy(
            inline_ignores=False, markup_context=False, cli_match_semantics=False, base64_max_input_bytes=None
        )
        rules = Rules([str(path) for path in rule_files()], confidence="low")
        return Scanner(rules, base64=True, dedup=False, redact=True, policy=policy)
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise RedactionError(
            f"The secret scanner did not start: {type(error).__name__}. Expected kingfisher-secret-scanner with its "
            "rules; install the pinned dependencies again."
        ) from error


def warm_up() -> None:
    """Load the scanner now: 0.5 s from its cache, 5 s the first time on a machine."""
    with _lock:
        _scanner()


def scan(data: bytes) -> list[Span]:
    """Return every span a rule fires on, unordered, overlaps included.

    The rules read what the text says, not how it is escaped: an escaped quote is read as a quote.

    Args:
        data: UTF-8 text.

    Raises:
        RedactionError: The scanner failed; the message never carries the text.
    """
    with _lock:
        scanner = _scanner()
    unescaped = Unescaped(data)
    plain = unescaped.text
    try:
        # NUL bytes make the scanner guess UTF-16 and give offsets of another text.
        findings = scanner.scan(plain.replace(b"\0", b"\x01") if b"\0" in plain else plain)
        result = []
        for finding in findings:
            rule_id = finding.rule_id
            if rule_id in _REPLACED_BY_OURS or not (finding.visible or rule_id in _SECRET_COMPONENTS):
                continue
            location = finding.location
            start, end = _without_blanks(plain, location["start_offset"], location["end_offset"])
            if start < end:
                result.append(Span(unescaped.origin(start), unescaped.origin(end), rule_id))
        for start, end in addresses.address_spans(plain):
            result.append(Span(unescaped.origin(start), unescaped.origin(end), addresses.RULE_ID))
    except BaseException as error:
        # A panic of the native library is no Exception; whatever it raises, nothing may pass unredacted.
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise RedactionError(
            f"The secret scanner failed on a block of {len(data)} bytes: {type(error).__name__}. Nothing of it was "
            "stored. Run again; if it repeats, report the scanner's version and the session's file."
        ) from None
    for span in result:
        if not 0 <= span.start < span.end <= len(data):
            raise RedactionError(
                f"Rule {span.rule_id} gave bytes {span.start} to {span.end} of a block of {len(data)} bytes. Nothing "
                "of it was stored. Pin kingfisher-secret-scanner to the version in constraints."
            )
    return result


def _without_blanks(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return a span without blanks at its ends: they separate and are no part of a secret."""
    if not 0 <= start < end <= len(data):
        return start, end  # refused by the caller
    inner = data[start:end]
    return start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())

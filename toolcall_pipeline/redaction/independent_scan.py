"""A second look at what was stored, by another tool (detect-secrets): the gate's eyes.

Only detectors keyed by a secret's own form are used, without its entropy and keyword plugins, which cry wolf on code.
Where a detector's pattern alone is too wide for source code, a further condition is named beside it below.
"""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from toolcall_pipeline.errors import RedactionError
from toolcall_pipeline.redaction.baseline import Baseline, finding_sha256
from toolcall_pipeline.redaction.placeholders import PLACEHOLDER

_CONTEXT_CHARACTERS = 48
_MAX_LISTED = 200
_LONG_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{10,}")
_KEY_BODY = re.compile(r"[A-Za-z0-9+/=]{40,}")


@dataclass(frozen=True, slots=True)
class SecretFinding:
    """One thing the second scanner takes for a secret.

    Attributes:
        detector: Its name in detect-secrets.
        place: Where, such as `mem_tool_calls.response id 42`.
        place_kind: Where, without the row: `mem_tool_calls.response`.
        finding_sha256: Its identity in the baseline.
        context: What stands around it, itself and every other long token blanked.
    """

    detector: str
    place: str
    place_kind: str
    finding_sha256: str
    context: str


@dataclass
class ScanReport:
    """What a scan found.

    Attributes:
        texts_count, characters_count: How much was looked at.
        new_count: Findings outside the baseline.
        known_count: Findings the baseline accepts.
        findings: The new ones, 200 at most, each identity once.
        by_detector: New findings by detector.
    """

    texts_count: int = 0
    characters_count: int = 0
    new_count: int = 0
    known_count: int = 0
    findings: list[SecretFinding] = field(default_factory=list)
    by_detector: Counter[str] = field(default_factory=Counter)


def scan(texts: Iterable[tuple[str, str, str]], baseline: Baseline) -> ScanReport:
    """Look for secrets in stored texts.

    Args:
        texts: (kind of place, row within it, text); read once, not kept.
        baseline: Findings that were reviewed.

    Raises:
        RedactionError: detect-secrets is not what it was; a scan that cannot look finds nothing, so it must not pass.
    """
    report = ScanReport()
    accepted = baseline.hashes()
    seen: set[str] = set()
    for place_kind, row, text in texts:
        report.texts_count += 1
        report.characters_count += len(text)
        for detector, start, end in find_secrets(text):
            identity = finding_sha256(detector, place_kind, text[start:end])
            if identity in accepted:
                report.known_count += 1
                continue
            report.new_count += 1
            report.by_detector[detector] += 1
            if identity not in seen and len(report.findings) < _MAX_LISTED:
                context = blanked_context(text, start, end)
                report.findings.append(SecretFinding(detector, f"{place_kind} {row}", place_kind, identity, context))
            seen.add(identity)
    return report


def find_secrets(text: str) -> list[tuple[str, int, int]]:
    """Return (detector, start, end) of everything in a text that is no placeholder of ours."""
    found: list[tuple[str, int, int]] = []
    lowered = text.lower()
    for detector in _detectors():
        if not any(literal in lowered for literal in detector.literals):
            continue
        for pattern in detector.patterns:
            for match in pattern.finditer(text):
                start, end = match.span(1) if detector.in_group and match.lastindex else match.span()
                if (
                    start < end
                    and not PLACEHOLDER.search(text, start, end + 1)
                    and detector.is_secret(text, start, end)
                ):
                    found.append((detector.name, start, end))
    return found


def blanked_context(text: str, start: int, end: int) -> str:
    """Return one line of what stands around a finding: it becomes `***`, every other long token `…`."""
    before = _LONG_TOKEN.sub("…", text[max(0, start - _CONTEXT_CHARACTERS) : start])
    after = _LONG_TOKEN.sub("…", text[end : end + _CONTEXT_CHARACTERS])
    return " ".join(f"{before}***({end - start} characters){after}".split())


@dataclass(frozen=True)
class _Detector:
    name: str
    patterns: tuple[re.Pattern[str], ...]
    literals: tuple[str, ...]
    is_secret: Callable[[str, int, int], bool]
    in_group: bool


def _always(text: str, start: int, end: int) -> bool:
    return True


def _is_random(text: str, start: int, end: int) -> bool:
    """Digits and letters mixed, no repeated filler: what a generated token looks like and an identifier does not."""
    secret = text[start:end]
    counts = Counter(secret)
    entropy = -sum(count / len(secret) * math.log2(count / len(secret)) for count in counts.values())
    return entropy > 3.0 and any(c.isdigit() for c in secret) and any(c.isalpha() for c in secret)


def _has_key_body(text: str, start: int, end: int) -> bool:
    """A private key's header followed by its base64; code that only names the header has none."""
    return _KEY_BODY.search(text, end, end + 400) is not None


def _is_token_alone(text: str, start: int, end: int) -> bool:
    around = text[max(0, start - 1) : start] + text[end : end + 1]
    return not any(c.isalnum() or c in "_-" for c in around) and _is_random(text, start, end)


def _is_aws_key(text: str, start: int, end: int) -> bool:
    """A key of AWS; those of its own manuals end in EXAMPLE."""
    return _is_token_alone(text, start, end) and not text[start:end].endswith(("EXAMPLE", "EXAMPLEKEY"))


def _is_password(text: str, start: int, end: int) -> bool:
    """The password of an address, unless it is a variable, a filler, or the word itself."""
    secret = text[start:end]
    if len(secret) < 3 or re.fullmatch(r"[\W_x.]*|[<\[{(%$*].*|.*[>\]})]|\$?[A-Z_]+", secret):
        return False
    return secret.lower() not in {"password", "pass", "passwd", "pwd", "secret", "token", "user", "port", "postgres"}


_JWT_MIN_CHARACTERS = 40


def _is_jwt(text: str, start: int, end: int) -> bool:
    module = importlib.import_module("detect_secrets.plugins.jwt")
    return end - start >= _JWT_MIN_CHARACTERS and bool(module.JwtTokenDetector.is_formally_valid(text[start:end]))


# module, class, literals one of which a text must hold (lower case), further condition, secret is the first group
_USED: tuple[tuple[str, str, tuple[str, ...], Callable[[str, int, int], bool], bool], ...] = (
    ("aws", "AWSKeyDetector", ("akia", "asia", "abia", "acca", "a3t", "aws"), _is_aws_key, True),
    ("azure_storage_key", "AzureStorageKeyDetector", ("accountkey=",), _is_random, False),
    ("basic_auth", "BasicAuthDetector", ("://",), _is_password, True),
    ("discord", "DiscordBotTokenDetector", (".",), _is_token_alone, False),
    ("github_token", "GitHubTokenDetector", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _is_random, False),
    ("gitlab_token", "GitLabTokenDetector", ("gl", "gr1348941"), _is_random, False),
    ("jwt", "JwtTokenDetector", ("eyj",), _is_jwt, False),
    ("mailchimp", "MailchimpDetector", ("-us",), _is_token_alone, False),
    ("npm", "NpmDetector", (":_authtoken",), _is_random, True),
    ("openai", "OpenAIDetector", ("t3blbkfj",), _always, False),
    ("private_key", "PrivateKeyDetector", ("private key", "putty-user-key"), _has_key_body, False),
    ("pypi_token", "PypiTokenDetector", ("pypi-ag",), _always, False),
    ("sendgrid", "SendGridDetector", ("sg.",), _is_random, False),
    ("slack", "SlackDetector", ("xox", "hooks.slack.com"), _is_random, False),
    ("square_oauth", "SquareOAuthDetector", ("sq0csp-",), _is_random, False),
    ("stripe", "StripeDetector", ("k_live_",), _is_random, False),
    ("telegram_token", "TelegramBotTokenDetector", (":",), _is_token_alone, False),
    ("twilio", "TwilioKeyDetector", ("ac", "sk"), _is_token_alone, False),
)


@lru_cache(maxsize=1)
def _detectors() -> tuple[_Detector, ...]:
    detectors = []
    for module_name, class_name, literals, is_secret, in_group in _USED:
        try:
            plugin: Any = getattr(importlib.import_module(f"detect_secrets.plugins.{module_name}"), class_name)()
            patterns = tuple(plugin.denylist)
        except (ImportError, AttributeError) as error:
            raise RedactionError(
                f"detect-secrets has no detector {class_name} in plugins.{module_name}. Expected version 1.5.0; "
                "install the pinned dependencies again."
            ) from error
        detectors.append(_Detector(class_name.removesuffix("Detector"), patterns, literals, is_secret, in_group))
    return tuple(detectors)

"""The reviewed baseline: findings of the second scanner that a person looked at and found harmless.

A finding is known by the hash of detector, kind of place and secret, so the file never holds a secret, and a harmless
string accepted in a tool's output does not pass unseen in a prompt.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolcall_pipeline.artifacts import sha256_text, write_atomically
from toolcall_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from toolcall_pipeline.settings import Settings

BASELINE_NAME = "secrets_baseline.json"


def finding_sha256(detector: str, place_kind: str, secret: str) -> str:
    """Return the identity of a finding, as the baseline stores it."""
    return sha256_text(f"{detector}\0{place_kind}\0{secret}")


class AcceptedFinding(BaseModel):
    """One finding a person accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    detector: str
    place_kind: str
    reason: str = Field(min_length=3)
    accepted_at: datetime


class Baseline(BaseModel):
    """Accepted findings, by identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    accepted: tuple[AcceptedFinding, ...] = ()

    def hashes(self) -> frozenset[str]:
        """Return the identities of every accepted finding."""
        return frozenset(entry.finding_sha256 for entry in self.accepted)

    def accept(self, entries: list[AcceptedFinding]) -> Baseline:
        """Return a baseline with more findings; one that is known keeps its first reason."""
        known = {entry.finding_sha256: entry for entry in reversed((*self.accepted, *entries))}
        return Baseline(accepted=tuple(known[key] for key in sorted(known)))


def load_baseline(settings: Settings) -> Baseline:
    """Return the project's shipped baseline and the user's own (`<home>/secrets_baseline.json`) together.

    Raises:
        ConfigurationError: A file is no baseline.
    """
    shipped = resources.files("toolcall_pipeline.redaction") / "reviewed_baseline.json"
    baseline = _parse(shipped.read_text(encoding="utf-8"), str(shipped))
    own = baseline_path(settings)
    if own.is_file():
        baseline = baseline.accept(list(_parse(own.read_text(encoding="utf-8"), str(own)).accepted))
    return baseline


def baseline_path(settings: Settings) -> Path:
    """Return where the user's own baseline is kept."""
    return settings.home_dir / BASELINE_NAME


def add_to_baseline(settings: Settings, findings: list[tuple[str, str, str]], reason: str) -> Baseline:
    """Accept findings with one reason and write the user's baseline.

    Args:
        settings: Says where the baseline is.
        findings: (finding hash, detector, kind of place).
        reason: Why they are harmless, for whoever reviews the file.
    """
    path = baseline_path(settings)
    own = _parse(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else Baseline()
    now = datetime.now(UTC).replace(microsecond=0)
    entries = [
        AcceptedFinding(finding_sha256=key, detector=detector, place_kind=kind, reason=reason, accepted_at=now)
        for key, detector, kind in findings
    ]
    own = own.accept(entries)
    write_atomically(path, json.dumps(own.model_dump(mode="json"), indent=2) + "\n")
    return own


def _parse(text: str, place: str) -> Baseline:
    try:
        return Baseline.model_validate_json(text)
    except ValidationError as error:
        raise ConfigurationError(
            f"{place} is no baseline of reviewed findings ({error.error_count()} problems, the first at "
            f"{error.errors()[0]['loc']}). Restore it, or delete it and triage again."
        ) from None

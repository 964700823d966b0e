"""Review what the second scanner found: list the new findings, accept harmless ones with a reason.

Nothing here shows a secret: a finding is a detector, a place, a hash, and its surroundings with every long token blanked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from toolcall_pipeline.errors import UsageError
from toolcall_pipeline.redaction.baseline import Baseline, add_to_baseline, load_baseline
from toolcall_pipeline.redaction.independent_scan import ScanReport, scan

if TYPE_CHECKING:
    from toolcall_pipeline.settings import Settings

MIN_PREFIX_CHARACTERS = 8


def list_new(settings: Settings, texts: Iterable[tuple[str, str, str]]) -> ScanReport:
    """Return what is new in stored texts, as the gate sees it."""
    return scan(texts, load_baseline(settings))


def accept(settings: Settings, report: ScanReport, hashes: Sequence[str], *, reason: str) -> Baseline:
    """Accept findings of a report as harmless.

    Args:
        settings: Says where the baseline is.
        report: What `list_new` gave.
        hashes: Identities of findings, or beginnings of them, 8 digits at least.
        reason: Why they are harmless; kept in the baseline for whoever reviews it.

    Returns:
        The user's baseline as written.

    Raises:
        UsageError: A hash names no finding or several, or the reason is empty. Nothing is accepted then.
    """
    if len(reason.strip()) < 3:
        raise UsageError("Accepting a finding needs a reason of three characters or more: it is what a reviewer reads.")
    chosen: dict[str, tuple[str, str, str]] = {}
    for prefix in hashes:
        matching = {
            finding.finding_sha256: (finding.finding_sha256, finding.detector, finding.place_kind)
            for finding in report.findings
            if len(prefix) >= MIN_PREFIX_CHARACTERS and finding.finding_sha256.startswith(prefix)
        }
        if len(matching) != 1:
            raise UsageError(
                f"{prefix!r} names {len(matching)} of the {len(report.findings)} new findings, expected exactly one. "
                "Give the hash as `secrets list` prints it."
            )
        chosen.update(matching)
    return add_to_baseline(settings, list(chosen.values()), reason.strip())

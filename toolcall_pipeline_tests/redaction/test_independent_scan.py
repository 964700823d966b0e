"""The second scanner: finds what was not redacted, is silent on what was, and shows no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolcall_pipeline.errors import ConfigurationError, RedactionError, UsageError
from toolcall_pipeline.redaction import Redactor, independent_scan, triage
from toolcall_pipeline.redaction.baseline import Baseline, baseline_path, load_baseline
from toolcall_pipeline.redaction.independent_scan import find_secrets, scan
from toolcall_pipeline.settings import Settings
from toolcall_pipeline_tests.redaction.secrets import FAMILIES, sample

SEEN_BY_BOTH = [
    "github_classic", "gitlab", "stripe_live", "sendgrid", "jwt", "pem", "pem_escaped", "postgres_url", "slack_bot",
    "aws_key_id", "npm", "pypi", "openai_legacy", "telegram", "azure_storage", "slack_webhook",
]  # fmt: skip


@pytest.mark.parametrize("family", SEEN_BY_BOTH)
def test_a_secret_that_was_not_redacted_is_found(family: str) -> None:
    found = [bool(find_secrets(sample(family, seed)[0])) for seed in range(6)]
    assert sum(found) >= 5


def test_it_is_silent_on_what_was_redacted() -> None:
    texts = [sample(family, seed)[0] for family in FAMILIES for seed in range(2)]
    redacted = Redactor().redact_texts(texts, "s")
    report = scan((("x", str(number), text) for number, text in enumerate(redacted)), Baseline())
    assert report.findings == []
    assert report.texts_count == len(texts)


@pytest.mark.parametrize(
    "text",
    [
        "if header == '-----BEGIN PRIVATE KEY-----': raise",
        "postgresql://user:password@localhost/db",
        "https://$USER:$TOKEN@host/x",
        "https://x:[REDACTED:secret:12ab]@host",
        "sha SK0123 and AC of something",
        "12345678:not a token",
        "import hvac; APIResponse = 1",
    ],
)
def test_code_is_no_finding(text: str) -> None:
    assert find_secrets(text) == []


def test_a_finding_shows_where_it_is_and_never_what_it_is() -> None:
    text, secret = sample("github_classic", 3)
    report = scan([("mem_tool_calls.response", "row 7", f"before 9f86d081884c7d65 {text} after")], Baseline())
    (finding,) = report.findings
    assert finding.place == "mem_tool_calls.response row 7"
    shown = json.dumps([finding.context, finding.place, finding.finding_sha256])
    assert secret not in shown
    assert "9f86d081884c7d65" not in shown


def test_an_accepted_finding_passes_in_its_kind_of_place_only(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    text, secret = sample("github_classic", 4)
    report = triage.list_new(settings, [("prompts", "1", text)])
    assert report.new_count == 1

    triage.accept(settings, report, [report.findings[0].finding_sha256[:16]], reason="an example of the manual")

    assert secret not in baseline_path(settings).read_text()
    again = triage.list_new(settings, [("prompts", "2", text), ("responses", "1", text)])
    assert (again.known_count, again.new_count) == (1, 1)


@pytest.mark.parametrize(("hashes", "reason"), [(["0" * 16], "why not"), (["ab"], "why not"), ([], " ")])
def test_a_finding_is_only_accepted_by_name_and_with_a_reason(hashes: list[str], reason: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    report = triage.list_new(settings, [("prompts", "1", sample("github_classic", 4)[0])])
    with pytest.raises(UsageError):
        triage.accept(settings, report, hashes, reason=reason)
    assert not baseline_path(settings).exists()


def test_a_damaged_baseline_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    baseline_path(settings).write_text('{"accepted": [{"secret": "hush"}]}')
    with pytest.raises(ConfigurationError) as caught:
        load_baseline(settings)
    assert "hush" not in str(caught.value)


def test_a_detector_that_is_gone_is_an_error_and_not_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    independent_scan._detectors.cache_clear()
    monkeypatch.setattr(
        independent_scan, "_USED", (("aws", "GoneDetector", ("x",), lambda text, start, end: True, False),)
    )
    try:
        with pytest.raises(RedactionError, match="GoneDetector"):
            find_secrets("x")
    finally:
        independent_scan._detectors.cache_clear()

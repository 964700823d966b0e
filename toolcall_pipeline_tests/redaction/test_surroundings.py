"""Secrets in commands, files, messages and tables, behind any line's prefix: gone whole; what looks like one stays."""

from __future__ import annotations

import random

import pytest

from toolcall_pipeline.redaction import Redactor
from toolcall_pipeline_tests.redaction import surroundings
from toolcall_pipeline_tests.redaction.surroundings import HARMLESS, WRAPPERS, drawn
from toolcall_pipeline_tests.redaction.test_families import fragments_left

SEEDS = 4
RECALL = 0.97


@pytest.mark.parametrize("kind", ["COMMANDS", "FILES", "MESSAGES"])
def test_nothing_of_a_secret_is_left_wherever_it_stands(kind: str) -> None:
    cases = []
    for template in getattr(surroundings, kind):
        for seed in range(SEEDS):
            text, secrets = drawn(template, seed)
            for name in ["alone", *random.Random(f"{template}{seed}").sample(sorted(WRAPPERS), 3)]:
                cases.append((WRAPPERS[name](text), secrets))
    redactor = Redactor()
    redacted = redactor.redact_texts([text for text, _ in cases], "s")
    missed = [
        text
        for (text, secrets), after in zip(cases, redacted, strict=True)
        if any(fragments_left(line, after) for secret in secrets for line in secret.split("\n"))
    ]
    assert len(missed) <= (1 - RECALL) * len(cases), missed
    assert redactor.redact_texts(redacted, "s") == redacted


@pytest.mark.parametrize("template", HARMLESS)
def test_what_looks_like_a_secret_stays(template: str) -> None:
    text, _ = drawn(template, 1)
    for name in ("alone", "json", *random.Random(template).sample(sorted(WRAPPERS), 3)):
        wrapped = WRAPPERS[name](text)
        assert Redactor().redact_text(wrapped, "s") == wrapped


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " | "])
def test_every_row_below_a_heading_is_looked_at_until_the_table_ends(delimiter: str) -> None:
    rows = [["id", "login", "password"], *([str(n), f"user{n}", f"Kx7{n}quVzt"] for n in range(300))]
    table = "\n".join(delimiter.join(row) for row in rows)
    after = Redactor().redact_text(f"{table}\n\nKx7000quVzu stays", "s")
    assert "quVzt" not in after
    assert after.count("[REDACTED:") == 300
    assert after.startswith(delimiter.join(rows[0]))
    assert after.endswith("Kx7000quVzu stays")
    assert all(f"{delimiter}user{n}{delimiter}" in after for n in range(300))

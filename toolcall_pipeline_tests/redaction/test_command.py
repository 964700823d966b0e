"""The command `redact`: a stream of any size, cut where no secret is."""

from __future__ import annotations

import io

import pytest

from toolcall_pipeline.redaction import Redactor, command
from toolcall_pipeline_tests.redaction.secrets import sample


@pytest.mark.parametrize("offset", [0, 100, 900, 1000, 1500])
def test_a_private_key_that_lies_over_a_piece_is_found(offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PIECE_BYTES", 1024)
    text, secret = sample("pem", 1)
    source = ("filler line\n" * 200)[: offset - offset % 12] + text + "tail line\n" * 300
    sink = io.BytesIO()
    report = command.redact_stream(io.BytesIO(source.encode()), sink, redactor=Redactor())
    after = sink.getvalue().decode()
    assert not any(line in after for line in secret.splitlines())
    assert after.startswith(source[: offset - offset % 12])
    assert after.endswith("tail line\n" * 300)
    assert report["bytes"] == len(source)


def test_bytes_that_are_no_text_come_out_as_they_went_in() -> None:
    source = b"\xff\xfe binary \x80 and\0 more\n" + "é→".encode()
    sink = io.BytesIO()
    command.redact_stream(io.BytesIO(source), sink, redactor=Redactor())
    assert sink.getvalue() == source


def test_an_empty_stream_is_nothing() -> None:
    sink = io.BytesIO()
    assert command.redact_stream(io.BytesIO(b""), sink, redactor=Redactor()) == {"bytes": 0, "replacements": {}}

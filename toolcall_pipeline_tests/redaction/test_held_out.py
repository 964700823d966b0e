"""Secrets and look-alikes that no rule was written to, through the library and through the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from toolcall_pipeline.redaction import Redactor
from toolcall_pipeline_tests.redaction.held_out import SELF_EVIDENT, WHOLE, harmless, planted
from toolcall_pipeline_tests.redaction.test_families import fragments_left

RECALL = 0.95
FALSE_ALARMS = 0.01


def test_secrets_of_many_kinds_are_gone_whole_and_look_alikes_stay() -> None:
    secrets, plain = planted(), harmless()
    assert len(secrets) >= 300
    assert len(SELF_EVIDENT) + len(WHOLE) >= 60
    assert len(plain) >= 300
    redacted = Redactor().redact_texts([item.text for item in secrets] + plain, "s")
    missed = [item for item, after in zip(secrets, redacted, strict=False) if fragments_left(item.secret, after)]
    altered = [text for text, after in zip(plain, redacted[len(secrets) :], strict=True) if text != after]
    assert len(missed) <= (1 - RECALL) * len(secrets), missed
    assert len(altered) <= FALSE_ALARMS * len(plain), altered


def test_the_command_finds_what_the_library_finds(tmp_path: Path) -> None:
    secrets = planted(1)
    source = "\n\n".join(item.text for item in secrets)
    done = subprocess.run(
        [sys.executable, "-m", "toolcall_pipeline.cli", "redact", "--report"],
        input=source.encode(),
        capture_output=True,
        check=True,
        env={"TOOLCALL_PIPELINE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
    )
    after = done.stdout.decode()
    missed = [item for item in secrets if fragments_left(item.secret, after)]
    assert len(missed) <= (1 - RECALL) * len(secrets), missed
    assert done.stderr.startswith(b'{"bytes": ')
    assert not any(item.secret.encode() in done.stderr for item in secrets)

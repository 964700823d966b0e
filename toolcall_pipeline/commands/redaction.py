"""`redact` and `secrets`: the redaction as a filter, and the review of what the second scanner found."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from toolcall_pipeline.settings import load_settings


def add_commands(parent: typer.Typer) -> None:
    """Add `redact`."""
    parent.command()(redact)


def redact(
    report: Annotated[
        bool, typer.Option("--report", help="Print what was replaced, by rule, as JSON on stderr.")
    ] = False,
) -> None:
    """Copy stdin to stdout without secrets, user names and addresses."""
    from toolcall_pipeline.redaction import Redactor, load_options
    from toolcall_pipeline.redaction.command import redact_stream

    counts = redact_stream(sys.stdin.buffer, sys.stdout.buffer, redactor=Redactor(load_options(load_settings())))
    if report:
        print(json.dumps(counts), file=sys.stderr)

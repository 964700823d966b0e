"""`redact` and `secrets`: the redaction as a filter, and the review of what the second scanner found."""

from __future__ import annotations

import json
import sys
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from toolcall_pipeline.commands.output import console, print_json
from toolcall_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from toolcall_pipeline.redaction.independent_scan import ScanReport

secrets = typer.Typer(help="Review what the second, independent scanner found in the store.", no_args_is_help=True)


def add_commands(parent: typer.Typer) -> None:
    """Add `redact` and the `secrets` group."""
    parent.command()(redact)
    parent.add_typer(secrets, name="secrets")


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


@secrets.command("list")
def list_findings(
    partition: Annotated[str, typer.Argument(help="The backfill_run_id whose stored rows are scanned.")],
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what the gate `no_secrets` holds a run for, in its stored rows and its dataset; never the secrets themselves."""
    found = _scan(load_settings(), partition)
    if json_:
        print_json(
            [
                {"hash": item.finding_sha256, "detector": item.detector, "place": item.place, "context": item.context}
                for item in found.findings
            ]
        )
        return
    console.print(f"{found.new_count} new, {found.known_count} accepted, in {found.texts_count} texts.")
    for item in found.findings:
        console.print(f"{item.finding_sha256[:16]}  {item.detector}  {item.place}\n    {item.context}", markup=False)
    if found.findings:
        console.print(
            "A true secret: revoke it, teach a rule (docs/reference/redaction.md), take the run back with `backfill "
            f"rollback {partition}` and load it again.\nHarmless: `secrets accept {partition} HASH... --reason TEXT`, then "
            f"judge again with `run --partition {partition}`.",
            markup=False,
        )


@secrets.command("accept")
def accept_findings(
    partition: Annotated[str, typer.Argument(help="The backfill_run_id the findings are in.")],
    hashes: Annotated[list[str], typer.Argument(help="Hashes as `secrets list` prints them.")],
    reason: Annotated[str, typer.Option(help="Why they are harmless; kept in the baseline.")],
) -> None:
    """Accept findings as harmless: the gate lets them pass from now on, in this kind of place."""
    from toolcall_pipeline.redaction import triage

    settings = load_settings()
    baseline = triage.accept(settings, _scan(settings, partition), hashes, reason=reason)
    console.print(f"{len(hashes)} accepted; the baseline holds {len(baseline.accepted)} findings of yours.")


def _scan(settings: Settings, partition: str) -> ScanReport:
    from toolcall_pipeline.artifacts import ArtifactStore
    from toolcall_pipeline.gates.no_secrets import iter_dataset_texts
    from toolcall_pipeline.redaction import triage
    from toolcall_pipeline.store import runs
    from toolcall_pipeline.store.engine import open_store
    from toolcall_pipeline.store.stored_texts import iter_run_texts

    engine = open_store(settings)
    try:
        runs.require_run(engine, partition)
        dataset = ArtifactStore(settings.artifacts_dir).current("v2_chat_dataset", partition)
        rows = iter_dataset_texts(dataset, [0]) if dataset else ()
        return triage.list_new(settings, chain(iter_run_texts(engine, partition), rows))
    finally:
        engine.dispose()

"""`evaluate`, `suite`, `parse-completion`, `report`, `compare`: judging models outside the chain."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from toolcall_pipeline.commands.output import console, errors, print_counts, print_json, progress_bar
from toolcall_pipeline.settings import load_settings

suite_app = typer.Typer(help="The frozen cases every model meets.", no_args_is_help=True)
report_app = typer.Typer(help="Reports from results.", no_args_is_help=True)


def add_commands(parent: typer.Typer) -> None:
    """Add the evaluation commands."""
    parent.command()(evaluate)
    parent.command("parse-completion")(parse_completion)
    parent.command()(compare)
    parent.add_typer(suite_app, name="suite")
    parent.add_typer(report_app, name="report")


def evaluate(
    model: Annotated[
        str, typer.Option(help="GGUF file, Hugging Face folder, or the URL of an OpenAI-compatible server.")
    ] = "",
    suite: Annotated[
        list[str] | None, typer.Option(help="Suites to run, such as A; repeat for several. Default: all.")
    ] = None,
    suite_version: Annotated[
        str | None, typer.Option(help="Version or hash of the frozen suite. Default: the current one.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="auto, llama-cpp, transformers, openai, or scripted:FILE to judge recorded answers.")
    ] = "auto",
    profile: Annotated[str, typer.Option(help="Gate profile: ship or smoke.")] = "ship",
    baseline: Annotated[Path | None, typer.Option(help="results.json of the model to compare with.")] = None,
    sequences: Annotated[int, typer.Option(help="Cases under way at the same time.", min=1, max=256)] = 1,
    constrained: Annotated[
        bool, typer.Option(help="Also run under a grammar of the tools' schemas, shown in a column of its own.")
    ] = False,
    bfcl: Annotated[
        Path | None,
        typer.Option(help="Folder of the public BFCL files, to run them too: reported, and counted by no gate."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for results.json, report.md and report.html.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> None:
    """Run the suites on one model, judge it under a profile, and exit 1 when a gate that was asked held."""
    from toolcall_pipeline.gates.evaluate_command import evaluate_and_judge

    try:
        with progress_bar("evaluate") as progress:
            judged = evaluate_and_judge(
                load_settings(),
                model=model,
                suites=suite,
                suite_version=suite_version,
                backend=backend,
                profile=profile,
                baseline=baseline,
                sequences=sequences,
                constrained=constrained,
                bfcl=bfcl,
                output_dir=output,
                progress=progress,
            )
    except KeyboardInterrupt:
        errors.print(
            "Stopped. Every case that was answered is kept: the same command goes on from there.", soft_wrap=True
        )
        raise typer.Exit(130) from None
    if json_:
        print_json(judged.results)
    else:
        typer.echo(judged.markdown)
    if judged.note:
        errors.print(judged.note, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(judged.exit_code)


def parse_completion() -> None:
    """Read raw completions on stdin (one text, or JSON lines {"id","text","tools"}); print calls, text and defects."""
    from toolcall_pipeline.evaluation.completions import parse_completions

    # What is no UTF-8 is shown as U+FFFD; line ends stay what they are.
    lines = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="replace", newline="\n")
    for result in parse_completions(lines):
        # A model may write numbers of any length and half characters; orjson takes neither.
        sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def compare(
    results: Annotated[list[Path], typer.Argument(help="results.json files of one suite version, two or more.")],
    output: Annotated[Path, typer.Option(help="Folder for the comparison page.")] = Path("comparison"),
) -> None:
    """Line up runs of one suite version, case by case, on one page."""
    from toolcall_pipeline.gates.report_commands import compare_reports

    console.print(compare_reports(results, output), highlight=False)


@suite_app.command("cases")
def suite_cases(
    version: Annotated[str | None, typer.Option("--version", help="Version or hash. Default: the current one.")] = None,
    suite: Annotated[list[str] | None, typer.Option(help="Only these suites.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print every case as a JSON line.")] = False,
) -> None:
    """Print the cases of a frozen suite: what is asked, with which tools, and what is expected."""
    from toolcall_pipeline.evaluation.commands import suite_cases as cases_of

    count = 0
    for case in cases_of(load_settings(), version=version, suites=suite):
        count += 1
        if json_:
            sys.stdout.buffer.write(orjson.dumps(case) + b"\n")
        else:
            console.print(f"{case['suite']}  {case['case_id']:40}  {case.get('stratum', '')}", highlight=False)
    sys.stdout.buffer.flush()
    if not json_:
        console.print(f"{count} cases")


@suite_app.command("freeze")
def suite_freeze(
    partition: Annotated[
        str | None, typer.Option(help="Dataset whose validation rows fill A and B. Default: the newest.")
    ] = None,
) -> None:
    """Freeze a new version of the suite, on purpose; results of different versions are not compared."""
    from toolcall_pipeline.evaluation.commands import suite_freeze as freeze

    print_counts("frozen", freeze(load_settings(), partition=partition))


@suite_app.command("label")
def suite_label(
    case_id: Annotated[str, typer.Argument(help="A case of suite A.")],
    call: Annotated[str, typer.Option(help='The call, as JSON: {"name": ..., "arguments": {...}}.')],
    plausible: Annotated[
        bool, typer.Option("--plausible/--wrong", help="Is it as good as the session's own call?")
    ] = True,
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Say whether another call than the session's own is a plausible alternative; the label lasts."""
    from toolcall_pipeline.evaluation.commands import suite_label as label

    given = label(load_settings(), case_id, call, plausible=plausible, note=note)
    typer.echo(f"{given.case_id}: {given.call.name} is {'plausible' if given.is_plausible else 'wrong'} from now on.")


@report_app.command("render")
def report_render(
    results: Annotated[Path, typer.Argument(help="A results.json.")],
    output: Annotated[Path, typer.Option(help="Folder for report.md and report.html.")] = Path("."),
) -> None:
    """Render results as Markdown and HTML; the same input gives the same bytes."""
    from toolcall_pipeline.gates.report_commands import render_report

    for path in render_report(results, output, formats=("markdown", "html")):
        console.print(str(path), highlight=False)

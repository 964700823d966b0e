"""What the commands `evaluate`, `suite freeze`, `suite cases` and `suite label` do; printing is the terminal's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.rows import row_from_disk
from toolcall_pipeline.errors import MissingInputError, UsageError
from toolcall_pipeline.evaluation.cases import Case, SuiteRun
from toolcall_pipeline.evaluation.evaluating import evaluate_model
from toolcall_pipeline.evaluation.labels import Label, add_label
from toolcall_pipeline.evaluation.runner import seeds_of
from toolcall_pipeline.evaluation.suites.bfcl import bfcl_cases
from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite, freeze_suite, list_versions, load_suite, new_version
from toolcall_pipeline.evaluation.suites.recall import RecallFact
from toolcall_pipeline.evaluation.suites.recall_facts import facts_of_episodes
from toolcall_pipeline.evaluation.suites.sizes import SUITE_SIZES
from toolcall_pipeline.presets import Configuration
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import ProgressCallback, StageContext


def evaluate(
    settings: Settings,
    *,
    model: str,
    configuration: Configuration,
    suites: Sequence[str] | None = None,
    suite_version: str | None = None,
    backend: str = "auto",
    constrained: bool = False,
    bfcl: Path | None = None,
    progress: ProgressCallback | None = None,
) -> SuiteRun:
    """Run any model on a frozen suite, outside the chain.

    Args:
        settings: Where suites and results are kept.
        model: GGUF file, Hugging Face folder, URL, or `scripted:FILE`; ignored where `backend` is `scripted:FILE`.
        configuration: Its `evaluation` section counts.
        suites: Such as `["A", "D"]`; all of the configuration where None.
        suite_version: Version or hash; the one in use where None, and the sample suite where none was ever frozen.
        backend: As `backends.open_backend` takes it.
        constrained: Decode under a grammar of the tools' schemas.
        bfcl: Folder of the public BFCL files; its cases are run beside the suites, and no gate counts them.
        progress: Called after each case.

    Raises:
        UsageError: A suite that does not exist, or has no cases in this version.
        MissingInputError: No such model or version, or no BFCL files in the folder.
        EvaluationError: The backend failed.
    """
    _check_suites(suites)
    suite = suite_in_use(settings, suite_version, bfcl)
    if suites and not any(case.suite in suites for case in suite.cases):
        raise UsageError(
            f"Version {suite.version} has no cases of suite {', '.join(suites)}: there is nothing to run. Its suites: "
            f"{', '.join(sorted({case.suite for case in suite.cases}))}."
        )
    if bfcl is not None:
        suites = (*(suites or configuration.evaluation.suites), "BFCL")
    context = StageContext(
        partition="evaluate",
        configuration=configuration,
        settings=settings,
        engine=None,  # type: ignore[arg-type]
    )
    if progress is not None:
        context = replace(context, progress=progress)
    return evaluate_model(context, model, suite, suites=suites, backend=backend, constrained=constrained)


def suite_in_use(settings: Settings, version: str | None = None, bfcl: Path | None = None) -> FrozenSuite:
    """Return a frozen suite; without a version the one in use, made from our own cases where none was frozen yet.

    Cases of BFCL come after it where its folder is given; they belong to no version, and its hash does not cover them.
    """
    if version is None and not list_versions(settings):
        suite = freeze_suite(settings, validation_rows=(), tools=(), is_sample=True)
    else:
        suite = load_suite(settings, version)
    return suite if bfcl is None else replace(suite, cases=(*suite.cases, *bfcl_cases(bfcl)))


def suite_cases(
    settings: Settings, version: str | None = None, suites: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield every case of a frozen suite: suite, case_id, seeds, messages, tools, expected.

    Raises:
        UsageError: A suite that does not exist.
        MissingInputError: No such version.
    """
    _check_suites(suites)
    for case in suite_in_use(settings, version).cases:
        if suites is None or case.suite in suites:
            yield describe_case(case)


def describe_case(case: Case) -> dict[str, Any]:
    """Return a case as plain data, with the seeds it is run at."""
    return {**case.model_dump(mode="json"), "seeds": list(seeds_of(case.suite))}


def suite_freeze(settings: Settings, *, partition: str | None = None) -> dict[str, Any]:
    """Freeze the user's next suite version from a dataset's validation rows.

    Args:
        settings: Where suites and datasets are kept.
        partition: Whose dataset; the newest one where None.

    Returns:
        `version`, `sha256`, `directory`, and the number of cases by suite.

    Raises:
        MissingInputError: There is no dataset.
        UsageError: Its validation rows do not fill suites A and B.
        StoreError: The store, which answers suite E, cannot be reached.
    """
    dataset = _dataset(settings, partition)
    with dataset.path(files.VALID_CHAT).open(encoding="utf-8") as stream:
        rows = [row_from_disk(json.loads(line)) for line in stream]
    tools = json.loads(dataset.path(files.TOOL_SCHEMAS).read_text(encoding="utf-8"))
    suite = new_version(settings, validation_rows=rows, tools=tools, recall_facts=_recall_facts(settings, dataset))
    counts: Counter[str] = Counter(case.suite for case in suite.cases)
    return {
        "version": suite.version,
        "sha256": suite.sha256,
        "directory": str(suite.directory),
        **{f"suite_{name.lower()}_cases": counts[name] for name in SUITE_SIZES},
    }


def suite_label(settings: Settings, case_id: str, call: str, *, plausible: bool, note: str = "") -> Label:
    """Record what a person says of another call in a case of A, in the suite in use.

    Args:
        settings: Where suites and labels are kept.
        case_id: Such as the report and `suite cases` name it.
        call: The call as JSON.
        plausible: Whether it is as good as the session's own.
        note: Why.

    Raises:
        UsageError: The call is no JSON object with a name, or A has no such case.
    """
    expected = 'Expected a call such as {"name": "Bash", "arguments": {"command": "ls"}}'
    try:
        value = json.loads(call)
    except ValueError as error:
        raise UsageError(f"--call is not JSON ({error}). {expected}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"--call is a JSON {type(value).__name__}. {expected}.")
    suite = suite_in_use(settings)
    if not any(case.suite == "A" and case.case_id == case_id for case in suite.cases):
        raise UsageError(
            f"Suite A of version {suite.version} has no case {case_id!r}. `suite cases --suite A` lists its cases."
        )
    return add_label(settings, case_id, value, plausible, note)


def _recall_facts(settings: Settings, dataset: Artifact) -> list[RecallFact]:
    """Return what the store knows of the user's projects, from the runs that a dataset was made of."""
    from toolcall_pipeline.store.engine import open_store
    from toolcall_pipeline.store.reading import iter_episodes

    engine = open_store(settings)
    try:
        runs = [
            parent.partition("/")[2] for parent in dataset.manifest.parents if parent.startswith("linked_tool_calls/")
        ]
        return facts_of_episodes(iter_episodes(engine, run_ids=runs))
    finally:
        engine.dispose()


def _dataset(settings: Settings, partition: str | None) -> Artifact:
    store = ArtifactStore(settings.artifacts_dir)
    if partition is not None:
        return store.require("v2_chat_dataset", partition)
    folder = settings.artifacts_dir / "v2_chat_dataset"
    found = [store.current("v2_chat_dataset", entry.name) for entry in folder.iterdir()] if folder.is_dir() else []
    datasets = [dataset for dataset in found if dataset is not None]
    if not datasets:
        raise MissingInputError(f"There is no dataset below {folder}. Materialise v2_chat_dataset first.")
    return max(datasets, key=lambda dataset: dataset.manifest.created_at)


def _check_suites(suites: Sequence[str] | None) -> None:
    unknown = sorted(set(suites or ()) - set("ABCDEV"))
    if unknown:
        raise UsageError(f"There is no suite {', '.join(unknown)}. Suites are A, B, C, D, E and V.")


__all__ = ["describe_case", "evaluate", "suite_cases", "suite_freeze", "suite_in_use", "suite_label"]

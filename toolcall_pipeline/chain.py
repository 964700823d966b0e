"""The chain: which asset is made from which, and how each is made by its room.

The one module that knows all rooms; it gives each what it needs of the others, so that no room imports a later one.
The command line and the Dagster floor both make assets through `materialise`. Rooms are imported when they are used,
so that importing the chain costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.errors import MissingInputError, UsageError
from toolcall_pipeline.stage_context import StageContext

if TYPE_CHECKING:
    from toolcall_pipeline.dataset.rows import Row
    from toolcall_pipeline.dataset.suite_protocol import SuiteForDataset, Suites
    from toolcall_pipeline.evaluation.suites.freeze import FrozenSuite
    from toolcall_pipeline.evaluation.suites.recall import RecallFact

UPSTREAM: Mapping[str, tuple[str, ...]] = {
    "jsonl_sessions": (),
    "linked_tool_calls": ("jsonl_sessions",),
    "v2_chat_dataset": ("linked_tool_calls",),
    "baseline_reports": ("v2_chat_dataset",),
    "lora_adapter": ("v2_chat_dataset", "baseline_reports"),
    "merged_model": ("lora_adapter",),
    "gguf_q6k": ("merged_model",),
    "eval_reports": ("gguf_q6k", "baseline_reports"),
}
ASSETS: tuple[str, ...] = tuple(UPSTREAM)
DATA_ASSETS: tuple[str, ...] = ("jsonl_sessions", "linked_tool_calls", "v2_chat_dataset")


def ancestors(asset: str) -> tuple[str, ...]:
    """Return every asset above one, in chain order.

    Raises:
        UsageError: There is no such asset.
    """
    _require_known(asset)
    above: set[str] = set()
    waiting = list(UPSTREAM[asset])
    while waiting:
        name = waiting.pop()
        if name not in above:
            above.add(name)
            waiting.extend(UPSTREAM[name])
    return tuple(name for name in ASSETS if name in above)


def materialise(asset: str, context: StageContext, **options: Any) -> Artifact:
    """Make one asset of the context's partition, or return it where exactly it is already there.

    Guards are not called here: whoever calls this has asked `gates.guard` first.

    Args:
        asset: One of `ASSETS`.
        context: Partition, configuration, server, progress.
        **options: `sessions_dir` for `jsonl_sessions`; `launch` for `lora_adapter`.

    Raises:
        UsageError: There is no such asset.
        ToolcallPipelineError: Whatever the room raises.
    """
    _require_known(asset)
    return _MAKERS[asset](context, **options)


def _require_known(asset: str) -> None:
    if asset not in UPSTREAM:
        raise UsageError(f"There is no asset {asset!r}. The chain is {', '.join(ASSETS)}.")


def _jsonl_sessions(context: StageContext, *, sessions_dir: Path | None = None) -> Artifact:
    from toolcall_pipeline.sessions.lock import load_lock
    from toolcall_pipeline.sessions.stage import freeze_sessions
    from toolcall_pipeline.store.ledger import load_ledger
    from toolcall_pipeline.store.runs import register_run

    frozen = freeze_sessions(context, sessions_dir=sessions_dir, previous=load_ledger(context.engine))
    register_run(context.engine, context.partition, context.configuration, is_sample=load_lock(frozen).is_sample)
    return frozen


def _linked_tool_calls(context: StageContext) -> Artifact:
    from toolcall_pipeline.store.stage import link_tool_calls

    return link_tool_calls(context)


def _v2_chat_dataset(context: StageContext) -> Artifact:
    from toolcall_pipeline.dataset.stage import build_dataset
    from toolcall_pipeline.store.runs import get_run
    from toolcall_pipeline.training.base_model import load_tokenizer

    run = get_run(context.engine, context.partition)
    if run is None:
        raise MissingInputError(f"Partition {context.partition} is not registered. Materialise jsonl_sessions first.")
    included, left_out = runs_for_dataset(context)
    return build_dataset(
        context,
        included_runs=included,
        left_out_runs=left_out,
        freeze_number=run.freeze_number,
        tokenizer_source=lambda: load_tokenizer(context.configuration.base, context.settings.cache_dir),
        suites=_suites(context, run.is_sample),
        previous=_previous_dataset(context),
    )


def runs_for_dataset(context: StageContext) -> tuple[dict[str, str], dict[str, str]]:
    """Decide which runs' rows a partition's dataset may use.

    A run takes part when it was frozen no later than this one, was not rolled back, is of the same kind (sample
    sessions enter only sample runs' datasets), and its own data gates have passed.

    Returns:
        Included runs, by freeze number, with the hash of their `linked_tool_calls`; and the runs left out, with why.
    """
    from toolcall_pipeline.gates.guard import has_passed
    from toolcall_pipeline.store.runs import get_run, list_runs

    run = get_run(context.engine, context.partition)
    if run is None:
        raise MissingInputError(f"Partition {context.partition} is not registered. Materialise jsonl_sessions first.")
    included: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for other in list_runs(context.engine, up_to_freeze_number=run.freeze_number):
        key = other.backfill_run_id
        linked = context.artifacts.current("linked_tool_calls", key)
        if other.is_sample != run.is_sample:
            left_out[key] = "sample sessions" if other.is_sample else "the user's own sessions; this is a sample run"
        elif other.rolled_back_at is not None:
            left_out[key] = "rolled back"
        elif linked is None:
            left_out[key] = "linked_tool_calls was never made"
        elif key != context.partition and not has_passed(
            context.engine, context.artifacts, key, ("jsonl_sessions", "linked_tool_calls"), other.configuration
        ):
            left_out[key] = "held: a gate of jsonl_sessions or linked_tool_calls did not pass"
        else:
            included[key] = linked.sha256
    return included, left_out


def _previous_dataset(context: StageContext) -> Artifact | None:
    """Return the dataset of the newest earlier run, which keeps session families on their side."""
    from toolcall_pipeline.store.runs import get_run, list_runs

    run = get_run(context.engine, context.partition)
    assert run is not None
    earlier = [
        other
        for other in list_runs(context.engine, up_to_freeze_number=run.freeze_number - 1)
        if other.is_sample == run.is_sample and other.rolled_back_at is None
    ]
    for other in reversed(earlier):
        dataset = context.artifacts.current("v2_chat_dataset", other.backfill_run_id)
        if dataset is not None:
            return dataset
    return None


def _suites(context: StageContext, is_sample: bool) -> Suites:
    """Give the dataset its way to the suites."""
    from toolcall_pipeline.dataset.suite_protocol import Suites
    from toolcall_pipeline.evaluation.suites.freeze import list_versions, load_suite
    from toolcall_pipeline.evaluation.suites.validation import cases_of_rows, is_filled

    versions = list_versions(context.settings)
    asked = {
        str(case.source["session_id"])
        for version in versions
        for case in load_suite(context.settings, version).cases
        if case.source.get("session_id")
    }
    has_own = any(version.isdigit() for version in versions)
    freezes_none = is_sample or has_own or context.configuration.evaluation.cases_per_suite is not None
    return Suites(
        freeze=partial(_freeze_suite, context, is_sample),
        fills=None if freezes_none else lambda rows, tools: is_filled(cases_of_rows(rows, tools)),
        asked_sessions=frozenset(asked),
    )


def _freeze_suite(
    context: StageContext, is_sample: bool, validation_rows: Iterable[Row], tools: list[dict[str, Any]]
) -> SuiteForDataset:
    """Give the dataset the suite it must not overlap, freezing it from the validation rows where there is none yet."""
    from toolcall_pipeline.dataset.suite_protocol import ChatCase, SuiteForDataset
    from toolcall_pipeline.evaluation.suites.freeze import freeze_suite

    suite = freeze_suite(
        context.settings,
        validation_rows=validation_rows,
        tools=tools,
        is_sample=is_sample,
        recall_facts=() if is_sample else _recall_facts(context),
        trained_families=_trained_families(context),
    )
    prompts: dict[str, list[str]] = {}
    for case in suite.cases:
        typed = [str(message["content"]) for message in case.messages if message["role"] == "user"]
        prompts.setdefault(case.suite, []).extend(typed)
    return SuiteForDataset(
        version=suite.version,
        sha256=suite.sha256,
        prompts=prompts,
        cases=tuple(ChatCase(messages=case.messages, tools=case.tools) for case in suite.cases),
    )


def _recall_facts(context: StageContext) -> Sequence[RecallFact]:
    from toolcall_pipeline.evaluation.suites.recall_facts import facts_of_episodes
    from toolcall_pipeline.store.reading import iter_episodes

    included, _ = runs_for_dataset(context)
    return facts_of_episodes(iter_episodes(context.engine, run_ids=list(included)))


def _trained_families(context: StageContext) -> frozenset[str]:
    """Return the session families that any adapter of this installation was trained on, or that were retired for it."""
    from toolcall_pipeline.dataset import files

    trained: set[str] = set()
    for partition in context.artifacts.partitions("lora_adapter"):
        adapter = context.artifacts.current("lora_adapter", partition)
        dataset = context.artifacts.current("v2_chat_dataset", partition)
        if partition == context.partition or adapter is None or dataset is None:
            continue
        splits = json.loads(dataset.path(files.SPLITS).read_text(encoding="utf-8"))
        trained.update(family for family, side in splits["families"].items() if side == "train")
        trained.update(splits["retired"])
    return frozenset(trained)


def suite_of(context: StageContext) -> FrozenSuite:
    """Return the frozen suite that the partition's dataset was kept apart from."""
    from toolcall_pipeline.evaluation.suites.freeze import load_suite

    dataset = context.artifacts.require("v2_chat_dataset", context.partition)
    return load_suite(context.settings, version_or_sha=str(dataset.manifest.metadata["suite_sha256"]))


def _baseline_reports(context: StageContext) -> Artifact:
    from toolcall_pipeline.evaluation.stage import measure_baselines
    from toolcall_pipeline.export.stage import export_base_gguf
    from toolcall_pipeline.gates.production import current_production

    production = current_production(context.engine)
    return measure_baselines(
        context,
        suite_of(context),
        base_gguf=export_base_gguf(context),
        production=None if production is None else (Path(production.path), production.gguf_sha256),
    )


def _lora_adapter(context: StageContext, *, launch: Callable[[Path], int] | None = None) -> Artifact:
    from toolcall_pipeline.dataset.plan import make_plan, require_merge_memory
    from toolcall_pipeline.training.base_model import resolve_base
    from toolcall_pipeline.training.stage import train_adapter

    _prune_models(context)
    dataset = context.artifacts.require("v2_chat_dataset", context.partition)
    base = resolve_base(context.configuration.base, context.settings.cache_dir)
    require_merge_memory(base.parameter_count)
    device = _planned_device(context.configuration.training.device)
    if device is not None:
        make_plan(context.configuration, dataset, base, device=device).require_feasible()
    return train_adapter(context, dataset, launch=launch)


def _prune_models(context: StageContext) -> None:
    """Make room where the retention setting says so."""
    from toolcall_pipeline.shipping.retention import prune_models

    keep_days = context.settings.keep_models_days
    if keep_days is not None:
        pruned = prune_models(context.engine, context.artifacts, keep_days=keep_days)
        count, freed = len(pruned.directories), pruned.freed_bytes / 1e9
        context.log.info("%d models older than %d days removed, %.1f GB", count, keep_days, freed)


def _planned_device(device: str) -> str | None:
    """Return the device a plan is made for before training; None where only the training process will know it."""
    return {"cpu": "cpu", "mps": "mps"}.get(device)


def _merged_model(context: StageContext) -> Artifact:
    from toolcall_pipeline.evaluation.stage import validate_model
    from toolcall_pipeline.training.merge import merge_adapter

    suite = suite_of(context)
    return merge_adapter(
        context,
        context.artifacts.require("lora_adapter", context.partition),
        context.artifacts.require("v2_chat_dataset", context.partition),
        validate=lambda model_dir: validate_model(context, model_dir, suite),
    )


def _gguf_q6k(context: StageContext) -> Artifact:
    from toolcall_pipeline.evaluation.runner import select_cases
    from toolcall_pipeline.evaluation.stage import validate_model
    from toolcall_pipeline.evaluation.suites.freeze import parity_prompts
    from toolcall_pipeline.export.stage import export_gguf

    suite = suite_of(context)
    evaluation = context.configuration.evaluation
    # Rendering thousands of prompts takes a minute on two cores: a preset that evaluates fewer cases renders those.
    few = evaluation.cases_per_suite and select_cases(suite.cases, evaluation.suites, evaluation.cases_per_suite)
    return export_gguf(
        context,
        context.artifacts.require("merged_model", context.partition),
        context.artifacts.require("v2_chat_dataset", context.partition),
        parity_prompts=parity_prompts(few) if few else None,
        validate=lambda gguf_path: validate_model(context, gguf_path, suite),
    )


def _eval_reports(context: StageContext) -> Artifact:
    from toolcall_pipeline.evaluation.stage import evaluate_candidate
    from toolcall_pipeline.export.llama_server import LlamaServer
    from toolcall_pipeline.export.stage import gguf_file
    from toolcall_pipeline.gates.reporting import write_reports

    gguf = context.artifacts.require("gguf_q6k", context.partition)
    return evaluate_candidate(
        context,
        suite_of(context),
        gguf_path=gguf_file(gguf),
        gguf_artifact_sha256=gguf.sha256,
        baselines=context.artifacts.require("baseline_reports", context.partition),
        llama_server=LlamaServer,
        write_reports=write_reports,
    )


_MAKERS: Mapping[str, Callable[..., Artifact]] = {
    "jsonl_sessions": _jsonl_sessions,
    "linked_tool_calls": _linked_tool_calls,
    "v2_chat_dataset": _v2_chat_dataset,
    "baseline_reports": _baseline_reports,
    "lora_adapter": _lora_adapter,
    "merged_model": _merged_model,
    "gguf_q6k": _gguf_q6k,
    "eval_reports": _eval_reports,
}


def latest_partition(store: ArtifactStore) -> str | None:
    """Return the partition whose `jsonl_sessions` was made last, or None where nothing was made."""
    folder = store.root / "jsonl_sessions"
    made = (
        [entry for entry in folder.iterdir() if store.current("jsonl_sessions", entry.name)] if folder.is_dir() else []
    )
    return max(made, key=lambda entry: (entry / "current").stat().st_mtime_ns).name if made else None

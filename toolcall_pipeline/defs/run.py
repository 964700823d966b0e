"""The chain from the command line: one Dagster run in this process, on the same storage the UI shows.

What is there already and passed its gates is not made again: where nothing is left to do, no run is started at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError
from dagster_postgres.utils import DagsterPostgresException
from filelock import FileLock, Timeout
from sqlalchemy.exc import DBAPIError

from toolcall_pipeline import __version__, chain
from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.defs.checks import safe_error
from toolcall_pipeline.defs.configuration import CONFIGURATION_KEY, resolve
from toolcall_pipeline.defs.instance import project_instance
from toolcall_pipeline.defs.jobs import FULL_CHAIN
from toolcall_pipeline.defs.partitions import add_partition
from toolcall_pipeline.defs.stage import HELD_METADATA
from toolcall_pipeline.defs.state import PROCESS_TAG, asset_states, process_identity, runs_in_progress
from toolcall_pipeline.defs.wiring import Wiring, production_wiring
from toolcall_pipeline.errors import GateHeldError, RunInProgressError, StoreError
from toolcall_pipeline.gates import guard
from toolcall_pipeline.partition_key import parse_partition_key
from toolcall_pipeline.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from toolcall_pipeline.presets import Configuration

RunProgress = Callable[[str, str, int, int | None, str, str], None]
"""Called with (asset, state, done, total or None, unit, message)."""


@dataclass
class RunOutcome:
    """What became of a run.

    Attributes:
        partition: The `backfill_run_id`.
        dagster_run_id: Of the run in the UI; None where nothing was left to do.
        made, skipped: Assets made by this run, and those that were there and did not change.
        held: Asset to why it was not made: a gate above did not pass.
        failed: Asset to what broke.
        gates_held: `gate on asset` to what it found, for every gate of this run that did not pass.
    """

    partition: str
    dagster_run_id: str | None = None
    made: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    gates_held: dict[str, str] = field(default_factory=dict)


def run_chain(
    settings: Settings,
    *,
    partition: str,
    preset: str | None = None,
    sessions_dir: Path | None = None,
    until: str = "eval_reports",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    progress: RunProgress | None = None,
    wiring: Wiring | None = None,
) -> RunOutcome:
    """Make the assets of a partition up to one of them, with every gate, in this process.

    Args:
        settings: Where state and server are.
        partition: The `backfill_run_id`; added where it is new.
        preset: None keeps what the partition remembers.
        sessions_dir: Folder with session files; None reads the shipped samples.
        until: Last asset to make.
        overrides: Section to field to value, on top of the preset.
        progress: Hears of every asset's state.
        wiring: The stages below; the real ones by default.

    Raises:
        UsageError: A malformed partition key, an unknown asset, or a configuration that does not fit.
        RunInProgressError: Another run of the partition is going on.
        StoreError: The server went away.
        KeyboardInterrupt: It was stopped; what was finished is kept.
    """
    parse_partition_key(partition)
    wiring = wiring or production_wiring()
    asked = [*chain.ancestors(until), until]
    explicit: dict[str, Any] = {name: dict(fields) for name, fields in (overrides or {}).items()}
    if preset is not None:
        explicit["preset"] = preset
    outcome = RunOutcome(partition)
    tell = progress or _silent
    engine = wiring.open_engine(settings)
    try:
        with _database_errors_in_our_words(partition), _only_run_of(settings, partition):
            todo = _left_to_do(engine, settings, partition, asked, explicit)
            outcome.skipped = [asset for asset in asked if asset not in todo]
            for asset in outcome.skipped:
                tell(asset, "skipped", 0, None, "", "")
            if todo:
                run_config = _run_config(todo, explicit, sessions_dir)
                _execute(settings, wiring, outcome, todo, run_config, tell)
    finally:
        engine.dispose()
    return outcome


@contextmanager
def _database_errors_in_our_words(partition: str) -> Iterator[None]:
    """Say what a lost server means, in place of the driver's own errors (which may quote rows)."""
    try:
        yield
    except (DagsterPostgresException, DBAPIError) as error:
        raise StoreError(
            f"PostgreSQL went away while {partition} was being made. What was finished is kept. Start the server "
            "(`toolcall-pipeline db start`, or the one of DATABASE_URL) and run this again: it goes on from there."
        ) from error


@contextmanager
def _only_run_of(settings: Settings, partition: str) -> Iterator[None]:
    """Refuse to go on beside another run of the partition, started here or in the UI."""
    lock_file = settings.home_dir / "locks" / f"{partition}.lock"
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _in_progress(partition, "another `toolcall-pipeline run`") from None
    try:
        with project_instance(settings, in_process=True) as instance:
            others = runs_in_progress(instance, partition)
        if others:
            raise _in_progress(partition, f"run {others[0].run_id} of {others[0].job_name}, started elsewhere")
        yield
    finally:
        lock.release()


def _in_progress(partition: str, other: str) -> RunInProgressError:
    return RunInProgressError(
        f"Partition {partition} is being made by {other}. Wait until `toolcall-pipeline status {partition}` shows nothing "
        "running, or stop that run (Ctrl-C, or Terminate on its page in the UI), then run this again: it goes on where that "
        "one stopped."
    )


def _left_to_do(
    engine: Engine,
    settings: Settings,
    partition: str,
    asked: list[str],
    explicit: Mapping[str, Any],
) -> list[str]:
    """Return the assets that are missing, changed, held, broken when last made, or made from one that is."""
    from toolcall_pipeline.store import runs

    run = runs.get_run(engine, partition)
    configuration = resolve(explicit, run.configuration if run else None)
    if run is None or configuration != run.configuration:
        return asked
    store = ArtifactStore(settings.artifacts_dir)
    seen = asset_states(settings, partition) or {}
    todo: list[str] = []
    for asset in asked:
        must = seen.get(asset, "done") != "done" or any(above in todo for above in chain.UPSTREAM[asset])
        if must or not _is_current(engine, store, partition, asset, configuration):
            todo.append(asset)
    return todo


def _is_current(engine: Engine, store: ArtifactStore, partition: str, asset: str, configuration: Configuration) -> bool:
    artifact = store.current(asset, partition)
    if artifact is None or artifact.manifest.versions.get("toolcall-pipeline", __version__) != __version__:
        return False
    if store.stale_parent(artifact) is not None:
        return False
    try:
        guard.require_passed(engine, store, partition, (asset,), configuration)
    except GateHeldError:
        return False
    return True


def _run_config(todo: list[str], explicit: Mapping[str, Any], sessions_dir: Path | None) -> dict[str, Any]:
    ops: dict[str, Any] = {}
    if "jsonl_sessions" in todo and sessions_dir is not None:
        ops["jsonl_sessions"] = {"config": {"sessions_dir": str(sessions_dir)}}
    return {
        "ops": ops,
        "resources": {CONFIGURATION_KEY: {"config": dict(explicit)}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }


def _execute(
    settings: Settings,
    wiring: Wiring,
    outcome: RunOutcome,
    todo: list[str],
    run_config: dict[str, Any],
    tell: RunProgress,
) -> None:
    from toolcall_pipeline.definitions import build_defs

    watched = _Watch(wiring, tell)
    defs = build_defs(watched.wiring())
    checks = {dg.AssetCheckKey(dg.AssetKey(asset), gate) for asset in todo for gate in wiring.gate_questions[asset]}
    job = defs.resolve_job_def(FULL_CHAIN).get_subset(
        asset_selection={dg.AssetKey(asset) for asset in todo}, asset_check_selection=checks
    )
    with project_instance(settings, in_process=True) as instance:
        add_partition(instance, outcome.partition)
        result = job.execute_in_process(
            instance=instance,
            partition_key=outcome.partition,
            run_config=run_config,
            raise_on_error=False,
            tags={PROCESS_TAG: process_identity()},
        )
    if any(_was_interrupted(event) for event in result.all_events):
        raise KeyboardInterrupt
    outcome.dagster_run_id = result.run_id
    _read_events(outcome, todo, result.all_events, watched.errors)
    if not (result.success or outcome.held or outcome.failed or outcome.gates_held):
        outcome.failed["the run"] = f"broke before any asset; see run {result.run_id} in the UI"
    for asset in [*outcome.held, *outcome.failed]:
        tell(asset, "held" if asset in outcome.held else "failed", 0, None, "", "")


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    if event.event_type is dg.DagsterEventType.PIPELINE_CANCELED:
        return True
    if not event.is_step_failure or event.step_failure_data.error is None:
        return False
    return event.step_failure_data.error.cls_name in (DagsterExecutionInterruptedError.__name__, "KeyboardInterrupt")


def _read_events(
    outcome: RunOutcome, todo: list[str], events: Sequence[dg.DagsterEvent], errors: Mapping[str, str]
) -> None:
    """Fill in what was made, what held and what broke."""
    for event in events:
        if event.is_step_materialization and event.asset_key is not None:
            outcome.made.append(event.asset_key.to_user_string())
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed:
                asset = evaluation.asset_key.to_user_string()
                outcome.gates_held[f"{evaluation.check_name} on {asset}"] = evaluation.description or "did not pass"
        elif event.is_step_failure and event.step_key is not None:
            data = event.step_failure_data
            if event.step_key not in chain.UPSTREAM:
                if data.error is None or data.error.cls_name != DagsterAssetCheckFailedError.__name__:
                    outcome.failed[event.step_key] = "could not be judged; see the run's log in the UI"
                continue
            user = data.user_failure_data
            if user is not None and HELD_METADATA in user.metadata:
                outcome.held[event.step_key] = user.description or "held"
            else:
                text = user.description if user is not None else None
                outcome.failed[event.step_key] = errors.get(event.step_key) or text or "broke; see the run's log"
    for asset in todo:
        if asset in outcome.made or asset in outcome.held or asset in outcome.failed:
            continue
        above = (*chain.ancestors(asset), asset)
        holding = [gate for gate in outcome.gates_held if gate.rpartition(" on ")[2] in above]
        if holding:
            outcome.held[asset] = "held by " + ", ".join(holding)


@dataclass
class _Watch:
    """Listens to the stages: tells of their states, and keeps what broke."""

    below: Wiring
    tell: RunProgress
    errors: dict[str, str] = field(default_factory=dict)

    def wiring(self) -> Wiring:
        return replace(self.below, materialise=self._materialise, progress=self._progress)

    def _progress(self, asset: str, done: int, total: int | None, unit: str, message: str) -> None:
        self.below.progress(asset, done, total, unit, message)
        self.tell(asset, "progress", done, total, unit, message)

    def _materialise(self, asset: str, *arguments: Any, **options: Any) -> Artifact:
        self.tell(asset, "started", 0, None, "", "")
        try:
            artifact = self.below.materialise(asset, *arguments, **options)
        except Exception as error:
            self.errors[asset] = safe_error(error)
            raise
        self.tell(asset, "done", 0, None, "", "")
        return artifact


def _silent(asset: str, state: str, done: int, total: int | None, unit: str, message: str) -> None:
    pass

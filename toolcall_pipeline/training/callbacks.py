"""What happens between steps: metrics on disk, progress for whoever watches, a stop on request, a stop on NaN."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.errors import TrainingError
from toolcall_pipeline.training.checkpoints import mark_complete
from toolcall_pipeline.training.job import METRICS_NAME, PROGRESS_NAME

if TYPE_CHECKING:
    from transformers import TrainerCallback

ProgressSink = Callable[[dict[str, Any]], None]
_TRAIN_KEYS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
}
_EVAL_KEYS = {"eval_loss": "eval_loss", "eval_mean_token_accuracy": "eval_token_accuracy"}


class StopRequest:
    """Whether somebody asked to stop: by SIGTERM or SIGINT, or by dying without a word; read between steps."""

    def __init__(self) -> None:
        self._signalled = False
        self._parent = os.getppid()
        self.obeyed = False

    @property
    def requested(self) -> bool:
        """Return whether a signal came, or the process that started this one is gone (it was killed)."""
        return self._signalled or os.getppid() != self._parent

    def install(self) -> None:
        """Take SIGTERM and SIGINT as requests to stop after the step in hand."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self.ask())

    def ask(self) -> None:
        """Ask to stop after the step in hand."""
        self._signalled = True


def print_json_line(record: dict[str, Any]) -> None:
    """Write one record as a JSON line to standard output, at once; where nobody listens any more, to nobody."""
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(record, sort_keys=True) + "\n")
        sys.stdout.flush()


def require_finite(name: str, value: float, step: int) -> None:
    """Stop a run that broke.

    Raises:
        TrainingError: The value is NaN or infinite; the message says what to turn.
    """
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} became {value} at step {step}; nothing after it can be used. Halve training.learning_rate, raise "
            "training.warmup_ratio, or set training.precision to fp32; then start again. The last checkpoint is from "
            "before it."
        )


def make_callback(
    *, work_dir: Path, stop: StopRequest, sinks: list[ProgressSink], real_tokens_ratio: float, is_main_process: bool
) -> TrainerCallback:
    """Return the callback of a run.

    Args:
        work_dir: Where `metrics.jsonl` (what decides the result: the same in every run) and `progress.jsonl` (rates
            and times as well) go.
        stop: Asked after every step.
        sinks: Called with every progress record.
        real_tokens_ratio: Share of a batch's tokens that are not padding.
        is_main_process: Only that one writes.
    """
    from transformers import TrainerCallback

    class RunCallback(TrainerCallback):
        def __init__(self) -> None:
            self.started: float | None = None
            self.first_step = 0
            self.first_tokens = 0.0

        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            if _anyone_asked_to_stop(stop):
                stop.obeyed = True
                control.should_save = True
                control.should_training_stop = True
            return control

        def on_save(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            wait_for_all()  # every process writes its own random state into the checkpoint
            if is_main_process:
                mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

        def on_log(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
            names = _TRAIN_KEYS if "loss" in (logs or {}) else _EVAL_KEYS
            record = {ours: float(logs[theirs]) for theirs, ours in names.items() if theirs in (logs or {})}
            if not record:
                return
            if is_main_process:
                self._publish(state, logs, record)
            # In every process, since the figures are those of all of them: none is left waiting for one that stopped.
            for name in ("loss", "eval_loss", "grad_norm"):
                if name in record:
                    require_finite(name, record[name], state.global_step)

        def _publish(self, state: Any, logs: dict[str, Any], record: dict[str, float]) -> None:
            placed = {"step": state.global_step, "epoch": round(float(logs.get("epoch", 0.0)), 6), **record}
            _append(work_dir / METRICS_NAME, placed)
            event = {"event": "step" if "loss" in record else "evaluation", "total": state.max_steps, **placed}
            if "loss" in record:
                event.update(self._rates(state, float(logs.get("num_tokens", 0.0)) * real_tokens_ratio))
            _append(work_dir / PROGRESS_NAME, event)
            for sink in sinks:
                sink(event)

        def _rates(self, state: Any, tokens: float) -> dict[str, float]:
            now = time.monotonic()
            if self.started is None:
                # The first step carries compilation and warm-up: rates count from its end.
                self.started, self.first_step, self.first_tokens = now, state.global_step, tokens
                return {}
            elapsed = max(now - self.started, 1e-9)
            steps = state.global_step - self.first_step
            if steps <= 0:
                return {}
            return {
                "tokens_per_second": round((tokens - self.first_tokens) / elapsed, 1),
                "seconds_per_step": round(elapsed / steps, 4),
                "eta_seconds": round(elapsed / steps * (state.max_steps - state.global_step), 1),
            }

    return RunCallback()


def wait_for_all() -> None:
    """Wait until every process of a run has come here; nothing where there is one."""
    import torch

    if _is_distributed():
        torch.distributed.barrier()


def _is_distributed() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _anyone_asked_to_stop(stop: StopRequest) -> bool:
    """Agree over all processes: a rank that stopped alone would leave the others waiting for it."""
    import torch

    if not _is_distributed():
        return stop.requested
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flag = torch.tensor([int(stop.requested)], device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record, sort_keys=True) + "\n")

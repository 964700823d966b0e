"""Training in processes of its own: signals, exit codes, several processes, another command in its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from toolcall_pipeline.artifacts import sha256_file
from toolcall_pipeline.errors import ConfigurationError, TrainingError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.training import __main__ as entry
from toolcall_pipeline.training.job import EXIT_STOPPED
from toolcall_pipeline.training.stage import run_process, train_adapter
from toolcall_pipeline_tests.training.conftest import read_losses

pytestmark = pytest.mark.filterwarnings("default")  # torch, transformers and trl warn about each other

_WEIGHTS = "adapter/adapter_model.safetensors"


def launcher(on_step: Callable[[subprocess.Popen[str], int], None], codes: list[int]) -> Callable[[Path], int]:
    """Return a launch that trains in a process of its own and calls `on_step` at every step it reports."""

    def launch(path: Path) -> int:
        command = [sys.executable, "-m", "toolcall_pipeline.training", str(path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        ) as child:
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    event = json.loads(line)
                    if event["event"] == "step":
                        on_step(child, event["step"])
                codes.append(child.wait())
            finally:
                child.kill()
        return codes[-1]

    return launch


def quietly(child: subprocess.Popen[str], step: int) -> None:
    """Let it train."""


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_its_own_exit_code(make_context, make_dataset) -> None:
    codes: list[int] = []
    launch = launcher(lambda child, step: child.send_signal(signal.SIGTERM), codes)
    with pytest.raises(TrainingError, match="left a checkpoint"):
        train_adapter(make_context(training={"max_steps": 2000}), make_dataset(), launch=launch)
    assert codes == [EXIT_STOPPED]


@pytest.mark.slow
def test_a_process_killed_with_minus_nine_resumes_like_an_undisturbed_one(make_context, make_dataset, tmp_path) -> None:
    context, dataset, codes = make_context(), make_dataset(), []
    whole = train_adapter(context, dataset, launch=launcher(quietly, codes))
    whole.directory.rename(tmp_path / "whole")

    def kill(child: subprocess.Popen[str], step: int) -> None:
        if step == 3:
            child.kill()

    with pytest.raises(TrainingError, match="ended with code -9"):
        train_adapter(context, dataset, launch=launcher(kill, codes))
    resumed = train_adapter(context, dataset, launch=launcher(quietly, codes))
    assert codes == [0, -signal.SIGKILL, 0]
    assert read_losses(resumed.directory) == read_losses(tmp_path / "whole")
    assert sha256_file(resumed.path(_WEIGHTS)) == sha256_file(tmp_path / "whole" / _WEIGHTS)


@pytest.mark.slow
def test_two_processes_share_every_step_and_say_what_stopped_them(make_context, make_dataset, tmp_path: Path) -> None:
    dataset, codes = make_dataset(), []
    one = train_adapter(make_context(), dataset, launch=launcher(quietly, codes))
    two = train_adapter(make_context(training={"process_count": 2}), dataset, launch=launcher(quietly, codes))
    assert two.manifest.metadata["process_count"] == 2
    assert read_losses(two.directory) == [
        (step, pytest.approx(loss, abs=1e-5)) for step, loss in read_losses(one.directory)
    ]
    hostile = make_context(training={"process_count": 2, "learning_rate": 1e30, "warmup_ratio": 0.0})
    with pytest.raises(TrainingError, match=r"became (nan|inf).*learning_rate"):
        train_adapter(hostile, dataset, launch=launcher(quietly, codes))
    refused = make_context(training={"process_count": 2, "rows_per_step": 5})
    with pytest.raises(ConfigurationError, match="Choose a multiple"):
        train_adapter(refused, dataset, launch=launcher(quietly, codes))
    assert codes == [0, 0, 3, 2]


def test_another_command_trains_where_the_settings_name_one(make_context, make_dataset, tmp_path: Path) -> None:
    script = tmp_path / "with space" / "train elsewhere.py"
    script.parent.mkdir()
    script.write_text(
        "import json, sys\n"
        "print(json.dumps({'event': 'step', 'step': 1, 'total': 2, 'loss': 1.5}))\n"
        f"sys.exit({EXIT_STOPPED} if sys.argv[1:] == ['--on', 'gpu box', sys.argv[-1]] else 3)\n"
    )
    context = make_context()
    command = f"{sys.executable} '{script}' --on 'gpu box'"
    said: list[tuple[int, int | None, str, str]] = []
    context = type(context)(
        partition=context.partition,
        configuration=context.configuration,
        settings=Settings(home=context.settings.home, training_command=command),
        engine=context.engine,
        progress=lambda *progress: said.append(progress),
    )
    with pytest.raises(TrainingError, match="left a checkpoint"):
        train_adapter(context, make_dataset(), launch=lambda path: run_process(path, context))
    assert said == [(1, 2, "step", "step 1/2, loss 1.5000")]


@pytest.mark.parametrize(("given", "seen"), [(None, "0"), ("3,1", "3"), ("GPU-ab,GPU-cd", "GPU-ab"), ("", "")])
def test_one_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch, given: str | None, seen: str) -> None:
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    monkeypatch.setattr(entry.os, "environ", environment)
    entry._see_one_gpu()
    assert environment == {"CUDA_VISIBLE_DEVICES": seen}

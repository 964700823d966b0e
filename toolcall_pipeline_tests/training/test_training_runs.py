"""Training runs of a tiny model: it learns, it can be stopped and resumed, it breaks loudly."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import pytest
from filelock import FileLock

from toolcall_pipeline.artifacts import sha256_file
from toolcall_pipeline.errors import ConfigurationError, TrainingError
from toolcall_pipeline.gates.lora_adapter import GATES
from toolcall_pipeline.gates.profiles import rule_for
from toolcall_pipeline.gates.verdict import GateContext, Verdict
from toolcall_pipeline.training import process
from toolcall_pipeline.training.__main__ import main, progress_sentence
from toolcall_pipeline.training.callbacks import StopRequest, require_finite
from toolcall_pipeline.training.job import load_job
from toolcall_pipeline.training.stage import train_adapter
from toolcall_pipeline_tests.training.conftest import make_rows, read_losses, write_rows

pytestmark = pytest.mark.filterwarnings("default")  # torch, transformers and trl warn about each other


def in_process(path: Path, *, stop_after: int | None = None) -> int:
    """Launch a job here instead of in a process of its own, stopping after a step if asked to."""
    stop = StopRequest()

    def sink(event: dict) -> None:
        if event.get("step") == stop_after:
            stop.ask()

    return process.run(load_job(path), [sink], stop)


def judge(context, artifact) -> dict[str, Verdict]:
    return {
        gate.name: gate.judge(
            GateContext(
                artifact, context.partition, context.artifacts, context.engine, context.configuration,
                rule_for(context.configuration, gate.asset, gate.name),
            )
        ).verdict
        for gate in GATES
    }  # fmt: skip


def test_a_run_learns_passes_its_gates_and_is_found_again(make_context, make_dataset) -> None:
    context, dataset = make_context(), make_dataset()
    adapter = train_adapter(context, dataset, launch=in_process)
    metadata = adapter.manifest.metadata
    assert metadata["eval_loss_after"] < metadata["eval_loss_before"]
    assert metadata["steps_count"] == 6
    assert [step for step, _ in read_losses(adapter.directory)] == [1, 2, 3, 4, 5, 6]
    assert {"adapter/adapter_model.safetensors", "metrics.jsonl", "loss_curve.png", "README.md"} <= set(
        adapter.manifest.files
    )
    config = json.loads(adapter.path("adapter/adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert set(judge(context, adapter).values()) == {Verdict.PASS}
    assert not (context.settings.home_dir / "training").joinpath(context.partition).exists()

    def never(path: Path) -> int:
        raise AssertionError("the adapter was already made")

    assert train_adapter(context, dataset, launch=never).sha256 == adapter.sha256


def test_a_stopped_run_resumes_with_the_same_tail_of_losses_and_the_same_bytes(
    make_context, make_dataset, tmp_path: Path
) -> None:
    context, dataset = make_context(), make_dataset()
    whole = train_adapter(context, dataset, launch=in_process)
    whole.directory.rename(tmp_path / "whole")
    with pytest.raises(TrainingError, match="left a checkpoint"):
        train_adapter(context, dataset, launch=lambda path: in_process(path, stop_after=3))
    resumed = train_adapter(context, dataset, launch=in_process)
    for (step, loss), (_, expected) in zip(
        read_losses(resumed.directory), read_losses(tmp_path / "whole"), strict=True
    ):
        assert loss == pytest.approx(expected, abs=1e-6), step
    weights = "adapter/adapter_model.safetensors"
    assert sha256_file(resumed.path(weights)) == sha256_file(tmp_path / "whole" / weights)


def test_a_killed_run_resumes_like_an_undisturbed_one(make_context, make_dataset, tmp_path: Path) -> None:
    """Kill it between step 5 and its record, with a checkpoint half written: what SIGKILL leaves, without the wait."""

    class Killed(BaseException):
        pass

    def killed(path: Path) -> int:
        def sink(event: dict) -> None:
            if event.get("step") == 5:
                raise Killed

        return process.run(load_job(path), [sink], StopRequest())

    context, dataset = make_context(), make_dataset()
    whole = train_adapter(context, dataset, launch=in_process)
    whole.directory.rename(tmp_path / "whole")
    with pytest.raises(Killed):
        train_adapter(context, dataset, launch=killed)
    work_dir = context.settings.home_dir / "training" / context.partition
    with (work_dir / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 6, "lo')
    half = work_dir / "checkpoints" / "checkpoint-6"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"cut")
    resumed = train_adapter(context, dataset, launch=in_process)
    assert read_losses(resumed.directory) == [
        (step, pytest.approx(loss, abs=1e-6)) for step, loss in read_losses(tmp_path / "whole")
    ]
    weights = "adapter/adapter_model.safetensors"
    assert sha256_file(resumed.path(weights)) == sha256_file(tmp_path / "whole" / weights)


def test_a_training_whose_starter_was_killed_stops_after_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest()
    assert not stop.requested
    monkeypatch.setattr("os.getppid", lambda: -1)
    assert stop.requested


def test_two_trainings_never_write_the_same_folder(
    make_context, make_dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def beside_another(path: Path) -> int:
        with FileLock(path.parent / "training.lock"):
            return main([str(path)])

    monkeypatch.setattr("toolcall_pipeline.training.__main__._LOCK_SECONDS", 0)
    monkeypatch.setattr(StopRequest, "install", lambda self: None)
    with pytest.raises(TrainingError, match="Another process has been training"):
        train_adapter(make_context(), make_dataset(), launch=beside_another)


def test_the_folder_of_a_job_trains_wherever_it_is_copied_to(make_context, make_dataset, tmp_path: Path) -> None:
    context, dataset = make_context(), make_dataset()
    here = train_adapter(context, dataset, launch=in_process)
    here.directory.rename(tmp_path / "here")
    elsewhere = tmp_path / "another machine"

    def there(path: Path) -> int:
        shutil.copytree(path.parent, elsewhere)
        assert not any(entry.is_symlink() for entry in elsewhere.rglob("*"))
        code = in_process(elsewhere / path.name)
        shutil.copytree(elsewhere, path.parent, dirs_exist_ok=True, ignore=shutil.ignore_patterns("base", "*.parquet"))
        return code

    trained = train_adapter(context, dataset, launch=there)
    weights = "adapter/adapter_model.safetensors"
    assert sha256_file(trained.path(weights)) == sha256_file(tmp_path / "here" / weights)
    assert dataset.path("train.encoded.parquet").is_file()


def test_resuming_with_another_configuration_is_refused_with_the_difference(make_context, make_dataset) -> None:
    dataset = make_dataset()
    with pytest.raises(TrainingError, match="left a checkpoint"):
        train_adapter(make_context(), dataset, launch=lambda path: in_process(path, stop_after=2))
    with pytest.raises(TrainingError, match=r"training\.learning_rate: 0\.01 -> 0\.5.*delete"):
        train_adapter(make_context(training={"learning_rate": 0.5}), dataset, launch=in_process)


def test_resuming_with_another_dataset_is_refused_with_the_difference(make_context, make_dataset) -> None:
    with pytest.raises(TrainingError, match="left a checkpoint"):
        train_adapter(make_context(), make_dataset(0), launch=lambda path: in_process(path, stop_after=2))
    with pytest.raises(TrainingError, match="dataset_sha256"):
        train_adapter(make_context(), make_dataset(5), launch=in_process)


def test_packed_rows_have_the_losses_they_have_alone(tiny_base: Path) -> None:
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from toolcall_pipeline.training.base_model import load_model_folder

    model = load_model_folder(tiny_base).eval()
    model.set_attn_implementation("sdpa")
    rows = make_rows(7)
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    labels = batch.pop("labels")[0]
    with torch.inference_mode():
        together = _losses(model(**batch, use_cache=False).logits[0], labels)
        alone = torch.cat(
            [
                _losses(model(input_ids=torch.tensor([row["input_ids"]])).logits[0], torch.tensor(row["labels"]))
                for row in rows
            ]
        )
    assert together.numel() == 7 * 6
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def _losses(logits, labels):
    import torch

    keep = labels[1:] != -100
    return torch.nn.functional.cross_entropy(logits[:-1][keep], labels[1:][keep], reduction="none")


def test_packed_training_sees_every_row_and_learns(make_context, make_dataset) -> None:
    context = make_context(training={"packed_tokens": 128, "rows_per_step": None})
    metadata = train_adapter(context, make_dataset(), launch=in_process).manifest.metadata
    assert metadata["packed_tokens"] == 128
    assert metadata["eval_loss_after"] < metadata["eval_loss_before"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_with_what_to_turn(value: float) -> None:
    with pytest.raises(TrainingError, match=r"step 7.*learning_rate.*precision"):
        require_finite("loss", value, 7)


def test_packing_that_cuts_a_row_is_an_error(monkeypatch: pytest.MonkeyPatch, make_context, make_dataset) -> None:
    import trl

    def cutting(dataset, length, *arguments):
        whole = original(dataset, length, *arguments)
        lengths = whole["seq_lengths"]
        shorter = [[*lengths[0][:-1], lengths[0][-1] - 1], *lengths[1:]]
        return whole.remove_columns("seq_lengths").add_column("seq_lengths", shorter)

    original = trl.pack_dataset
    monkeypatch.setattr(trl, "pack_dataset", cutting)
    context = make_context(training={"packed_tokens": 128, "rows_per_step": None})
    with pytest.raises(TrainingError, match="cuts or loses rows"):
        train_adapter(context, make_dataset(), launch=in_process)


def test_a_validation_row_longer_than_a_packed_sequence_is_an_error_too(make_context, make_dataset) -> None:
    context, dataset = make_context(training={"packed_tokens": 64, "rows_per_step": None}), make_dataset()
    row = make_rows(1)[0]
    row |= {"input_ids": row["input_ids"] * 4, "labels": row["labels"] * 4}
    write_rows(dataset.directory / "valid.encoded.parquet", [row])
    with pytest.raises(TrainingError, match="it would be cut"):
        train_adapter(context, dataset, launch=in_process)


def test_a_rate_that_breaks_the_loss_stops_the_run(make_context, make_dataset) -> None:
    with pytest.raises(TrainingError, match=r"became (nan|inf)"):
        train_adapter(
            make_context(training={"learning_rate": 1e30, "warmup_ratio": 0.0}), make_dataset(), launch=in_process
        )


def test_a_dataset_without_rows_is_refused(make_context, make_dataset) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        train_adapter(make_context(), make_dataset(train_count=0), launch=in_process)


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (2, ConfigurationError, "no message"),  # refused, left nothing
        (3, TrainingError, "ended with code 3"),  # broke
        (-9, TrainingError, "ended with code -9"),  # killed
    ],
)
def test_every_exit_code_of_the_process_has_its_error(make_context, make_dataset, code, error, message) -> None:
    with pytest.raises(error, match=message):
        train_adapter(make_context(), make_dataset(), launch=lambda path: code)


def test_a_missing_accelerator_is_refused_before_anything_is_loaded(make_context, make_dataset) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(ConfigurationError, match="none that PyTorch can use"):
        train_adapter(make_context(training={"device": "cuda"}), make_dataset(), launch=in_process)


def test_the_command_line_refuses_what_is_no_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.json").write_text("{}")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert main([]) == 2
        assert main([str(tmp_path / "job.json")]) == 2
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["error", "error"]


def test_progress_reads_as_a_sentence() -> None:
    event = {"event": "step", "step": 3, "total": 9, "loss": 1.25, "tokens_per_second": 1500.0, "eta_seconds": 12.0}
    assert progress_sentence(event) == "step 3/9, loss 1.2500, 1,500 tokens/s, 12 s left"


@pytest.mark.parametrize(
    ("fault", "gate"),
    [
        ("nan", "loss_finite_and_better"),  # a loss that is not finite
        ("worse", "loss_finite_and_better"),  # the validation loss rose
        ("gap", "loss_finite_and_better"),  # a step nobody recorded
        ("frozen", "all_trainable_changed"),  # a tensor that never moved
        ("lost", "all_trainable_changed"),  # a tensor that was trained and not saved
    ],
)
def test_planted_faults_of_an_adapter_are_held_by_their_gate(make_context, make_dataset, fault: str, gate: str) -> None:
    from safetensors.torch import load_file, save_file

    from toolcall_pipeline.training.tensor_hash import tensor_sha256

    context = make_context()
    adapter = train_adapter(context, make_dataset(), launch=in_process)
    metrics, start = adapter.path("metrics.jsonl"), adapter.path("trainable_start.json")
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    weights = adapter.path("adapter/adapter_model.safetensors")
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    if fault == "nan":
        records[2]["loss"] = math.nan
    elif fault == "worse":
        records[-1]["eval_loss"] = 99.0
    elif fault == "gap":
        del records[2]
    elif fault == "frozen":
        start.write_text(json.dumps(json.loads(start.read_text()) | {name: tensor_sha256(tensors[name])}))
    else:
        save_file({key: value for key, value in tensors.items() if key != name}, weights)
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    verdicts = judge(context, adapter)
    assert [held for held, verdict in verdicts.items() if verdict is not Verdict.PASS] == [gate]

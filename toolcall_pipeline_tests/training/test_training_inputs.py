"""What training refuses before it starts, and how rows become batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall_pipeline.errors import ArtifactError, ConfigurationError, MissingInputError, TrainingError
from toolcall_pipeline.presets import BaseModelConfiguration, TrainingConfiguration
from toolcall_pipeline.training.base_model import count_parameters, resolve_base
from toolcall_pipeline.training.checkpoints import differences, latest_checkpoint, mark_complete
from toolcall_pipeline.training.encoded import read_encoded_rows
from toolcall_pipeline.training.gguf_header import read_gguf_header
from toolcall_pipeline.training.packing import BatchPlan, plan_batches
from toolcall_pipeline_tests.training.conftest import make_rows, write_rows


@pytest.mark.parametrize(
    ("fields", "device", "longest", "expected"),
    [
        ({"packed_tokens": 16_384}, "cuda", 4096, BatchPlan(16_384, 1, 1, 16_384)),  # one shape for compiled layers
        ({"packed_tokens": 16_384}, "cpu", 4096, BatchPlan(16_384, 1, 1, None)),  # padding is wasted on a CPU
        ({"packed_tokens": 0}, "cuda", 4096, BatchPlan(0, 1, 1, None)),  # row by row
        ({"rows_per_step": 4}, "cuda", 4096, BatchPlan(0, 4, 1, None)),  # exactly 4
        ({"rows_per_step": 64}, "cuda", 4096, BatchPlan(0, 4, 16, None)),  # 64 do not fit at once
        ({"rows_per_step": 6}, "cpu", 9000, BatchPlan(0, 1, 6, None)),  # the longest row fills a batch
        ({"rows_per_step": 8, "process_count": 2}, "cuda", 512, BatchPlan(0, 4, 1, None)),  # shared by two GPUs
        ({"packed_tokens": 8192, "gradient_accumulation": 3}, "cuda", 10, BatchPlan(8192, 1, 3, 8192)),
    ],
)
def test_rows_become_batches_of_exactly_what_was_asked_for(fields, device, longest, expected) -> None:
    assert plan_batches(TrainingConfiguration(**fields), device=device, longest_row_tokens=longest) == expected


def test_a_row_longer_than_a_packed_sequence_is_an_error_and_never_a_cut() -> None:
    with pytest.raises(TrainingError, match=r"longest row has 5000 tokens.*packed_tokens = 4096"):
        plan_batches(TrainingConfiguration(packed_tokens=4096), device="cuda", longest_row_tokens=5000)


def test_rows_per_step_that_no_number_of_processes_can_share_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Choose a multiple"):
        plan_batches(TrainingConfiguration(rows_per_step=5, process_count=2), device="cuda", longest_row_tokens=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["input_ids"].extend([7] * 99) or row["labels"].extend([7] * 99), "more than the 64 that fit"),
        (lambda row: row["labels"].pop(), "tokens but"),
        (lambda row: row.update(labels=[-100] * len(row["labels"])), "no supervised token"),
        (lambda row: row.update(labels=[*row["labels"][1:], -100]), "labels are not shifted"),
    ],
)
def test_rows_that_would_teach_something_else_are_refused_by_name(tmp_path: Path, change, message) -> None:
    rows = make_rows(5)
    change(rows[3])
    with pytest.raises(TrainingError, match=f"row-3.*{message}"):
        read_encoded_rows(write_rows(tmp_path / "rows.parquet", rows), max_tokens=64)


def test_rows_are_read_evenly_when_only_some_are_wanted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.parquet", make_rows(10))
    rows = read_encoded_rows(path, max_tokens=64, limit=5)
    assert rows.table.column("row_id").to_pylist() == ["row-0", "row-2", "row-4", "row-6", "row-8"]
    assert rows.supervised_tokens == 5 * 6


def test_a_file_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(MissingInputError, match=r"x\.parquet"):
        read_encoded_rows(tmp_path / "x.parquet", max_tokens=64)


def test_differences_name_every_changed_value_by_its_path() -> None:
    old = {"a": {"rate": 1, "same": 2}, "gone": 3}
    new = {"a": {"rate": 5, "same": 2}, "new": 4}
    assert differences(old, new) == ["a.rate: 1 -> 5", "gone: 3 -> None", "new: None -> 4"]


def test_a_checkpoint_that_was_being_written_when_the_process_died_is_not_resumed(tmp_path: Path) -> None:
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    mark_complete(tmp_path / "checkpoint-2")
    mark_complete(tmp_path / "checkpoint-10")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_the_base_is_described_and_its_licence_read(tiny_base: Path, tmp_path: Path) -> None:
    info = resolve_base(BaseModelConfiguration(model=str(tiny_base)), tmp_path)
    assert (info.architecture, info.licence, info.native_context_tokens) == ("Qwen2ForCausalLM", "apache-2.0", 512)
    assert info.parameter_count == count_parameters(tiny_base) > 1_000_000
    assert "path" not in info.to_json()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("wheel:nothing", "No base model is known"),
        ("/no/such/folder", "There is no base model"),
        ("x.gguf", "no base model file"),
        ("a b c", "There is no base model"),
    ],
)
def test_a_base_that_is_not_there_is_refused_with_what_would_do(model: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve_base(BaseModelConfiguration(model=model), tmp_path)


def test_a_base_over_the_size_rule_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Choose a smaller base"):
        resolve_base(BaseModelConfiguration(model=str(tiny_base), max_q4_k_m_bytes=1000), tmp_path)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["X"]}))
    with pytest.raises(ConfigurationError, match=r"pytorch_model\.bin.*never opened"):
        resolve_base(BaseModelConfiguration(model=str(tmp_path)), tmp_path / "cache")


def test_truncated_safetensors_are_named(tiny_base: Path, tmp_path: Path) -> None:
    data = (tiny_base / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_text((tiny_base / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigurationError, match=r"model\.safetensors is no readable safetensors file"):
        resolve_base(BaseModelConfiguration(model=str(tmp_path)), tmp_path / "cache")


@given(data=st.binary(max_size=300), magic=st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_bytes_whatever_pass_for_a_gguf_or_crash_its_reader(tmp_path_factory, data: bytes, magic: bool) -> None:
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    path.write_bytes((b"GGUF\x03\x00\x00\x00" if magic else b"") + data)
    with pytest.raises(ArtifactError):
        header = read_gguf_header(path)
        if not header.tensors:  # an empty but well-formed head
            raise ArtifactError("no tensors")

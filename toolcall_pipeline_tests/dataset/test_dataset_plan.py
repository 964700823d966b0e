"""The plan says what a training takes, and refuses what cannot be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.dataset.plan import DEVICES, make_plan, require_merge_memory
from toolcall_pipeline.errors import ConfigurationError, MissingInputError
from toolcall_pipeline.gates.profiles import rules_for
from toolcall_pipeline.presets import resolve_configuration
from toolcall_pipeline.training.base_model import resolve_base


@dataclass(frozen=True)
class Base:
    """A Qwen2.5-3B shape."""

    path: Path
    source: str = "Qwen/Qwen2.5-3B-Instruct"
    parameter_count: int = 3_085_938_688
    q4_k_m_bytes_estimate: int = 1_900_000_000
    native_context_tokens: int = 32_768


def write_base(
    folder: Path, *, hidden: int, layers: int, intermediate: int, heads: int, kv: int, **fields: Any
) -> Base:
    shape = {
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": intermediate,
        "num_attention_heads": heads, "num_key_value_heads": kv,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    return Base(folder, **fields)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return write_base(tmp_path, hidden=2048, layers=36, intermediate=11008, heads=16, kv=2)


def plan(base: Base, dataset: Artifact | None, device: str = "h100", **training: Any) -> Any:
    configuration = resolve_configuration("nightly", {"training": training})
    return make_plan(configuration, dataset, base, device=device, gates=["a:b"])


def test_it_counts_what_trains(base: Base, standard: Artifact) -> None:
    made = plan(base, standard)
    assert made.train_rows == standard.manifest.metadata["train_rows"]
    assert made.train_tokens == standard.manifest.metadata["train_tokens"]
    assert made.steps == -(-made.train_tokens // int(16_384 * 0.97))
    assert made.gates == ("a:b",)
    assert made.refusals == ()
    made.require_feasible()


def small_base(folder: Path) -> Base:
    """SmolLM2-135M's shape."""
    return write_base(
        folder, hidden=576, layers=30, intermediate=1536, heads=9, kv=3, source="small", parameter_count=134_515_008
    )


def test_memory_agrees_with_what_was_measured(base: Base, standard: Artifact, tmp_path_factory: Any) -> None:
    # Both at 16k packed tokens on one H100 (docs/reference/training.md).
    assert plan(base, standard, lora_rank=16).memory_bytes / (1 << 30) == pytest.approx(69.4, rel=0.01)
    small = small_base(tmp_path_factory.mktemp("small"))
    assert plan(small, standard, lora_rank=32).memory_bytes == pytest.approx(14_417_649_152, rel=0.01)


@pytest.mark.parametrize("device", ["rtx4090", "h100"])
def test_checkpointing_trades_memory_for_time(device: str, base: Base, standard: Artifact) -> None:
    plain, less = plan(base, standard, device), plan(base, standard, device, gradient_checkpointing=True)
    assert less.memory_bytes < plain.memory_bytes / 3
    assert plain.tokens_per_second == pytest.approx(1.5 * less.tokens_per_second, rel=0.001)
    assert bool(plain.refusals) is (device == "rtx4090")
    assert less.refusals == ()


def test_an_apple_gpu_trains_in_float32_and_keeps_what_every_pair_of_tokens_weighs(
    base: Base, standard: Artifact
) -> None:
    short, long = (plan(base, standard, "mps", packed_tokens=tokens, precision="auto") for tokens in (4096, 8192))
    assert short.memory_bytes == plan(base, standard, "mps", packed_tokens=4096, precision="fp32").memory_bytes
    assert short.memory_bytes > plan(base, standard, "cpu", packed_tokens=4096, precision="auto").memory_bytes
    assert long.memory_bytes > 2.5 * short.memory_bytes  # attention grows with the square


def test_a_base_that_this_machine_cannot_merge_is_refused_before_it_trains(
    base: Base, standard: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(base, standard)
    assert made.merge_memory_bytes > 4 * base.parameter_count
    for memory_bytes, fits in ((made.merge_memory_bytes, True), (made.merge_memory_bytes - 1, False)):
        monkeypatch.setattr("psutil.virtual_memory", lambda total=memory_bytes: SimpleNamespace(total=total))
        assert ("Merging in float32" in " ".join(plan(base, standard).refusals)) is not fits
    with pytest.raises(ConfigurationError, match=r"needs about 12\.5 GiB of memory and this machine has"):
        require_merge_memory(base.parameter_count)


def test_lora_parameters_are_counted_as_peft_counts_them(base: Base, standard: Artifact) -> None:
    # 29.9 M trainable parameters at rank 16 (source design, section 8).
    assert plan(base, standard, lora_rank=16).trainable_parameters == pytest.approx(29.9e6, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"q4_k_m_bytes_estimate": 7_000_000_000}, "size rule"),
        ({"native_context_tokens": 100}, "reads 100"),
        ({"parameter_count": 60_000_000_000}, "of memory"),
    ],
)
def test_what_cannot_fit_is_refused_before_it_starts(
    changes: dict[str, Any], said: str, base: Base, standard: Artifact
) -> None:
    made = plan(Base(**{**vars(base), **changes}), standard)
    assert said in " ".join(made.refusals)
    with pytest.raises(ConfigurationError, match=said):
        made.require_feasible()
    assert "REFUSED" in made.as_text()


def test_without_a_dataset_or_a_known_device_nothing_starts(base: Base) -> None:
    assert "materialise v2_chat_dataset" in plan(base, None).refusals[0]
    with pytest.raises(ConfigurationError, match="Choose one of"):
        plan(base, None, device="abacus")


def test_a_row_that_no_pack_can_hold_is_refused(base: Base, standard: Artifact) -> None:
    assert "nothing is cut" in " ".join(plan(base, standard, packed_tokens=256).refusals)


@pytest.mark.parametrize("preset", ["smoke", "nightly", "full"])
@pytest.mark.parametrize("device", sorted(DEVICES))
def test_every_preset_is_planned_on_every_device(preset: str, device: str, base: Base, standard: Artifact) -> None:
    configuration = resolve_configuration(preset)
    gates = [f"{asset}:{gate}" for asset, gate in rules_for(configuration)]
    made = make_plan(configuration, standard, base, device=device, gates=gates)
    assert made.steps > 0
    assert 0 < made.tokens_per_second < 1e6
    assert made.hours > 0
    text = made.as_text()
    assert "v2_chat_dataset   no_secrets, min_examples" in text
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"memory_available_bytes": 1 << 30}, "of memory"), ({"free_disk_bytes": 1 << 30}, "GB of disk")],
)
def test_a_machine_with_too_little_is_refused_and_told_how_much(
    changes: dict[str, int], said: str, base: Base, standard: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = changes.pop("free_disk_bytes", None)
    if free is not None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    made = make_plan(resolve_configuration("nightly"), standard, base, device="h100", **changes)
    with pytest.raises(ConfigurationError, match=said):
        made.require_feasible()


def test_a_small_base_is_not_promised_more_than_a_gpu_was_seen_to_do(base: Base, standard: Artifact) -> None:
    small = Base(**{**vars(base), "parameter_count": 135_000_000})
    assert plan(small, standard).tokens_per_second < 140_000


def test_a_hub_that_cannot_be_reached_is_a_missing_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **options: Any) -> None:
        raise httpx.ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(MissingInputError, match=r"fetched from the hub.*local\s*folder"):
        resolve_base(resolve_configuration("nightly").base, tmp_path)


def test_steps_and_time_follow_the_limit_of_steps(base: Base, standard: Artifact) -> None:
    whole, few = plan(base, standard, rows_per_step=2), plan(base, standard, rows_per_step=2, max_steps=3)
    assert few.steps == 3
    assert few.hours < whole.hours

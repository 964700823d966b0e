"""A tiny seeded Qwen2 model, rows for it, and the context of a partition: what training tests run on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.presets import Configuration, resolve_configuration
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext

PARTITION = "20261123T020000Z-test"
IM_START, IM_END = 1, 2
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a Qwen2 model of 256-wide layers with seeded weights, and a tokenizer of single words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("tiny-base")
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=256, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=IM_END, pad_token_id=0,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = {"<pad>": 0, "<|im_start|>": IM_START, "<|im_end|>": IM_END} | {f"w{i}": i for i in range(3, 256)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def make_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows whose supervised tokens repeat the prompt's: something two layers can learn."""
    dice = random.Random(seed)
    rows = []
    for index in range(count):
        prompt = [dice.randrange(3, 40) for _ in range(dice.randrange(6, 30))]
        answer = [*prompt[:5], IM_END]
        ids = [IM_START, *prompt, IM_END, IM_START, *answer]
        rows.append(
            {"row_id": f"row-{index}", "input_ids": ids, "labels": [-100] * (len(prompt) + 3) + answer},
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as the dataset's encoded Parquet."""
    schema = pa.schema([("row_id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


@pytest.fixture(scope="session")
def configuration(tiny_base: Path) -> Configuration:
    return resolve_configuration(
        "smoke",
        {
            "base": {"model": str(tiny_base)},
            "dataset": {"max_row_tokens": 256},
            "training": {
                "max_steps": 6, "rows_per_step": 4, "save_every_steps": 2, "evaluation_rows": 8, "lora_rank": 4,
                "learning_rate": 1e-2,
            },
            "export": {"equivalence_rows": 4},
        },
    )  # fmt: skip


@pytest.fixture
def make_context(tmp_path: Path, configuration: Configuration) -> Callable[..., StageContext]:
    """Return a maker of stage contexts on one home; sections given replace the configuration's fields."""

    return lambda **sections: context_of(configuration, tmp_path / "home", sections)


def context_of(configuration: Configuration, home: Path, sections: dict[str, dict[str, Any]]) -> StageContext:
    """Return a stage context on a home, with fields of the configuration replaced."""
    data = configuration.model_dump()
    for section, fields in sections.items():
        data[section].update(fields)
    return StageContext(
        partition=PARTITION,
        configuration=Configuration.model_validate(data),
        settings=Settings(home=home),
        engine=None,  # type: ignore[arg-type] - training never asks the database
    )


@pytest.fixture
def make_dataset(make_context: Callable[..., StageContext]) -> Callable[..., Artifact]:
    """Return a maker of small `v2_chat_dataset` artifacts."""

    def make(seed: int = 0, train_count: int = 24) -> Artifact:
        store: ArtifactStore = make_context().artifacts
        recipe = {"seed": seed, "count": train_count}
        found = store.find("v2_chat_dataset", PARTITION, recipe)
        if found is None:
            with store.build("v2_chat_dataset", PARTITION, recipe_of_artifact=recipe) as build:
                write_rows(build.directory / "train.encoded.parquet", make_rows(train_count, seed))
                write_rows(build.directory / "valid.encoded.parquet", make_rows(8, seed + 1))
        return store.require("v2_chat_dataset", PARTITION)

    return make


def read_losses(folder: Path) -> list[tuple[int, float]]:
    """Return (step, loss) of a run's metrics."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"]) for record in records if "loss" in record]

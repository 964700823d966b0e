"""`merged_model`: the adapter merged into the base, in bf16 or fp32, and proven to be the same model."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from toolcall_pipeline.artifacts import Artifact, write_atomically
from toolcall_pipeline.dataset.files import ENCODED_TRAIN, ENCODED_VALID
from toolcall_pipeline.dataset.plan import require_merge_memory
from toolcall_pipeline.errors import TrainingError
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.training.base_model import BaseModelInfo, Dtype, load_model_folder, resolve_base
from toolcall_pipeline.training.comparison import (
    Comparison,
    Probe,
    choose_probes,
    compare,
    hf_log_probabilities,
    recorded,
)
from toolcall_pipeline.training.job import ADAPTER_NAME
from toolcall_pipeline.training.stage import BASE_NAME, adapter_card

ASSET = "merged_model"
MODEL_NAME = "model"
EQUIVALENCE_NAME = "equivalence.json"
VALIDATOR_NAME = "validator.json"
_VERSION = 2
_HEADROOM_RATIO = 1.1

Validate = Callable[[Path], "BaseModel | dict[str, Any]"]


def merge_adapter(
    context: StageContext, adapter: Artifact, dataset: Artifact, *, validate: Validate | None = None
) -> Artifact:
    """Merge a partition's adapter into its base, or return the merge that was already made.

    Args:
        context: Partition, configuration, where things are.
        adapter: Its `lora_adapter`.
        dataset: Its `v2_chat_dataset`, whose supervised tokens the merge is compared on.
        validate: Runs suite D on a model folder; its result is kept for the gate.

    Raises:
        ConfigurationError: This machine's memory is too small for the base.
        TrainingError: The base changed since the adapter was trained, or the disk is too small.
    """
    base = resolve_base(context.configuration.base, context.settings.cache_dir)
    _require_same_base(adapter, base)
    dtype: Dtype = "bfloat16" if adapter.manifest.metadata["precision"] == "bf16" else "float32"
    recipe = {
        "asset": ASSET, "version": _VERSION, "adapter_sha256": adapter.sha256, "base_sha256": base.sha256,
        "dtype": dtype, "equivalence_rows": context.configuration.export.equivalence_rows,
        "suite_sha256": dataset.manifest.metadata.get("suite_sha256", ""),
        "evaluation": context.configuration.evaluation.model_dump(mode="json"),
    }  # fmt: skip
    found = context.artifacts.find(ASSET, context.partition, recipe)
    if found is not None:
        return found
    require_merge_memory(base.parameter_count)
    require_disk(
        context.settings.home_dir, int(base.parameter_count * (2 if dtype == "bfloat16" else 4) * _HEADROOM_RATIO)
    )
    with context.artifacts.build(
        ASSET,
        context.partition,
        recipe_of_artifact=recipe,
        parents={"lora_adapter": adapter.sha256, "v2_chat_dataset": dataset.sha256},
    ) as build:
        folder = build.directory / MODEL_NAME
        context.progress(0, 3, "step", "merging the adapter into the base")
        probes = probes_of(context, dataset)
        comparison = merge_and_compare(base.path, adapter.directory / ADAPTER_NAME, folder, probes, dtype)
        write_atomically(folder / "README.md", adapter_card(base, context).replace("LoRA adapter", "Merged model"))
        shutil.copyfile(adapter.path(BASE_NAME), build.directory / BASE_NAME)
        context.progress(1, 3, "step", "counting what the merge changed")
        changes = count_changes(base.path, adapter.directory / ADAPTER_NAME, folder)
        write_atomically(
            build.directory / EQUIVALENCE_NAME,
            json.dumps({"adapter_vs_merged": comparison.to_json(), **changes}, indent=2, sort_keys=True) + "\n",
        )
        context.progress(2, 3, "step", "running the validator suite on the merged model")
        write_validation(validate, folder, build.directory)
        build.metadata.update(_metadata(comparison, changes, folder, dataset, dtype))
        context.progress(3, 3, "step", "merged")
    return context.artifacts.require(ASSET, context.partition)


def probes_of(context: StageContext, dataset: Artifact) -> list[Probe]:
    """Return the rows of a dataset that forms of a model are compared on."""
    return choose_probes(
        dataset.path(ENCODED_VALID),
        dataset.path(ENCODED_TRAIN),
        row_count=context.configuration.export.equivalence_rows,
        max_tokens=context.configuration.dataset.max_row_tokens,
    )


def merge_and_compare(
    base_dir: Path, adapter_dir: Path, target_dir: Path, probes: list[Probe], dtype: Dtype
) -> Comparison:
    """Merge, save in the training's precision, load what was saved, and compare it with base and adapter side by side.

    Both sides compute in float32: the rounding of bf16 arithmetic alone turns over 3 % of a small model's most likely
    tokens, which would hide what the merge did.

    Raises:
        TrainingError: The adapter does not fit the base.
    """
    import torch
    from peft import PeftModel

    model = load_model_folder(base_dir, dtype=dtype).float()
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5.23 by a name that it deprecates; no user can do anything about it.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            with_adapter = PeftModel.from_pretrained(model, str(adapter_dir))
    except (RuntimeError, ValueError, KeyError) as error:
        raise TrainingError(f"{adapter_dir} is no adapter of the base in {base_dir}: {error}") from error
    with recorded(hf_log_probabilities(with_adapter, probes), target_dir.parent) as reference:
        merged = with_adapter.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
        merged.save_pretrained(target_dir, max_shard_size="4GB")
        del merged, with_adapter, model
        _copy_tokenizer(base_dir, target_dir)
        return compare(reference, hf_log_probabilities(load_model_folder(target_dir), probes))


def count_changes(base_dir: Path, adapter_dir: Path, merged_dir: Path) -> dict[str, int]:
    """Count, from the files, which weights the merge changed.

    Returns:
        `adapted_count` weights the adapter stands on, `adapted_changed_count` of them that differ from the base, and
        `other_changed_count` weights that differ though no adapter stands on them.
    """
    import torch

    base, merged = _tensors(base_dir), _tensors(merged_dir)
    adapted = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") + ".weight"
        for name in _tensors(adapter_dir)
        if name.endswith(".lora_A.weight")
    }
    changed = set()
    for name, load in base.items():
        if name in merged:
            before, after = load(), merged[name]()
            if not torch.equal(before.to(after.dtype), after):
                changed.add(name)
    return {
        "adapted_count": len(adapted),
        "adapted_changed_count": len(adapted & changed),
        "other_changed_count": len(changed - adapted),
    }


def _tensors(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return every tensor of a folder's safetensors files by name, read when called."""
    from safetensors import safe_open

    def reader(path: Path, name: str) -> Callable[[], Any]:
        def read() -> Any:
            with safe_open(path, framework="pt") as tensors:
                return tensors.get_tensor(name)

        return read

    result: dict[str, Callable[[], Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            result.update({name: reader(path, name) for name in tensors.keys()})  # noqa: SIM118
    return result


def write_validation(validate: Validate | None, model: Path, directory: Path) -> None:
    """Run the validator suite on a model, where there is one, and keep its result beside it."""
    if validate is None:
        return
    result = validate(model)
    data = without_times(result.model_dump(mode="json") if isinstance(result, BaseModel) else result)
    write_atomically(directory / VALIDATOR_NAME, json.dumps(data, ensure_ascii=False, sort_keys=True) + "\n")


def without_times(value: Any) -> Any:
    """Return JSON without its `seconds`: an artifact made again from the same parents has the same bytes."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key != "seconds"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def require_disk(folder: Path, needed_bytes: int) -> None:
    """Refuse work that would fill the disk half way.

    Raises:
        TrainingError: Less is free than needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise TrainingError(
            f"{folder} has {free_bytes / 1e9:.1f} GB free; {needed_bytes / 1e9:.1f} GB are needed. Free some space, or "
            "set TOOLCALL_PIPELINE_HOME to a larger disk."
        )


def _require_same_base(adapter: Artifact, base: BaseModelInfo) -> None:
    trained_on = adapter.manifest.recipe_of_artifact["base_sha256"]
    if trained_on != base.sha256:
        raise TrainingError(
            f"The adapter was trained on a base with SHA-256 {trained_on}, but {base.source} is now {base.sha256}. Put "
            "the old base back, or materialise lora_adapter again."
        )


def _copy_tokenizer(base_dir: Path, target_dir: Path) -> None:
    for path in base_dir.iterdir():
        weights = path.suffix in (".safetensors", ".gguf") or path.name.endswith(".index.json")
        known = path.name in ("config.json", "generation_config.json") and (target_dir / path.name).exists()
        if path.is_file() and path.suffix in (".json", ".jinja", ".txt", ".model") and not weights and not known:
            shutil.copyfile(path, target_dir / path.name)


def _metadata(
    comparison: Comparison, changes: dict[str, int], folder: Path, dataset: Artifact, dtype: str
) -> dict[str, Any]:
    return {
        **comparison.figures(),
        **changes,
        "dtype": dtype,
        "model_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "suite_sha256": dataset.manifest.metadata.get("suite_sha256", ""),
    }

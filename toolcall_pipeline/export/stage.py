"""`gguf_q6k`: the file that ships. F16 by llama.cpp's converter, Q6_K by its quantiser, both proven against the merge."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import Artifact, ArtifactStore, load_artifact, sha256_file, write_atomically
from toolcall_pipeline.errors import MissingInputError
from toolcall_pipeline.export.convert import convert_to_f16
from toolcall_pipeline.export.quantise import describe, quantise
from toolcall_pipeline.export.runtime import gguf_log_probabilities
from toolcall_pipeline.export.template_parity import Prompt, measure_parity, suite_prompts, validation_prompts
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.training.base_model import BaseModelInfo, load_model_folder, resolve_base
from toolcall_pipeline.training.comparison import (
    Comparison,
    Probe,
    compare,
    hf_log_probabilities,
    recorded,
)
from toolcall_pipeline.training.merge import (
    EQUIVALENCE_NAME,
    MODEL_NAME,
    Validate,
    probes_of,
    require_disk,
    write_validation,
)
from toolcall_pipeline.training.stage import BASE_NAME

ASSET = "gguf_q6k"
SHIPPED = "Q6_K"
QUANTISATION_NAME = "quantisation.json"
PARITY_NAME = "template_parity.json"
EARLIER_NAME = "earlier_artifacts.json"
SUMS_NAME = "SHA256SUMS"

_VERSION = 2
_PARITY_ROWS = 500
_F16_BYTES = 2
_QUANTISED_BYTES = 1.1
"""Of a parameter: Q8_0, the largest rung of the ladder, needs 1.06."""


def export_gguf(
    context: StageContext,
    merged: Artifact,
    dataset: Artifact,
    *,
    parity_prompts: Sequence[Prompt] | None = None,
    validate: Validate | None = None,
) -> Artifact:
    """Convert and quantise a partition's merged model, or return the file that was already made.

    Args:
        context: Partition, configuration, where things are.
        merged: Its `merged_model`.
        dataset: Its `v2_chat_dataset`, on whose tokens the forms are compared.
        parity_prompts: What the template's bytes are compared on, beside validation rows; None takes every prompt of the
            suite that the dataset was kept apart from.
        validate: Runs suite D on the finished file; its result is kept for the gate.

    Raises:
        ExportError: Conversion, quantisation or the template engine failed.
        TrainingError: The disk is too small.
    """
    base = resolve_base(context.configuration.base, context.settings.cache_dir)
    recipe = _recipe(context, merged, dataset)
    found = context.artifacts.find(ASSET, context.partition, recipe)
    if found is not None:
        return found
    rungs = (SHIPPED, *context.configuration.export.ladder)
    needed = base.parameter_count * (_F16_BYTES + _QUANTISED_BYTES * len(rungs))
    require_disk(context.settings.home_dir, int(needed))
    earlier = earlier_artifacts(context.artifacts)
    with context.artifacts.build(
        ASSET,
        context.partition,
        recipe_of_artifact=recipe,
        parents={"merged_model": merged.sha256, "v2_chat_dataset": dataset.sha256},
    ) as build:
        directory = build.directory
        stem = file_stem(base, context.configuration.dataset.recipe, context.partition)
        made = make_files(context, merged.directory / MODEL_NAME, directory, stem, rungs, base, dataset)
        _write_json(directory / QUANTISATION_NAME, made.quantisation)
        _write_json(directory / EQUIVALENCE_NAME, made.equivalence)
        _write_json(directory / EARLIER_NAME, earlier)
        shipped = directory / f"{stem}-{SHIPPED}.gguf"
        context.progress(4, 6, "step", "rendering every prompt with llama.cpp's own template engine")
        asked = suite_prompts(dataset) if parity_prompts is None else parity_prompts
        prompts = chain(asked, validation_prompts(dataset, limit=_PARITY_ROWS))
        parity = measure_parity(shipped, merged.directory / MODEL_NAME, prompts)
        _write_json(directory / PARITY_NAME, parity)
        write_atomically(directory / SUMS_NAME, _sums(directory))
        context.progress(5, 6, "step", "running the validator suite on the file that ships")
        write_validation(validate, shipped, directory)
        build.metadata.update(_metadata(shipped, made, parity, dataset))
        context.progress(6, 6, "step", "exported")
    return context.artifacts.require(ASSET, context.partition)


def gguf_file(artifact: Artifact) -> Path:
    """Return the file of a `gguf_q6k` artifact that ships.

    Raises:
        MissingInputError: It is gone.
    """
    return artifact.path(str(artifact.manifest.metadata["gguf_file"]))


def export_base_gguf(context: StageContext) -> tuple[Path, str]:
    """Return the base model as Q6_K, made like the candidate and kept, and its SHA-256: what baselines measure.

    Raises:
        ConfigurationError, ExportError, MissingInputError: The base cannot be had, or cannot be converted.
    """
    cache_dir = context.settings.cache_dir
    info = resolve_base(context.configuration.base, cache_dir)
    folder = cache_dir / "base_gguf" / info.sha256[:16]
    target = folder / f"{slug_of(info)}-{SHIPPED}.gguf"
    sums = folder / SUMS_NAME
    if not (sums.is_file() and target.is_file()):
        require_disk(folder, int(info.parameter_count * (_F16_BYTES + _QUANTISED_BYTES)))
        half = folder / f"{slug_of(info)}-F16.gguf"
        try:
            context.progress(0, 2, "step", "converting the base model")
            convert_to_f16(info.path, half, metadata={"general.name": slug_of(info), "general.license": info.licence})
            context.progress(1, 2, "step", "quantising the base model")
            quantise(half, target, SHIPPED)
        finally:
            half.unlink(missing_ok=True)
        write_atomically(sums, _sums(folder))
    return target, sums.read_text(encoding="utf-8").split()[0]


@dataclass(frozen=True, slots=True)
class MadeFiles:
    """What was made of a merged model, as the artifact's JSON files hold it."""

    quantisation: dict[str, Any]
    equivalence: dict[str, Any]


def make_files(
    context: StageContext,
    model_dir: Path,
    directory: Path,
    stem: str,
    rungs: Sequence[str],
    base: BaseModelInfo,
    dataset: Artifact,
) -> MadeFiles:
    """Convert, quantise to every rung, and compare each form with the merged model on the same tokens.

    The F16 file is gone afterwards: it can be made again from the merged model.
    """
    half = directory / f"{stem}-F16.gguf"
    files = {rung: directory / f"{stem}-{rung}.gguf" for rung in rungs}
    fields = _fields(context, base, dataset)
    try:
        context.progress(0, 6, "step", "converting to F16")
        convert_to_f16(model_dir, half, metadata=_general(stem, base))
        for number, (rung, path) in enumerate(files.items()):
            context.progress(1, 6, "step", f"quantising to {rung} ({number + 1} of {len(files)})")
            quantise(half, path, rung, fields=fields)
        context.progress(2, 6, "step", "comparing merged model, F16 and quantised files on the dataset's tokens")
        compared = compare_forms(model_dir, {"F16": half, **files}, probes_of(context, dataset), directory)
    finally:
        half.unlink(missing_ok=True)
    ladder = [describe(path, rung).to_json() for rung, path in files.items()]
    for entry in ladder:
        entry.update(compared[entry["quantisation"]].figures())
    return MadeFiles(
        quantisation={"shipped": SHIPPED, "ladder": ladder},
        equivalence={
            "reference": "merged_model",
            **{f"merged_vs_{name}": comparison.to_json() for name, comparison in compared.items()},
        },
    )


def compare_forms(
    model_dir: Path, ggufs: dict[str, Path], probes: list[Probe], scratch_dir: Path
) -> dict[str, Comparison]:
    """Compare GGUF files with the Hugging Face model they claim to be, on the same tokens.

    Returns:
        Name of each file to its comparison, in the order given.
    """
    with recorded(hf_log_probabilities(load_model_folder(model_dir), probes), scratch_dir) as reference:
        return {name: compare(reference, gguf_log_probabilities(path, probes)) for name, path in ggufs.items()}


def earlier_artifacts(store: ArtifactStore) -> list[dict[str, str]]:
    """Return what was exported before and lies here, with the hashes of its bytes now."""
    found = []
    for manifest in sorted((store.root / ASSET).glob("*/*/manifest.json")):
        artifact = load_artifact(manifest.parent)
        for name in sorted(name for name in artifact.manifest.files if name.endswith(".gguf")):
            path = artifact.directory / name
            found.append(
                {
                    "artifact_sha256": artifact.sha256,
                    "file": path.relative_to(store.root).as_posix(),
                    "recorded_sha256": artifact.manifest.files[name].sha256,
                    "found_sha256": sha256_file(path) if path.is_file() else "missing",
                }
            )
    return found


def slug_of(base: BaseModelInfo) -> str:
    """Return the base's name for file names: lower case, letters, digits and hyphens."""
    name = Path(base.dequantised_from).stem if base.dequantised_from else base.source.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"


def file_stem(base: BaseModelInfo, recipe: str, partition: str) -> str:
    """Return slug, recipe and run: what every exported file's name begins with."""
    return f"{slug_of(base)}-{recipe}-{partition}"


def _recipe(context: StageContext, merged: Artifact, dataset: Artifact) -> dict[str, Any]:
    return {
        "asset": ASSET,
        "version": _VERSION,
        "merged_sha256": merged.sha256,
        "dataset_sha256": dataset.sha256,
        "export": context.configuration.export.model_dump(mode="json"),
        "evaluation": context.configuration.evaluation.model_dump(mode="json"),
    }


def _general(stem: str, base: BaseModelInfo) -> dict[str, Any]:
    base_model: dict[str, Any] = {"name": slug_of(base)}
    if base.revision:
        base_model["version"] = base.revision
    if "/" in base.source and not Path(base.source).exists():
        base_model["organization"] = base.source.partition("/")[0]
        base_model["repo_url"] = f"https://huggingface.co/{base.source}"
    return {"general.name": stem, "general.license": base.licence, "general.base_models": [base_model]}


def _fields(context: StageContext, base: BaseModelInfo, dataset: Artifact) -> dict[str, str]:
    """Return what leads from a file back to what it was made of."""
    return {
        "toolcall_pipeline.partition": context.partition,
        "toolcall_pipeline.recipe": context.configuration.dataset.recipe,
        "toolcall_pipeline.dataset_sha256": dataset.sha256,
        "toolcall_pipeline.base": slug_of(base),
        "toolcall_pipeline.base_sha256": base.sha256,
    }


def _sums(directory: Path) -> str:
    files = sorted(directory.glob("*.gguf"))
    if not files:
        raise MissingInputError(f"{directory} holds no GGUF file to hash.")
    return "".join(f"{sha256_file(path)}  {path.name}\n" for path in files)


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _metadata(shipped: Path, made: MadeFiles, parity: dict[str, Any], dataset: Artifact) -> dict[str, Any]:
    entry = made.quantisation["ladder"][0]
    half = made.equivalence["merged_vs_F16"]
    return {
        "gguf_file": shipped.name,
        "gguf_sha256": sha256_file(shipped),
        "gguf_bytes": entry["size_bytes"],
        "bits_per_weight": entry["bits_per_weight"],
        "fallback_tensors_count": entry["fallback_tensors_count"],
        "same_top_ratio": entry["same_top_ratio"],
        "mean_kl": entry["mean_kl"],
        "f16_same_top_ratio": half["same_top_ratio"],
        "f16_mean_kl": half["mean_kl"],
        "parity_prompts_count": parity["prompts_count"],
        "base_model_file": BASE_NAME,
        "suite_sha256": dataset.manifest.metadata.get("suite_sha256", ""),
    }

"""`lora_adapter`, trained by a process of its own, and `merged_model`."""

import dagster as dg

from toolcall_pipeline.defs.describing import asset_arguments
from toolcall_pipeline.defs.stage import REQUIRED_RESOURCES, run_stage
from toolcall_pipeline.defs.training.pipes import TRAINER_KEY, launcher
from toolcall_pipeline.defs.wiring import Wiring


def lora_adapter(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""
    arguments = asset_arguments(
        wiring,
        "lora_adapter",
        group="model",
        owner="model-training",
        kinds={"pytorch", "huggingface"},
        what="The LoRA adapter, trained with TRL and PEFT on supervised tokens only, in a process of its own behind Dagster "
        "Pipes. Loss, learning rate, tokens per second and time left are logged while it trains; the loss curve is on "
        "the materialisation.",
        rerun="A killed training resumes at its last checkpoint when the asset is materialised again with the same data and "
        "configuration. Other fields under `resources: configuration: config: training` make another adapter.",
    )
    arguments["required_resource_keys"] = REQUIRED_RESOURCES | {TRAINER_KEY}

    @dg.asset(**arguments)
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return run_stage(context, wiring, "lora_adapter", launch=launcher(context, wiring))

    return definition


def merged_model(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        **asset_arguments(
            wiring,
            "merged_model",
            group="model",
            owner="model-training",
            kinds={"pytorch", "huggingface"},
            what="The adapter merged into the base, in Hugging Face format (safetensors, tokenizer, chat template), compared "
            "with adapter and base on our own tool-call tokens.",
            rerun="Materialise it again; the same adapter gives the same bytes.",
        )
    )
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return run_stage(context, wiring, "merged_model")

    return definition

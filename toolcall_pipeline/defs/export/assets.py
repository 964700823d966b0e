"""`gguf_q6k`: the file that ships."""

import dagster as dg

from toolcall_pipeline.defs.describing import asset_arguments
from toolcall_pipeline.defs.stage import run_stage
from toolcall_pipeline.defs.wiring import Wiring


def gguf_q6k(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        **asset_arguments(
            wiring,
            "gguf_q6k",
            group="model",
            owner="model-training",
            kinds={"gguf", "cplus"},
            what="The file that ships: GGUF by llama.cpp's own converter, quantised to Q6_K, with its chat template, licence, "
            "base and dataset hash inside. Its SHA-256 is what every later verdict is about.",
            rerun="Materialise it again; nothing is overwritten. Other quantisations beside it are "
            "`resources: configuration: config: export: ladder`.",
        )
    )
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return run_stage(context, wiring, "gguf_q6k")

    return definition

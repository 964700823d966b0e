"""`baseline_reports`, measured before training, and `eval_reports`, the evidence."""

import dagster as dg

from toolcall_pipeline.defs.describing import asset_arguments
from toolcall_pipeline.defs.stage import run_stage
from toolcall_pipeline.defs.wiring import Wiring


def baseline_reports(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        **asset_arguments(
            wiring,
            "baseline_reports",
            group="model",
            owner="evaluation",
            kinds={"gguf", "json"},
            what="What has to be beaten: the base model (as Q6_K, like the candidate) and the model in production, measured "
            "on this partition's frozen suite before anything is trained.",
            rerun="Measured once per model, suite and generation settings; making it again reads what was measured.",
        )
    )
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return run_stage(context, wiring, "baseline_reports")

    return definition


def eval_reports(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        **asset_arguments(
            wiring,
            "eval_reports",
            group="evidence",
            owner="evaluation",
            kinds={"gguf", "html", "json"},
            what="The evidence: every suite and every gate for the GGUF file through its own embedded template, against base "
            "and production, as results JSON, Markdown and one HTML page that begins with the verdict.",
            rerun="A killed evaluation goes on at its next case. Gates are judged again by the job `resume_from_eval_reports`, "
            "or by running the checks alone.",
        )
    )
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return run_stage(context, wiring, "eval_reports")

    return definition

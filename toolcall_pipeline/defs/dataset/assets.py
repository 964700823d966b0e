"""`v2_chat_dataset`: chat rows for training and validation."""

import dagster as dg

from toolcall_pipeline.defs.describing import asset_arguments
from toolcall_pipeline.defs.not_due import observe_not_due
from toolcall_pipeline.defs.stage import run_stage
from toolcall_pipeline.defs.wiring import Wiring

_COLUMNS = (
    ("messages", "json", "The conversation; each assistant message says whether it is supervised"),
    ("tools", "json", "The tools the agent had, in an order shuffled by seed"),
    (
        "meta",
        "json",
        "Session, prompt, calls, project, category, run, recipe: every token leads back to a file and line",
    ),
)


def v2_chat_dataset(wiring: Wiring) -> dg.AssetsDefinition:
    """Return the asset."""

    @dg.asset(
        **asset_arguments(
            wiring,
            "v2_chat_dataset",
            group="dataset",
            owner="training-data",
            kinds={"huggingface", "json", "parquet"},
            what="Chat rows built from all runs up to this one whose data gates had passed: training and validation files, "
            "tiny samples, tool schemas, manifest and dataset card. The recipe (`v3` by default, `v2` to compare) is "
            "configuration. Same inputs, same seed, same bytes.",
            rerun="Change a field under `resources: configuration: config: dataset` to mend a gate, materialise it again, "
            "then resume with the job `resume_from_baseline_reports`.",
            columns=_COLUMNS,
        )
    )
    def definition(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        result = run_stage(context, wiring, "v2_chat_dataset")
        observe_not_due(context)
        return result

    return definition

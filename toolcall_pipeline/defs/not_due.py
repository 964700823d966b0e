"""Why a nightly partition stops at the dataset, said on the assets that are not there."""

from __future__ import annotations

import dagster as dg

from toolcall_pipeline import chain

NOT_DUE_TAG = "toolcall_pipeline/not_due"
NOT_DUE = (
    "Not due. A nightly partition stops at the dataset: a night collects, a training is started on purpose. To train on "
    "everything up to this night, run the job `resume_from_baseline_reports` for this partition."
)


def observe_not_due(context: dg.AssetExecutionContext) -> None:
    """Leave a note on every later asset of the partition, where the run says that they are not due."""
    reason = context.run.tags.get(NOT_DUE_TAG)
    if reason is None:
        return
    for asset in chain.ASSETS[len(chain.DATA_ASSETS) :]:
        context.log_event(
            dg.AssetObservation(
                asset_key=asset,
                partition=context.partition_key,
                description=reason,
                metadata={"state": "not_due", "why": reason},
            )
        )

"""Jobs: the whole chain, its data half, and one to resume at each asset."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from toolcall_pipeline import chain

FULL_CHAIN = "full_chain"
DATA_HALF = "data_half"
BACKUP = "backup"


def resume_job_name(asset: str) -> str:
    """Return the name of the job that goes on at an asset."""
    return f"resume_from_{asset}"


def all_jobs() -> list[UnresolvedAssetJobDefinition]:
    """Return every job of the code location."""
    return [
        _job(FULL_CHAIN, chain.ASSETS, (), "The whole chain: from session files to a judged GGUF, with every gate."),
        _job(
            DATA_HALF,
            chain.DATA_ASSETS,
            (),
            "What a night does: read, store, build the dataset, judge it, and stop there.",
        ),
        *(resume_job(asset) for asset in chain.ASSETS[1:]),
        dg.define_asset_job(
            BACKUP, selection=dg.AssetSelection.assets("database_backup"), description="One dump of the store."
        ),
    ]


def resume_job(asset: str) -> UnresolvedAssetJobDefinition:
    """Return the job that judges everything above an asset again, then makes it and everything after it."""
    later = chain.ASSETS[chain.ASSETS.index(asset) :]
    above = chain.ancestors(asset)
    return _job(
        resume_job_name(asset),
        later,
        above,
        f"Judge the gates of {', '.join(above)} again, then make {asset} and everything after it. Use it after the cause of "
        "a held gate was mended.",
    )


def _job(
    name: str, assets: Sequence[str], judged_again: Sequence[str], description: str
) -> UnresolvedAssetJobDefinition:
    selection: dg.AssetSelection = dg.AssetSelection.assets(*assets)
    if judged_again:
        selection = selection | dg.AssetSelection.checks_for_assets(*judged_again)
    return dg.define_asset_job(name, selection=selection, description=description)

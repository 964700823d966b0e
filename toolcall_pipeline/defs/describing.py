"""What every asset's definition shares: partitions, owners, the guard's promise, how to run it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from toolcall_pipeline import chain
from toolcall_pipeline.defs.partitions import BACKFILL_RUNS
from toolcall_pipeline.defs.stage import REQUIRED_RESOURCES
from toolcall_pipeline.defs.wiring import Wiring

GROUPS = ("sessions", "store", "dataset", "model", "evidence")
"""Groups of the graph, left to right."""


def asset_arguments(
    wiring: Wiring,
    asset: str,
    *,
    group: str,
    owner: str,
    kinds: set[str],
    what: str,
    rerun: str,
    columns: Sequence[tuple[str, str, str]] = (),
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the arguments of `@dg.asset` for one asset of the chain.

    Args:
        wiring: Knows what the asset is made from and which gates stand on it.
        asset: Its name.
        group: One of `GROUPS`.
        owner: Team name without the `team:` prefix.
        kinds: Shown on the node.
        what: What it is, in Markdown.
        rerun: How to run it again, in Markdown.
        columns: `(name, type, description)` of the rows it leaves.
        metadata: Further metadata of the definition.
    """
    shown = dict(metadata or {})
    if columns:
        shown["dagster/column_schema"] = dg.TableSchema(
            [dg.TableColumn(name, kind, description=description) for name, kind, description in columns]
        )
    return {
        "name": asset,
        "deps": list(chain.UPSTREAM[asset]),
        "partitions_def": BACKFILL_RUNS,
        "group_name": group,
        "owners": [f"team:{owner}"],
        "kinds": kinds,
        "description": f"{what.strip()}\n\n{_protection(wiring, asset)}\n\n**Run it again.** {rerun.strip()}",
        "metadata": shown,
        "required_resource_keys": REQUIRED_RESOURCES,
    }


def _protection(wiring: Wiring, asset: str) -> str:
    above = chain.ancestors(asset)
    gates = wiring.gate_questions.get(asset, {})
    lines = ["**What protects it.**"]
    if above:
        names = ", ".join(f"`{name}`" for name in above)
        lines.append(
            f"It starts only when every gate of everything above it ({names}) is stored as passed for exactly the bytes in "
            "use and today's rules, however the run was started."
        )
    else:
        lines.append("It stands at the head of the chain and refuses partition keys of another form.")
    if gates:
        lines.append("Its own gates: " + ", ".join(f"`{gate}`" for gate in gates) + ".")
    return " ".join(lines)

"""Gates of `merged_model`."""

from __future__ import annotations

from toolcall_pipeline.gates.model_equivalence import equivalence_verdict, judge_validator, load
from toolcall_pipeline.gates.verdict import Gate, GateContext, GateResult
from toolcall_pipeline.training.merge import EQUIVALENCE_NAME

_ASSET = "merged_model"


def judge_merge_equivalence(context: GateContext) -> GateResult:
    """Compare the merged model with base and adapter, and ask that exactly the adapted weights changed.

    A merge that changed nothing gives back what a barely trained adapter says: only the count of changed weights tells.
    """
    data = load(context, EQUIVALENCE_NAME)
    adapted, changed, other = (
        int(data[name]) for name in ("adapted_count", "adapted_changed_count", "other_changed_count")
    )
    return equivalence_verdict(
        context,
        data["adapter_vs_merged"],
        what=f"{changed} of {adapted} adapted weights changed, {other} others. Adapter against merged",
        how_to_fix=(
            "Materialise merged_model again. Where it fails again, the adapter was trained in another precision than the "
            "merge was made in: set training.precision to bf16 or fp32 and train again."
        ),
        details={"adapted_count": adapted, "adapted_changed_count": changed, "other_changed_count": other},
        also=adapted > 0 and changed == adapted and other == 0,
    )


GATES = (
    Gate(
        "merge_equivalence",
        _ASSET,
        "Protects from a merge that is another model than the one that was trained, or that changed nothing.",
        judge_merge_equivalence,
    ),
    Gate("validator_merged", _ASSET, "Protects from merging what cannot make a valid call.", judge_validator),
)

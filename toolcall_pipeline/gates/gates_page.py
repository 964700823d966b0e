"""docs/reference/gates.md, made from `profiles.py`: every gate with its rule under both profiles."""

from __future__ import annotations

from toolcall_pipeline.gates.profiles import MINIMUM_EXAMPLES, GateRule, all_rules

_HEAD = """# Gates

Made from `toolcall_pipeline/gates/profiles.py`, where every threshold lives; `make docs` writes this page.

A gate is four things: a pure verdict (`gates/<asset>.py`), a partitioned blocking check that shows it, the stored verdict
(`gates/verdict_store.py`), and the guard at the head of every asset made from what it judged (`gates/guard.py`).

| verdict | when | what follows |
|---|---|---|
| `pass` | a count is right; a rate's exact bound on the safe side clears the threshold | may be made |
| `fail` | the count, or the rate itself, does not | held |
| `inconclusive` | the rate clears the threshold and its bound does not, too few cases, or the gate broke | held; says how many more cases would decide |
| `overridden` | it did not pass, and a person gave a reason in the run configuration | made, amber, recorded in every manifest below; never ships |
| `missing` | not judged on exactly these bytes, under this rule, on this suite | held |

A verdict is stored under the gate, the SHA-256 of the artifact, the hash of the rule (threshold, parameters and profile
name) and the hash of the suite. Judging again replaces it, override included. Together the gates say:

| verdict of a run | when |
|---|---|
| `HOLD` | a gate failed or was overridden |
| `INCONCLUSIVE` | else, one cannot tell |
| `PENDING` | else, one was not judged yet |
| `SHIP` | every gate passed under `ship`, on the user's own suite |
| `PASSED_NOT_SHIPPABLE` | every gate passed under `smoke`, on the sample suite, or outside the chain |

`ship` judges rates on their bounds; `smoke` asks the mechanics of every gate, judges rates as they are, and never ships.
How the figures are made: [statistics](../explanation/statistics.md). To change a threshold, change it in `profiles.py`:
the hash of the rule changes with it, and every verdict given under the old one is void.
"""


def gates_page() -> str:
    """Return docs/reference/gates.md."""
    lines = [_HEAD]
    smoke = {(rule.asset, rule.gate): rule for rule in all_rules("smoke")}
    asset = ""
    for rule in all_rules("ship"):
        if rule.asset != asset:
            asset = rule.asset
            lines += [f"\n## `{asset}`\n", "| gate | asks | `ship` | `smoke` |", "|---|---|---|---|"]
        lines.append(
            f"| `{rule.gate}` | {rule.question} | {_rule_text(rule)} | {_rule_text(smoke[rule.asset, rule.gate])} |"
        )
    return "\n".join(lines) + "\n"


def _rule_text(rule: GateRule) -> str:
    if rule.gate == "min_examples" and rule.profile == "ship":
        counts = ", ".join(f"{count:,} (`{preset}`)" for preset, count in MINIMUM_EXAMPLES.items())
        return f"≥ {counts}"
    main = _limit(rule)
    shown = {name: value for name, value in rule.parameters.items() if name not in ("judged_on", "min_n", "suite")}
    further = [_PARAMETERS[name].format(value) for name, value in shown.items() if value is not None]
    if rule.parameters.get("min_n", 0) > 1:
        further.append(f"n ≥ {rule.parameters['min_n']:,}")
    return "; ".join([main, *further])


_PARAMETERS = {
    "max_mean_kl": "mean KL ≤ {}",
    "counts": "counts `{}`",
    "each_half": "each half ≥ {}",
    "gated_from_n": "from n = {} on",
    "may_name_nothing": "or nothing is named",
    "max_median_ratio": "median calls ≤ {} x needed",
}


def _limit(rule: GateRule) -> str:
    if isinstance(rule.threshold, tuple):
        return f"{rule.threshold[0]:g} to {rule.threshold[1]:g}"
    if _is_always_met(rule, rule.threshold):
        return "measured"
    symbol = {">=": "≥", "<=": "≤", "==": "="}.get(rule.comparison, rule.comparison)
    return f"{symbol} {rule.threshold:,g}" + ("" if rule.unit == "ratio" else f" {rule.unit}")


def _is_always_met(rule: GateRule, threshold: float) -> bool:
    """Return whether a smoke threshold lies at the end of the scale, so that being measured is what is asked."""
    if rule.profile == "ship" or rule.comparison == "==":
        return False
    return threshold <= 0 if rule.comparison in (">=", ">") else threshold >= 1

"""Suite D: one ask each. Coding tools, tools of other domains, asks that need several calls, asks that need none.

The asks and tools are in `single_turn_domains.py`; a template is one cluster, since its fillings are not independent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from toolcall_pipeline.dataset.schemas import function_tool
from toolcall_pipeline.dataset.templates import DEFAULT_SYSTEM_PROMPT
from toolcall_pipeline.evaluation.cases import Case
from toolcall_pipeline.evaluation.repetition import iterate_texts
from toolcall_pipeline.evaluation.suites.catalogue import CODING_TOOLS, EXTRA_TOOLS, choose, pick_tools, shuffled
from toolcall_pipeline.evaluation.suites.single_turn_domains import CODING_ASKS, DOMAINS, NO_TOOL_ASKS, SLOTS, Ask

# In their order these shares make the 550: in distribution, out of it, several calls, no tool.
_SHARES = {"in_distribution": 200, "out_of_distribution": 200, "several_calls": 70, "no_tool": 80}
# Of the arguments that are prose, the one thing an ask does not name.
_FILL_WORDS = frozenset({"the", "page", "fix"})


def single_turn_cases(tools: Sequence[dict[str, Any]], count: int) -> list[Case]:
    """Return suite D's cases, `count` in all, strata in their shares."""
    total = sum(_SHARES.values())
    cases: list[Case] = []
    for stratum, share in _SHARES.items():
        wanted = round(count * share / total)
        cases.extend(_MAKERS[stratum](tools, wanted))
    return cases


def _values(ask: Ask, template: str, key: str) -> dict[str, str]:
    """Return a filling for every slot of a phrasing and of its ask's arguments."""
    text = template + str(ask.arguments)
    return {slot: str(choose(options, f"{key}/{slot}")) for slot, options in SLOTS.items() if "{" + slot + "}" in text}


def _fill(value: Any, values: dict[str, str]) -> Any:
    """Return a text, or the texts inside a JSON value, with the slots filled."""
    if isinstance(value, str):
        for slot, filling in values.items():
            value = value.replace("{" + slot + "}", filling)
        return value
    if isinstance(value, dict):
        return {name: _fill(item, values) for name, item in value.items()}
    return [_fill(item, values) for item in value] if isinstance(value, list) else value


def _arguments(ask: Ask, values: dict[str, str]) -> dict[str, Any]:
    filled = {name: _fill(value, values) for name, value in ask.arguments.items()}
    return {name: int(value) if name in ask.integers else value for name, value in filled.items()}


def _named(ask: Ask, template: str, values: dict[str, str]) -> list[str]:
    """Return what a phrasing names of its call's arguments: whoever leaves that out did not do what was asked."""
    arguments = "\n".join(iterate_texts(ask.arguments))
    fillings = [filling for slot, filling in values.items() if f"{{{slot}}}" in template and f"{{{slot}}}" in arguments]
    literals = [
        word for word in arguments.split() if "{" not in word and re.search(rf"\b{re.escape(word)}\b", template)
    ]
    return [*fillings, *(word for word in literals if len(word) > 1 and word.lower() not in _FILL_WORDS)]


def _from_asks(stratum: str, asks: Sequence[tuple[Ask, tuple[dict[str, Any], ...]]], count: int) -> list[Case]:
    cases: list[Case] = []
    seen: set[str] = set()
    filling = 0
    while len(cases) < count and filling < 50:
        for index, (ask, tools) in enumerate(asks):
            template = ask.phrasings[filling % len(ask.phrasings)]
            slot_key = f"D/{stratum}/{index}/{filling}"
            values = _values(ask, template, slot_key)
            prompt = _fill(template, values)
            if prompt in seen or len(cases) >= count:
                continue
            seen.add(prompt)
            named = [_named(ask, template, values)]
            cases.append(_case(stratum, f"{index}", len(cases), prompt, [(ask, values)], named, tools))
        filling += 1
    return cases


def _case(
    stratum: str,
    template: str,
    number: int,
    prompt: str,
    asks: Sequence[tuple[Ask, dict[str, str]]],
    named: Sequence[list[str]],
    tools: Sequence[dict[str, Any]],
) -> Case:
    return Case(
        suite="D",
        case_id=f"D-{stratum}-{number:03d}",
        cluster_id=f"D-{stratum}-{template}",
        stratum=stratum,
        messages=({"role": "system", "content": DEFAULT_SYSTEM_PROMPT}, {"role": "user", "content": prompt}),
        tools=tuple(shuffled(list(tools), f"D/{stratum}/{number}/tools")),
        expected={
            "calls": [{"name": ask.tool, "arguments": _arguments(ask, values)} for ask, values in asks],
            "named": list(named),
            "tools": sorted({name for ask, _ in asks for name in (ask.tool, *ask.also)}),
        },
    )


def _in_distribution(tools: Sequence[dict[str, Any]], count: int) -> list[Case]:
    offered = pick_tools((*CODING_TOOLS, *EXTRA_TOOLS[:2]), tools)
    return _from_asks("in_distribution", [(ask, offered) for ask in CODING_ASKS], count)


def _out_of_distribution(tools: Sequence[dict[str, Any]], count: int) -> list[Case]:
    del tools
    asks = [(ask, domain_tools(name)) for name, domain in DOMAINS.items() for ask in domain.asks]
    return _from_asks("out_of_distribution", shuffled(asks, "D/domains"), count)


def domain_tools(name: str) -> tuple[dict[str, Any], ...]:
    """Return the tools of a domain, as offered."""
    tools = []
    for tool, (description, properties, required) in DOMAINS[name].tools.items():
        parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        tools.append(function_tool(tool, description, parameters))
    return tuple(tools)


def _several_calls(tools: Sequence[dict[str, Any]], count: int) -> list[Case]:
    """Return asks for two independent things at once: two calls are right, one or three are not."""
    offered = pick_tools((*CODING_TOOLS, *EXTRA_TOOLS[:2]), tools)
    pairs: list[tuple[Ask, Ask, tuple[dict[str, Any], ...]]] = []
    joinable = [ask for ask in CODING_ASKS if ask.joinable]
    for index, left in enumerate(joinable):
        for right in joinable[index + 1 :]:
            pairs.append((left, right, offered))
    for name, domain in DOMAINS.items():
        own = [ask for ask in domain.asks if ask.joinable]
        pairs.extend((left, right, domain_tools(name)) for left, right in pairwise(own))
    cases: list[Case] = []
    for index, (left, right, own_tools) in enumerate(shuffled(pairs, "D/pairs")[:count]):
        first = _values(left, left.phrasings[0], f"D/pair/{index}/left")
        second = _values(right, right.phrasings[0], f"D/pair/{index}/right")
        one, two = (
            str(_fill(ask.phrasings[0], values)).rstrip(".?") for ask, values in ((left, first), (right, second))
        )
        prompt = f"Do both of these at once, neither needs the other: (1) {one}; (2) {two}."
        asks = [(left, first), (right, second)]
        named = [_named(ask, ask.phrasings[0], values) for ask, values in asks]
        cases.append(_case("several_calls", f"{index}", index, prompt, asks, named, own_tools))
    return cases


def _no_tool(tools: Sequence[dict[str, Any]], count: int) -> list[Case]:
    cases: list[Case] = []
    domains = [pick_tools((*CODING_TOOLS, *EXTRA_TOOLS[:2]), tools), *(domain_tools(name) for name in DOMAINS)]
    for number, prompt in enumerate(NO_TOOL_ASKS[:count]):
        cases.append(_case("no_tool", f"{number}", number, prompt, [], [], domains[number % len(domains)]))
    return cases


_MAKERS = {
    "in_distribution": _in_distribution,
    "out_of_distribution": _out_of_distribution,
    "several_calls": _several_calls,
    "no_tool": _no_tool,
}

"""Suites A and B, made from validation rows: what the session did next is what is expected.

Only supervised turns are asked for: the dataset left failed, interrupted, rejected and cut steps unsupervised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from toolcall_pipeline.dataset.rows import Message, Row, template_messages
from toolcall_pipeline.evaluation.cases import Case, ParsedCall
from toolcall_pipeline.evaluation.facts import drop_common_facts, facts_of
from toolcall_pipeline.evaluation.grounding import count_grounded, names_in_answer, names_in_call
from toolcall_pipeline.evaluation.suites.catalogue import CODING_TOOLS, EXTRA_TOOLS, pick_tools, stable_hash
from toolcall_pipeline.evaluation.suites.sizes import B_HALF, MIN_TOOLS, SUITE_SIZES
from toolcall_pipeline.evaluation.tool_schemas import tool_function

# What a case's prompt may take of the context; the rest is for the completion.
_MAX_PROMPT_CHARACTERS = 60_000
_MAX_CASES_PER_ROW = 3


@dataclass(frozen=True, slots=True)
class _Turn:
    """A supervised assistant turn of a row, by its position among the messages."""

    row: Row
    position: int

    @property
    def message(self) -> Message:
        return self.row.messages[self.position]

    @property
    def is_after_tool(self) -> bool:
        return self.position > 0 and self.row.messages[self.position - 1].role == "tool"

    @property
    def order(self) -> str:
        return stable_hash(f"{self.row.meta.row_id}/{self.position}")


def cases_of_rows(rows: Iterable[Row], tools: Sequence[dict[str, Any]]) -> list[Case]:
    """Return suites A and B as far as the rows fill them, at most their full sizes.

    B is filled first, since only turns after a tool result serve it; A takes first calls, then what B left. Turns
    are taken in turn from session families, so that no long session fills a suite; those whose names the
    conversation shows come first, since nobody can know what it does not show.
    """
    turns = [turn for row in _unique(rows) for turn in _turns(row)]
    facts = _distinctive_facts(turns)
    concluding = _take([[turn for turn in turns if facts.get(turn.order)]], B_HALF)
    calling = [turn for turn in turns if turn.message.tool_calls]
    again = _take([[turn for turn in calling if turn.is_after_tool and _has_new_call(turn)]], B_HALF)
    used = {turn.order for turn in again}
    first = [turn for turn in calling if not turn.is_after_tool]
    later = [turn for turn in calling if turn.is_after_tool and turn.order not in used]
    chosen = _take([first, later], SUITE_SIZES["A"])
    return [
        *(_case_a(turn, tools) for turn in chosen),
        *(_case_b_call(turn, tools) for turn in again),
        *(_case_b_conclude(turn, tools, facts[turn.order]) for turn in concluding),
    ]


def is_filled(cases: Collection[Case]) -> bool:
    """Return whether suites A and B have their full sizes."""
    a_count = sum(case.suite == "A" for case in cases)
    halves = [sum(case.suite == "B" and case.stratum == half for case in cases) for half in ("call", "conclude")]
    return a_count >= SUITE_SIZES["A"] and min(halves) >= B_HALF


def _unique(rows: Iterable[Row]) -> list[Row]:
    """Return the rows without deliberate repeats (`~n` in the row id); the later rows of a long episode (`+n`) stay."""
    seen: dict[str, Row] = {}
    for row in rows:
        seen.setdefault(row.meta.row_id.split("~")[0], row)
    return list(seen.values())


def _turns(row: Row) -> list[_Turn]:
    length = 0
    turns: list[_Turn] = []
    for position, message in enumerate(row.messages):
        if message.role == "assistant" and message.supervised and length <= _MAX_PROMPT_CHARACTERS:
            turns.append(_Turn(row, position))
        length += len(message.content) + sum(len(str(call.arguments)) for call in message.tool_calls)
    return turns


def _distinctive_facts(turns: Iterable[_Turn]) -> dict[str, list[str]]:
    """Return the facts of every conclusion after a tool result, by `order`; none where only common words are shared."""
    concluding = [turn for turn in turns if turn.is_after_tool and not turn.message.tool_calls]
    facts = drop_common_facts([_facts(turn) for turn in concluding], [turn.message.content for turn in concluding])
    return {turn.order: own for turn, own in zip(concluding, facts, strict=True)}


def _is_shown(turn: _Turn) -> bool:
    """Return whether the conversation shows every path and name that the turn uses."""
    names = names_in_answer(turn.message.content)
    for call in turn.message.tool_calls:
        names |= names_in_call(ParsedCall(name=call.name, arguments=call.arguments))
    before = turn.row.messages[: turn.position]
    context = "\n".join([*(message.content for message in before), *(str(c.arguments) for c in _calls_before(turn))])
    found, total = count_grounded(names, context)
    return found == total


def _has_new_call(turn: _Turn) -> bool:
    before = {call.model_dump_json(exclude={"event_id"}) for call in _calls_before(turn)}
    return all(call.model_dump_json(exclude={"event_id"}) not in before for call in turn.message.tool_calls)


def _calls_before(turn: _Turn) -> list[Any]:
    return [call for message in turn.row.messages[: turn.position] for call in message.tool_calls]


def _facts(turn: _Turn) -> list[str]:
    before = turn.row.messages[: turn.position]
    results = [message.content for message in before if message.role == "tool"]
    shown = "\n".join(message.content for message in before if message.role in ("user", "system"))
    shown += "\n".join(str(value) for call in _calls_before(turn) for value in call.arguments.values())
    return facts_of(results, turn.message.content, shown)


def _take(pools: Sequence[Sequence[_Turn]], count: int) -> list[_Turn]:
    """Return up to `count` turns, at most three of a row: first those that use only what is shown, then any."""
    orders = [list(_in_turn(pool)) for pool in pools]
    taken: dict[str, _Turn] = {}
    of_row: Counter[str] = Counter()
    for only_shown, order in product((True, False), orders):
        for turn in order:
            if len(taken) >= count:
                return list(taken.values())
            row_id = turn.row.meta.row_id
            if turn.order in taken or of_row[row_id] >= _MAX_CASES_PER_ROW or (only_shown and not _is_shown(turn)):
                continue
            taken[turn.order] = turn
            of_row[row_id] += 1
    return list(taken.values())


def _in_turn(turns: Sequence[_Turn]) -> Iterator[_Turn]:
    """Yield turns, one family after another, in a stable order."""
    families: dict[str, list[_Turn]] = {}
    for turn in sorted(turns, key=lambda turn: turn.order):
        families.setdefault(turn.row.meta.family_id, []).append(turn)
    queues = [families[family] for family in sorted(families, key=stable_hash)]
    for depth in range(max(map(len, queues), default=0)):
        yield from (queue[depth] for queue in queues if depth < len(queue))


def _case(suite: Any, turn: _Turn, tools: Sequence[dict[str, Any]], stratum: str, expected: dict[str, Any]) -> Case:
    meta = turn.row.meta
    return Case(
        suite=suite,
        case_id=f"{suite}-{turn.order[:16]}",
        cluster_id=meta.family_id,
        stratum=stratum,
        messages=tuple(template_messages(turn.row.messages[: turn.position])),
        tools=_enough_tools(turn.row, tools),
        expected=expected,
        source={
            "family_id": meta.family_id,
            "session_id": meta.session_id,
            "file": meta.source_file,
            "line": meta.source_line,
        },
    )


def _case_a(turn: _Turn, tools: Sequence[dict[str, Any]]) -> Case:
    stratum = "after_tool" if turn.is_after_tool else "first_call"
    return _case("A", turn, tools, stratum, {"calls": _calls(turn), "text": turn.message.content})


def _case_b_call(turn: _Turn, tools: Sequence[dict[str, Any]]) -> Case:
    return _case("B", turn, tools, "call", {"calls": _calls(turn), "text": turn.message.content})


def _case_b_conclude(turn: _Turn, tools: Sequence[dict[str, Any]], facts: list[str]) -> Case:
    expected = {"calls": [], "text": turn.message.content, "facts": facts}
    return _case("B", turn, tools, "conclude", expected)


def _calls(turn: _Turn) -> list[dict[str, Any]]:
    return [{"name": call.name, "arguments": call.arguments} for call in turn.message.tool_calls]


def _enough_tools(row: Row, tools: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return the row's own tools, filled up to five with the commonest others."""
    names = {str(tool_function(tool).get("name")) for tool in row.tools}
    others = [
        tool
        for tool in pick_tools((*CODING_TOOLS, *EXTRA_TOOLS), tools)
        if str(tool_function(tool).get("name")) not in names
    ]
    return (*row.tools, *others[: max(0, MIN_TOOLS - len(row.tools))])

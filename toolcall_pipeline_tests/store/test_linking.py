"""Linking by the event graph: whatever the graph, links are those of a naive walk and no event is lost or doubled."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, NodeRole, SourceLocation
from toolcall_pipeline.store.linking import FamilyEvents, LinkedFamily, link_family, utc_time
from toolcall_pipeline.store.stored_nodes import StoredNode

_TABLES = ("mem_user_prompts", "mem_tool_calls", "mem_assistant_texts")
_ROLES = (NodeRole.PROMPT, NodeRole.ASSISTANT, NodeRole.TOOL_RESULT, NodeRole.TRIGGER, NodeRole.PASSIVE)

# Each node: its role, which of the nodes before it is its parent (None: a root), whether an answer has a call.
Shape = list[tuple[NodeRole, int | None, bool]]
shapes = st.lists(
    st.tuples(st.sampled_from(_ROLES), st.one_of(st.none(), st.integers(0, 30)), st.booleans()), min_size=1, max_size=30
)


def build(shape: Shape) -> tuple[list[GraphNode], dict[str, list[Event]]]:
    """Return the nodes of a shape and the events on each."""
    nodes: list[GraphNode] = []
    events: dict[str, list[Event]] = {}
    waiting: list[str] = []
    for index, (role, parent, has_call) in enumerate(shape):
        above = nodes[parent % index].node_id if parent is not None and index else None
        node_id, common = f"n{index:03}", _common(index, above)
        found: list[Event] = []
        calls: tuple[str, ...] = ()
        if role is NodeRole.PROMPT:
            found = [Event(event_id=node_id, kind=EventKind.PROMPT, text=f"prompt {index}", **common)]
        elif role is NodeRole.ASSISTANT and has_call:
            calls = (f"call{index}",)
            waiting.append(calls[0])
            found = [
                Event(
                    event_id=calls[0],
                    kind=EventKind.TOOL_CALL,
                    tool_use_id=calls[0],
                    tool_name="Read",
                    tool_input={"n": index},
                    **common,
                )
            ]
        elif role is NodeRole.ASSISTANT:
            found = [Event(event_id=f"{node_id}#0", kind=EventKind.ASSISTANT_TEXT, text="words", **common)]
        elif role is NodeRole.TOOL_RESULT and waiting:
            calls = (waiting.pop(),)
            result = f"{calls[0]}:result"
            found = [Event(event_id=result, kind=EventKind.TOOL_RESULT, tool_use_id=calls[0], text="result", **common)]
        nodes.append(
            GraphNode(node_id, above, "s", role, "f.jsonl", index + 1, _time(index), f"m{index}", tool_use_ids=calls)
        )
        events[node_id] = found
    return nodes, events


def _common(index: int, above: str | None) -> dict[str, Any]:
    return {
        "node_id": f"n{index:03}",
        "parent_node_id": above,
        "session_id": "s",
        "location": SourceLocation("f.jsonl", index + 1, index * 100),
        "message_id": f"m{index}",
        "timestamp": _time(index),
    }


def _time(index: int) -> str:
    return f"2026-10-01T00:{index:02}:00.000Z"


def family(nodes: list[GraphNode], events: dict[str, list[Event]]) -> FamilyEvents:
    return FamilyEvents(
        agent_type="claude_code",
        nodes=nodes,
        events=[event for node in nodes for event in events[node.node_id]],
        project_paths={None: "unknown"},
    )


def naive_prompt_above(nodes: list[GraphNode]) -> dict[str, str | None]:
    by_id = {node.node_id: node for node in nodes}
    found: dict[str, str | None] = {}
    for node in nodes:
        at: GraphNode | None = node
        while at is not None and at.role is not NodeRole.PROMPT:
            at = by_id.get(at.parent_node_id or "")
        found[node.node_id] = at.node_id if at else None
    return found


@settings(max_examples=150, deadline=None)
@given(shapes)
def test_every_event_is_in_exactly_one_row_linked_to_the_prompt_above_it(shape: Shape) -> None:
    nodes, events = build(shape)
    linked = link_family(family(nodes, events), ())
    above = naive_prompt_above(nodes)
    rows = [row for table in _TABLES for row in linked.rows[table]]
    seen = Counter(row["event_id"] for row in [*rows, *linked.rows["mem_parked_events"]])
    expected = {
        event.event_id for found in events.values() for event in found if event.kind is not EventKind.TOOL_RESULT
    }
    assert set(seen) == expected
    assert set(seen.values()) <= {1}
    for row in [*linked.rows["mem_tool_calls"], *linked.rows["mem_assistant_texts"]]:
        assert row["prompt_event_id"] == above[row["node_id"]]


@settings(max_examples=150, deadline=None)
@given(shapes)
def test_calls_of_a_turn_count_from_zero(shape: Shape) -> None:
    linked = link_family(family(*build(shape)), ())
    turns: defaultdict[str | None, list[int]] = defaultdict(list)
    for row in linked.rows["mem_tool_calls"]:
        turns[row["prompt_event_id"]].append(row["turn_subindex"])
    for indexes in turns.values():
        assert sorted(indexes) == list(range(len(indexes)))


@settings(max_examples=150, deadline=None)
@given(shapes, st.integers(0, 30))
def test_two_nights_leave_on_the_active_branch_what_one_night_would(shape: Shape, cut: int) -> None:
    nodes, events = build(shape)
    at_once = active_events(link_family(family(nodes, events), ()))
    first = link_family(family(nodes[:cut], events), ())
    parked = {row["node_id"] for row in first.rows["mem_parked_events"]}
    stored = [StoredNode(node, "parked" if node.node_id in parked else "active", _said(node)) for node in nodes[:cut]]
    second = link_family(family(nodes[cut:], events), stored)
    gone = set(second.superseded)
    kept = {
        row["event_id"] for table in _TABLES for row in first.rows[table] if row["node_id"] not in gone
    } | active_events(second)
    back = {row["event_id"] for row in first.rows["mem_parked_events"] if row["node_id"] in second.unparked}
    assert kept | back == at_once


def _said(node: GraphNode) -> tuple[tuple[str, str], ...]:
    return ((node.node_id, "hash"),) if node.role is NodeRole.PROMPT else ()


def active_events(linked: LinkedFamily) -> set[str]:
    return {row["event_id"] for table in _TABLES for row in linked.rows[table]}


@settings(max_examples=50, deadline=None)
@given(shapes, st.randoms(use_true_random=False))
def test_the_order_in_which_files_are_read_changes_nothing(shape: Shape, random: Any) -> None:
    nodes, events = build(shape)
    shuffled = list(nodes)
    random.shuffle(shuffled)
    one, other = link_family(family(nodes, events), ()), link_family(family(shuffled, events), ())
    for table in _TABLES:
        assert one.rows[table] == other.rows[table]


@pytest.mark.parametrize(
    ("recorded", "stored"),
    [
        ("2026-10-01T10:00:00.123Z", "2026-10-01T10:00:00.123000+00:00"),
        ("2026-10-01T10:00:00+02:00", "2026-10-01T08:00:00+00:00"),
        ("2026-10-01T10:00:00", "2026-10-01T10:00:00+00:00"),  # no zone: taken as UTC
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),  # before the year 1 in UTC
        ("", None),
        (None, None),
    ],
)
def test_recorded_times_are_stored_in_utc_or_not_at_all(recorded: str | None, stored: str | None) -> None:
    assert utc_time(recorded) == stored

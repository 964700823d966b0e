"""Which branch is active, which prompt stands above a node, who belongs together."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from toolcall_pipeline.sessions.events import GraphNode, NodeRole
from toolcall_pipeline.sessions.graph import resolve

_ROLES = {"u": NodeRole.PROMPT, "a": NodeRole.ASSISTANT, "r": NodeRole.TOOL_RESULT, "c": NodeRole.COMPACTION}
_ROLES |= {"p": NodeRole.PASSIVE, "t": NodeRole.TRIGGER}


def graph(*edges: str, session: str = "S", file: str = "f.jsonl", first_line: int = 1) -> list[GraphNode]:
    """Nodes from `child<parent` in line order; the first letter is the role, `a1.m` names the message m."""
    nodes = []
    for number, edge in enumerate(edges):
        child, _, parent = edge.partition("<")
        name, _, message = child.partition(".")
        role = _ROLES[name[0]]
        nodes.append(
            GraphNode(
                node_id=name,
                parent_node_id=parent or None,
                session_id=session,
                role=role,
                file=file,
                line=first_line + number,
                timestamp=f"2026-09-01T08:{(first_line + number) // 60:02d}:{(first_line + number) % 60:02d}.000Z",
                message_id=(message or f"m-{name}") if role is NodeRole.ASSISTANT else None,
            )
        )
    return nodes


@pytest.mark.parametrize(
    ("edges", "superseded"),
    [
        ("u1 a1<u1 u2<a1 a2<u2", ""),  # a list
        ("u1 a1.m<u1 a2.m<a1 r1<a1 r2<a2 a3<r2", ""),  # parallel calls of one message
        ("u1 a1<u1 r1<a1 r2<a1 a2<r2", ""),  # two results of one line
        ("u1 a1<u1 p1<a1 p2<p1 r1<a1 a2<r1", ""),  # progress below a call
        ("u1 a1<u1 u2<a1 a2<u2 u3<a1 a3<u3", "u2 a2"),  # a rewind
        ("u1 a1<u1 u2<a1 u3<a1 a3<u3", "u2"),  # a rewind before the answer came
        ("u1 a1<u1 p1<a1 u2<p1 a2<u2 p2<a1 u3<p2 a3<u3", "u2 a2 p1?"),  # the two sides hang below other lines
        ("u1 a1<u1 u2<a1 a2<u2 u3<a2 a3<u3 u4<a1 a4<u4", "u2 a2 u3 a3"),  # back over two turns
        ("u1 a1<u1 u2<a1 a2<u2 u3<a2 a3<u3 u4<a2 a4<u4 u5<a1 a5<u5", "u2 a2 u3 a3 u4 a4"),  # twice, nested
        ("u1 a1<u1 r1<a1 a2<r1 u2<a1 a3<u2", "r1 a2"),  # back into the middle of a turn
        ("u1 a1<u1 r1<a1 u2<a1 a3<u2", ""),  # the result alone went nowhere
        ("u1 a1<u1 a2<u1 r2<a2 a3<r2", "a1"),  # the answer was made again
        ("u1 a1.m<u1 a2.m<u1", ""),  # one message, both lines below the prompt
        ("u1 a1<u1 t1<a1 u2<a1 a2<u2", ""),  # `/exit`, then resumed
        ("u1 a1<u1 t1<a1 a2<t1 u2<a1 a3<u2", "t1 a2"),  # back before a command that was answered
        ("u1 a1<u1 u2<a1 a2<u2 c1 c2<c1 a3<c2", ""),  # compaction: a new root
        ("u1 a1<gone u2<a1 a2<u2", ""),  # history that no file has
        ("u1 a1<u1 u2 a2<u2", "u1 a1"),  # back to the start of the session
        ("p1 u1<p1 a1<u1 p2<p1 u2<p2 a2<u2", "u1 a1"),  # the same below a hook's line
        ("u1 a1<u1 p1 u2<p1 a2<u2", ""),  # an empty context: its hooks ran again
        ("u1 a1<u1 u2<gone a2<u2", ""),  # history that no file has is no start
    ],
)
def test_only_what_a_person_left_is_superseded(edges: str, superseded: str) -> None:
    found = resolve(graph(*edges.split()))
    expected = {name for name in superseded.split() if not name.endswith("?")}
    optional = {name[:-1] for name in superseded.split() if name.endswith("?")}
    assert set(found.superseded) - optional == expected
    assert found.active == {edge.partition("<")[0].partition(".")[0] for edge in edges.split()} - set(found.superseded)


@pytest.mark.parametrize(
    ("edges", "superseded"),
    [
        ("u1 a1<u1 r1<a1 a2<u1 r2<a2 a3<u1", set()),  # every step of the turn below its prompt, none below a result
        ("u1 a1<u1 a2<u1 r2<a2 a3<u1", set()),  # one of them still runs
        ("u1 a1<u1 a2<u1 a3<u1", {"a1", "a2"}),  # none ran: answers made again
        ("u1 a1<u1 r1<a1 a4<r1 a2<u1 r2<a2 a3<r2", {"a1", "r1", "a4"}),  # the answer went on, and was made again
    ],
)
def test_answers_side_by_side_whose_calls_ran_are_the_steps_of_a_turn(edges: str, superseded: set[str]) -> None:
    nodes = [
        replace(node, tool_use_ids=(f"call{node.node_id[1:]}",)) if node.node_id[0] in "ar" else node
        for node in graph(*edges.split())
    ]
    assert set(resolve(nodes).superseded) == superseded


@pytest.mark.parametrize(
    ("edges", "node", "prompt", "direct"),
    [
        ("u1 a1<u1 r1<a1 a2<r1", "a2", "u1", True),
        ("u1 a1<u1 u2<a1 a2<u2 a3<u1", "a3", "u1", True),  # by the graph, not by the file's order
        ("u1 a1<u1 t1<a1 a2<t1", "a2", "u1", False),  # a command started that turn
        ("u1 a1<u1 c1<a1 c2<c1 a2<c2", "a2", "u1", False),  # compaction in between
        ("u1 a1<u1 c1<gone c2<c1 a2<c2", "a2", None, False),  # the reader names what a compaction goes on from
        ("a1 r1<a1", "a1", None, False),
        ("u1 a1<gone", "a1", None, False),  # never the session's last prompt
        ("t1 a1<t1", "a1", None, False),
    ],
)
def test_the_prompt_above_is_found_by_the_graph(edges: str, node: str, prompt: str | None, direct: bool) -> None:
    found = resolve(graph(*edges.split()))
    assert found.prompt_above[node] == prompt
    assert found.is_direct[node] is direct


def test_a_circle_of_parents_is_cut_and_nothing_is_lost() -> None:
    found = resolve(graph("u1<a2", "a1<u1", "u2<a1", "a2<u2"))
    assert found.order == ("u1", "a1", "u2", "a2")
    assert found.active == {"u1", "a1", "u2", "a2"}


def test_copied_history_is_one_event_and_counts_for_the_session_that_recorded_it_first() -> None:
    first = graph("u1", "a1<u1")
    copy = graph("u1", "a1<u1", "u2<a1", "a2<u2", session="T", file="g.jsonl", first_line=30)
    found = resolve([*copy, *first])
    assert found.primary_session == {"u1": "S", "a1": "S", "u2": "T", "a2": "T"}
    assert set(found.families.values()) == {"S"}
    assert not found.superseded
    assert found.turn_index["a2"] == 1


def test_both_sides_of_a_fork_into_another_session_happened() -> None:
    first = graph("u1", "a1<u1", "u2<a1", "a2<u2")
    copy = graph("u1", "a1<u1", "u3<a1", "a3<u3", session="T", file="g.jsonl", first_line=30)
    assert not resolve([*first, *copy]).superseded


def test_a_rewind_inside_a_resumed_session_leaves_only_its_own_side() -> None:
    first = graph("u1", "a1<u1")
    resumed = graph("u1", "a1<u1", "u2<a1", "a2<u2", "u3<a1", "a3<u3", session="T", file="g.jsonl", first_line=30)
    assert set(resolve([*first, *resumed]).superseded) == {"u2", "a2"}


def test_history_that_another_session_goes_on_from_was_not_abandoned() -> None:
    first = graph("u1", "a1<u1", "u2<a1", "a2<u2", "u3<a1", "a3<u3")
    fork = graph("u4<a2", "a4<u4", session="T", file="g.jsonl", first_line=30)
    assert not resolve([*first, *fork]).superseded


def test_a_session_without_its_history_joins_the_family_when_the_history_is_found() -> None:
    earlier = graph("u1", "a1<u1")
    later = graph("u2<a1", "a2<u2", session="T", file="g.jsonl", first_line=30)
    assert resolve(later).families == {"T": "T"}
    joined = resolve([*earlier, *later])
    assert joined.families == {"S": "S", "T": "S"}
    assert joined.turn_index["a2"] == 1


def test_turns_of_a_part_without_history_go_on_counting() -> None:
    found = resolve(graph("u1", "a1<u1", "u2<gone", "a2<u2"))
    assert found.turn_index == {"u1": 0, "a1": 0, "u2": 1, "a2": 1}


def test_a_night_that_rewinds_supersedes_what_the_night_before_stored() -> None:
    night_one = graph("u1", "a1<u1", "u2<a1", "a2<u2")
    night_two = graph("u3<a1", "a3<u3", first_line=5)
    assert not resolve(night_one).superseded
    assert resolve([*night_one, *night_two]).superseded == {"u2": "rewind", "a2": "rewind"}


def test_sub_agents_are_linked_to_the_call_and_kept_apart() -> None:
    main = graph("u1", "a1<u1", "r1<a1")
    main[2] = replace(main[2], started_agent_id="x7", tool_use_ids=("toolu_1",))
    agent = [replace(node, agent_id="x7") for node in graph("u8", "a8<u8", file="agent-x7.jsonl")]
    found = resolve([*main, *agent])
    assert found.spawned_by == {"x7": "toolu_1"}
    assert found.prompt_above["a8"] == "u8"
    assert found.turn_index["a8"] == 0


def test_a_sub_agent_goes_with_the_call_that_started_it() -> None:
    main = graph("u1", "a1<u1", "u2<a1", "a2<u2", "r2<a2", "u3<a1", "a3<u3", "r3<a3")
    for call, result, agent in (("a2", "r2", "x"), ("a3", "r3", "z")):
        calls = (f"toolu_{agent}",)
        main = [replace(node, tool_use_ids=calls) if node.node_id in (call, result) else node for node in main]
        main = [replace(node, started_agent_id=agent) if node.node_id == result else node for node in main]
    inside = [replace(node, agent_id="x") for node in graph("u8", "a8<u8", file="agent-x.jsonl", first_line=20)]
    inside[1] = replace(inside[1], tool_use_ids=("toolu_y",))
    below = [
        replace(node, agent_id="y", spawned_by_tool_use_id="toolu_y")
        for node in graph("u9", "a9<u9", file="agent-y.jsonl", first_line=30)
    ]
    kept = [replace(node, agent_id="z") for node in graph("u7", "a7<u7", file="agent-z.jsonl", first_line=40)]
    found = resolve([*main, *inside, *below, *kept])
    assert set(found.superseded) == {"u2", "a2", "r2", "u8", "a8", "u9", "a9"}


_EDGES = st.lists(st.tuples(st.sampled_from("uuaaarrcpt"), st.integers(-1, 20), st.integers(0, 3)), max_size=18)


@given(edges=_EDGES, seed=st.integers(0, 9))
@settings(deadline=None)
def test_any_graph_resolves_the_same_in_any_order_and_keeps_every_node(
    edges: list[tuple[str, int, int]], seed: int
) -> None:
    names = [f"{role}{number}" for number, (role, _, _) in enumerate(edges)]
    nodes = []
    for number, (_, parent, session) in enumerate(edges):
        above = names[parent] if 0 <= parent < len(names) and parent != number else ""
        nodes += graph(
            f"{names[number]}<{above}", session=f"S{session % 2}", file=f"f{session}.jsonl", first_line=number + 1
        )
    shuffled = nodes[:]
    random.Random(seed).shuffle(shuffled)
    found, again = resolve(nodes), resolve(shuffled)
    assert (found.active, found.superseded, found.prompt_above) == (again.active, again.superseded, again.prompt_above)
    assert found.order == again.order
    assert found.active | set(found.superseded) == set(names)
    assert not found.active & set(found.superseded)
    assert all(prompt is None or prompt.startswith("u") for prompt in found.prompt_above.values())

"""Turn the nodes and events of one session family into rows: linked by the event graph, cut, counted.

Pure: events come in redacted, nothing is read from disk or the database. What earlier nights stored of the family comes
in as `StoredNode`s; what this night says about them goes out as state changes, never as changed rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, NodeRole
from toolcall_pipeline.sessions.graph import Resolution, resolve
from toolcall_pipeline.store.copied_history import first_of, with_first_nodes
from toolcall_pipeline.store.node_states import Standing, compare_states, node_rows
from toolcall_pipeline.store.rows import Row, call_content_hash, content_hash, cut_tool_input, ordered_json
from toolcall_pipeline.store.stored_nodes import StoredNode

# A node's place among all nodes of its family, times this, leaves room for the events that sit on it.
_EVENTS_PER_NODE = 1024

# Subkind of events that hold what the agent was told before the first prompt.
INSTRUCTIONS = "instructions"


@dataclass(slots=True)
class FamilyEvents:
    """What one night read of a family, redacted, in file order; identical repeats are left out.

    Attributes:
        nodes: New nodes (a copied node once per session).
        events: First occurrence of every event.
        elsewhere: Event id to further nodes that carry the same event.
        copied: Nodes of prompts, stored ones included, that this night shows to be copies, with the node of the first.
        project_paths: Working directory (as the event has it) to the key of its project.
        duplicates_skipped: Repeats that were left out.
        agent_type: Name of the format.
    """

    agent_type: str
    nodes: list[GraphNode] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    elsewhere: dict[str, list[str]] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)
    project_paths: dict[str | None, str] = field(default_factory=dict)
    duplicates_skipped: int = 0


@dataclass(slots=True)
class LinkedFamily:
    """The rows of a family, and what is to be said about rows of earlier runs.

    Attributes:
        rows: Table name to rows.
        superseded: Stored nodes that are no longer on the active branch, with the reason.
        restored: Stored nodes that are on it again.
        unparked: Stored nodes whose parked events become rows of this run, with the place each event has now.
        counts: Numbers by name.
    """

    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    superseded: dict[str, str] = field(default_factory=dict)
    restored: list[str] = field(default_factory=list)
    unparked: dict[str, dict[str, Row]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def link_family(family: FamilyEvents, stored: Sequence[StoredNode]) -> LinkedFamily:
    """Return the rows of one family.

    Args:
        family: What this night read.
        stored: Every node earlier runs stored of the family.

    Returns:
        Rows in canonical order: the same input gives the same rows, however it was batched.
    """
    known = {item.node.node_id for item in stored}
    copied = {item.node.node_id: item.first_node_id for item in stored if item.first_node_id} | family.copied
    nodes = with_first_nodes([*(item.node for item in stored), *family.nodes], copied)
    resolution = resolve(nodes)
    standing = Standing(resolution, nodes)
    linked = LinkedFamily()
    linked.counts["duplicates_skipped"] = family.duplicates_skipped
    _Builder(family, resolution, linked, stored, copied, standing).build()
    linked.rows["mem_graph_nodes"].extend(node_rows(family.nodes, stored))
    linked.rows["mem_copied_nodes"].extend(
        {"node_id": node_id, "first_node_id": first} for node_id, first in sorted(family.copied.items())
    )
    linked.superseded, linked.restored = compare_states(resolution, stored, copied, standing)
    linked.rows["mem_session_families"].extend(
        {"session_id": session_id, "family_id": family_id}
        for session_id, family_id in sorted(resolution.families.items())
    )
    linked.counts["nodes"] = sum(node.node_id not in known for node in family.nodes)
    return linked


class _Builder:
    """Walks a family's nodes in canonical order and makes a row of every event."""

    def __init__(
        self,
        family: FamilyEvents,
        resolution: Resolution,
        linked: LinkedFamily,
        stored: Sequence[StoredNode],
        copied: Mapping[str, str],
        standing: Standing,
    ) -> None:
        self._family = family
        self._resolution = resolution
        self._linked = linked
        self._on_node: dict[str, list[Event]] = defaultdict(list)
        self._results: dict[str, Event] = {}
        self._copied = copied
        self._stored_calls = {
            item.node.node_id: item.node.tool_use_ids for item in stored if item.node.role is NodeRole.ASSISTANT
        }
        self._parked = {
            item.node.node_id: item
            for item in stored
            if item.state == "parked" and item.node.node_id not in copied and standing.is_active(item.node)
        }
        self._parked_calls = _calls_of(item for item in stored if item.state == "parked")
        self._known_calls = _calls_of(stored)
        self._new_calls = {
            event.event_id for event in family.events if event.kind is EventKind.TOOL_CALL
        } - self._known_calls
        # A prompt that is a copy has its row, if any, from before it was found out.
        self._stored_prompts = {
            item.node.node_id: item.said
            for item in stored
            if item.said
            and item.state != "parked"
            and item.node.role is not NodeRole.ASSISTANT
            and item.node.node_id not in copied
        }
        self._prompt_ids = {
            item.node.node_id: item.said[0][0]
            for item in stored
            if item.said and item.node.role is NodeRole.PROMPT and item.node.node_id not in copied
        }
        self._counted: set[str] = set()
        self._next_subindex: Counter[str | None] = Counter()
        self._next_prompt_number: Counter[str] = Counter()
        self._sessions: dict[str, Row] = {}
        self._place_events()

    def build(self) -> None:
        for rank, node_id in enumerate(self._resolution.order):
            prompt = self._resolution.prompt_above.get(node_id)
            if node_id in self._parked:
                self._unpark(self._parked[node_id], prompt, rank * _EVENTS_PER_NODE)
            if self._is_active(node_id):
                for call_id in self._stored_calls.get(node_id, ()):
                    self._count_call(call_id, prompt)
                self._next_prompt_number[self._resolution.primary_session[node_id]] += len(
                    self._stored_prompts.get(node_id, ())
                )
            for index, event in enumerate(self._on_node.pop(node_id, ())):
                position = rank * _EVENTS_PER_NODE + min(index, _EVENTS_PER_NODE - 1)
                self._add(event, node_id, prompt, position)
        self._linked.rows["mem_sessions"].extend(self._sessions[name] for name in sorted(self._sessions))

    def _place_events(self) -> None:
        """Put every event on its node, or, where that one was abandoned, on an active one that carries it too."""
        prompt_ids: dict[str, str] = {}
        for event in self._family.events:
            node_id = first_of(event.node_id, self._copied)
            if not self._is_active(node_id):
                node_id = next(
                    (n for n in self._family.elsewhere.get(event.event_id, ()) if self._is_active(n)), node_id
                )
            self._on_node[node_id].append(event)
            if event.kind is EventKind.PROMPT:
                prompt_ids.setdefault(node_id, event.event_id)
            elif event.kind is EventKind.TOOL_RESULT and event.tool_use_id is not None:
                call_id = call_id_of(event)
                if call_id in self._new_calls and (call_id not in self._results or self._is_active(node_id)):
                    self._results.setdefault(call_id, event)
        self._prompt_ids = prompt_ids | self._prompt_ids

    def _is_active(self, node_id: str) -> bool:
        return node_id in self._resolution.active

    def _unpark(self, item: StoredNode, prompt_node: str | None, position: int) -> None:
        """Give the parked events of a node the places they have now that the conversation came back to it."""
        node_id = item.node.node_id
        places: dict[str, Row] = {}
        if item.node.role is NodeRole.ASSISTANT:
            events = [*(event_id for event_id, _ in item.said), *item.node.tool_use_ids]
            for index, event_id in enumerate(events):
                places[event_id] = self._turn(node_id, prompt_node, position + index)
                places[event_id]["turn_subindex"] = self._next_subindex[prompt_node]
                if event_id in item.node.tool_use_ids:
                    self._count_call(event_id, prompt_node)
        else:
            session_id = self._resolution.primary_session[node_id]
            for event_id, _ in item.said:
                self._next_prompt_number[session_id] += 1
                places[event_id] = {
                    "prompt_number": self._next_prompt_number[session_id],
                    "turn_index": self._resolution.turn_index.get(node_id, -1),
                    "position": position,
                }
        self._linked.unparked[node_id] = places

    def _count_call(self, call_id: str, prompt_node: str | None) -> None:
        if call_id not in self._counted:
            self._counted.add(call_id)
            self._next_subindex[prompt_node] += 1

    def _add(self, event: Event, node_id: str, prompt_node: str | None, position: int) -> None:
        if event.event_id in self._known_calls and (
            event.event_id in self._parked_calls or not self._is_active(node_id)
        ):
            self._linked.counts["duplicates_skipped"] += 1
            return
        common = self._common(event, node_id)
        if event.kind is EventKind.PROMPT:
            self._emit("mem_user_prompts", node_id, self._prompt_row(event, common, position))
        elif event.kind is EventKind.TOOL_CALL:
            self._emit("mem_tool_calls", node_id, self._call_row(event, common, prompt_node, position))
        elif event.kind is EventKind.ASSISTANT_TEXT:
            row = common | self._turn(node_id, prompt_node, position)
            row |= {"message_id": event.message_id, "model": event.model, "text": event.text or ""}
            row["content_hash"] = content_hash(row["text"])
            row["turn_subindex"] = self._next_subindex[prompt_node]
            self._emit("mem_assistant_texts", node_id, row)
        elif event.kind is EventKind.TOOL_RESULT:
            self._add_result(event, common)
        elif event.kind is EventKind.INTERRUPTION and self._is_active(node_id):
            prompt = self._prompt_ids.get(prompt_node) if prompt_node else None
            self._linked.rows["mem_interruptions"].append(common | {"prompt_event_id": prompt})
        if event.offered_tools or event.subkind == INSTRUCTIONS:
            self._add_offer(event, common)

    def _common(self, event: Event, node_id: str) -> Row:
        session_id = self._resolution.primary_session.get(node_id, event.session_id)
        project_path = self._family.project_paths[event.cwd]
        if session_id not in self._sessions:
            self._sessions[session_id] = {
                "session_id": session_id,
                "project_path": project_path,
                "agent_type": self._family.agent_type,
                "agent_version": event.agent_version,
            }
        return {
            "event_id": event.event_id,
            "node_id": node_id,
            "session_id": session_id,
            "project_path": project_path,
            "agent_id": event.agent_id,
            "has_image": event.has_image,
            "cwd": event.cwd,
            "git_branch": event.git_branch,
            "occurred_at": utc_time(event.timestamp),
            "source_file": event.location.file,
            "source_line": event.location.line,
        }

    def _turn(self, node_id: str, prompt_node: str | None, position: int) -> Row:
        return {
            "prompt_event_id": self._prompt_ids.get(prompt_node) if prompt_node else None,
            "turn_index": self._resolution.turn_index.get(node_id, -1),
            "position": position,
            "is_direct": self._resolution.is_direct.get(node_id, False),
        }

    def _prompt_row(self, event: Event, common: Row, position: int) -> Row:
        session_id, text = common["session_id"], event.text or ""
        if self._is_active(common["node_id"]):
            self._next_prompt_number[session_id] += 1
        return common | {
            "prompt_number": self._next_prompt_number[session_id],
            "turn_index": self._resolution.turn_index.get(common["node_id"], -1),
            "position": position,
            "prompt_text": text,
            "content_hash": content_hash(text),
            "agent_name": self._family.agent_type,
            "agent_version": event.agent_version,
            "is_sub_agent": event.agent_id is not None,
            "spawned_by_event_id": event.spawned_by_tool_use_id
            or (self._resolution.spawned_by.get(event.agent_id) if event.agent_id else None),
            "subkind": event.subkind,
        }

    def _call_row(self, event: Event, common: Row, prompt_node: str | None, position: int) -> Row:
        tool_input, truncated = cut_tool_input(event.tool_input)
        result = self._results.get(event.event_id)
        row = common | self._turn(common["node_id"], prompt_node, position)
        row |= {
            "turn_subindex": self._next_subindex[prompt_node],
            "message_id": event.message_id,
            "is_nested": event.agent_id is not None and event.spawned_by_tool_use_id is not None,
            "tool_name": event.tool_name or "",
            "tool_input": tool_input,
            "tool_input_ordered": ordered_json(tool_input),
            "truncated_at_bytes": truncated,
            "content_hash": call_content_hash(event.tool_name or "", event.tool_input),
            "model": event.model,
        }
        if result is not None:
            row |= {
                "response": result.text or "",
                "is_error": result.is_error,
                "is_rejected": result.is_rejected,
                "has_image": event.has_image or result.has_image,
            }
        if self._is_active(common["node_id"]):
            self._count_call(event.event_id, prompt_node)
        return row

    def _add_result(self, event: Event, common: Row) -> None:
        call_id = call_id_of(event)
        if call_id in self._new_calls:
            self._linked.counts["results"] += self._results.get(call_id) is event
            return
        self._linked.rows["mem_late_results"].append(
            common
            | {
                "call_event_id": call_id,
                "response": event.text or "",
                "is_error": event.is_error,
                "is_rejected": event.is_rejected,
            }
        )

    def _add_offer(self, event: Event, common: Row) -> None:
        tools = list(event.offered_tools)
        instructions = event.text if event.subkind == INSTRUCTIONS else None
        self._linked.rows["mem_offered_tools"].append(
            {
                "session_id": common["session_id"],
                "agent_id": event.agent_id or "",
                "content_hash": call_content_hash(instructions or "", tools),
                "tools": tools,
                "system_prompt": instructions,
                "source_file": event.location.file,
                "source_line": event.location.line,
            }
        )

    def _emit(self, table: str, node_id: str, row: Row) -> None:
        if self._is_active(node_id):
            self._linked.rows[table].append(row)
            self._count(table, row)
            return
        self._linked.counts["parked"] += 1
        self._linked.rows["mem_parked_events"].append(
            {
                "event_id": row["event_id"],
                "node_id": node_id,
                "session_id": row["session_id"],
                "table_name": table,
                "reason": self._resolution.superseded.get(node_id, "abandoned"),
                "row_data": {name: value for name, value in row.items() if value is not None},
            }
        )

    def _count(self, table: str, row: Row) -> None:
        counts = self._linked.counts
        if table == "mem_user_prompts":
            counts["sub_agent_prompts" if row["is_sub_agent"] else "prompts"] += 1
        elif table == "mem_assistant_texts":
            counts["assistant_texts"] += 1
        elif table == "mem_tool_calls":
            counts["tool_calls"] += 1
            counts["tool_calls_nested"] += bool(row["is_nested"])
            counts["orphans"] += row["prompt_event_id"] is None
            counts["truncated"] += row["truncated_at_bytes"] is not None


def call_id_of(result: Event) -> str:
    """Return the event id of the call a result answers."""
    return result.event_id.removesuffix(":result")


def utc_time(timestamp: str | None) -> str | None:
    """Return a recorded time in UTC as PostgreSQL takes it, or None where it is no time."""
    if timestamp is None:
        return None
    try:
        time = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC).isoformat()
    except (OverflowError, ValueError):
        return None


def _calls_of(stored: Iterable[StoredNode]) -> set[str]:
    return {call_id for item in stored if item.node.role is NodeRole.ASSISTANT for call_id in item.node.tool_use_ids}


def families_changed(rows: Iterable[Row], known: Mapping[str, str]) -> list[Row]:
    """Return the family rows that say something new."""
    return [row for row in rows if known.get(row["session_id"]) != row["family_id"]]

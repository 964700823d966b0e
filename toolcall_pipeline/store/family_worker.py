"""One session family from its files to rows in COPY form: read, redact, link. Runs in worker processes.

Nothing unredacted leaves this module: what is returned, logged or raised holds redacted text only.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from msgspec.structs import replace

from toolcall_pipeline.redaction import RedactionOptions, Redactor
from toolcall_pipeline.sessions.events import Event, EventKind, GraphNode, MalformedLine, SourceLocation
from toolcall_pipeline.sessions.lock import FileState, LockedFile, SessionsLock, read_locked_file
from toolcall_pipeline.store.copied_history import Key, StoredHistory, copied_prompts, said_key
from toolcall_pipeline.store.counted_ids import CountedIds, is_counted
from toolcall_pipeline.store.linking import INSTRUCTIONS, FamilyEvents, call_id_of, families_changed, link_family
from toolcall_pipeline.store.projects import ProjectContext, ProjectResolver
from toolcall_pipeline.store.rows import Row, encode_copy
from toolcall_pipeline.store.stored_nodes import StoredNode

TAKEN_ID = "a second call with the id of another one of its session; the first is stored"
# Raw text held before it is redacted; a few of the scanner's own blocks, so that memory does not grow with a file.
_CHUNK_CHARACTERS = 4 << 20
_PROJECT_KEY = "project"
_Place = tuple[str, str, SourceLocation | None]
_STORED_KINDS = frozenset(
    {EventKind.PROMPT, EventKind.ASSISTANT_TEXT, EventKind.TOOL_CALL, EventKind.TOOL_RESULT, EventKind.INTERRUPTION}
)


@dataclass(frozen=True, slots=True)
class FamilyTask:
    """What a worker is given.

    Attributes:
        number: Its place in the canonical order of families.
        lock: The lock, with this family's files only.
        stored: What earlier runs stored of the family.
        known_families: Session id to family id, as stored.
    """

    number: int
    lock: SessionsLock
    stored: tuple[StoredNode, ...]
    known_families: dict[str, str]


@dataclass(slots=True)
class FamilyRows:
    """What a worker gives back.

    Attributes:
        copies: Table name to rows in COPY's text form.
        row_counts: Table name to number of rows.
        projects: Every project the rows name.
        superseded, restored, unparked: Nodes of earlier runs, see `LinkedFamily`.
        states: How far each file is read now.
        counts, redactions: Numbers by name and by rule.
        session_count: Sessions with at least one row.
    """

    number: int
    copies: dict[str, bytes]
    row_counts: dict[str, int]
    projects: list[ProjectContext]
    superseded: dict[str, str]
    restored: list[str]
    unparked: dict[str, dict[str, Row]]
    states: list[FileState]
    counts: Counter[str] = field(default_factory=Counter)
    redactions: dict[str, int] = field(default_factory=dict)
    session_count: int = 0

    @property
    def size_bytes(self) -> int:
        """Return how much COPY text this is."""
        return sum(map(len, self.copies.values()))


class FamilyReader:
    """Reads and links families with one redactor and one project resolver, both kept warm."""

    def __init__(self, options: RedactionOptions) -> None:
        self._redactor = Redactor(options)
        # Names are remembered, so which family would count them depends on which worker met them first: nobody counts them.
        self._name_redactor = Redactor(options)
        self._resolver = ProjectResolver(redact=self._redact_name)
        self._names: dict[str, str] = {}
        self._names_together: dict[tuple[str | None, ...], tuple[str | None, ...]] = {}

    def read(self, task: FamilyTask) -> FamilyRows:
        """Return a family's rows.

        Raises:
            RedactionError: The scanner failed.
            ArtifactError: A file changed since it was frozen.
        """
        self._redactor.reset_report()
        contexts: dict[str, ProjectContext] = {}
        collector = _Collector(task, self, contexts)
        for locked in task.lock.files:
            collector.read_file(locked)
        collector.judge_prompts()
        collector.flush()
        redactions = self._redactor.report()  # of what is stored
        collector.judge_repeats()
        linked = link_family(collector.family, task.stored)
        linked.rows["mem_quarantine"] = collector.quarantine
        linked.rows["mem_session_families"] = families_changed(linked.rows["mem_session_families"], task.known_families)
        linked.counts["quarantined_lines"] = len(collector.quarantine)
        filled = {table: rows for table, rows in linked.rows.items() if rows}
        return FamilyRows(
            number=task.number,
            copies={table: encode_copy(table, rows) for table, rows in filled.items()},
            row_counts={table: len(rows) for table, rows in filled.items()},
            projects=[contexts[path] for path in sorted(contexts)],
            superseded=linked.superseded,
            restored=linked.restored,
            unparked=linked.unparked,
            states=[locked.next_state for locked in task.lock.files if locked.next_state is not None],
            counts=linked.counts,
            redactions=redactions,
            session_count=len(filled.get("mem_sessions", ())),
        )

    def project(self, cwd: str | None) -> ProjectContext:
        """Return the project of a working directory as a session recorded it, in redacted form."""
        return self._resolver.resolve(cwd)

    def redact_events(self, events: Sequence[Event]) -> list[Event]:
        """Return events with every string of theirs redacted, in order."""
        # What is not there is not handed over: most events have a text and nothing else.
        items: list[tuple[str, Any]] = []
        for event in events:
            if event.text is not None:
                items.append((event.session_id, event.text))
            if event.tool_input is not None:
                items.append((event.session_id, event.tool_input))
            if event.offered_tools:
                items.append((event.session_id, event.offered_tools))
        redacted = iter(self._redactor.redact_batch(items))
        return [
            self._redacted(
                event,
                None if event.text is None else next(redacted),
                None if event.tool_input is None else next(redacted),
                next(redacted) if event.offered_tools else (),
            )
            for event in events
        ]

    def _redacted(self, event: Event, text: str | None, tool_input: Any, offered_tools: tuple[Any, ...]) -> Event:
        names = (event.tool_name, event.cwd, event.git_branch, event.agent_version, event.model)
        redacted = self._names_together.get(names)
        if redacted is None:
            redacted = self._names_together[names] = tuple(map(self.redact_name, names))
        tool_name, cwd, git_branch, agent_version, model = redacted
        # By position: by name, and before that by `dataclasses.replace`, it took a tenth of the whole reading.
        return Event(
            event.event_id,
            event.kind,
            event.node_id,
            event.parent_node_id,
            event.session_id,
            event.location,
            event.agent_id,
            event.spawned_by_tool_use_id,
            event.message_id,
            event.timestamp,
            text,
            event.subkind,
            event.tool_use_id,
            tool_name,
            tool_input,
            event.is_error,
            event.is_rejected,
            event.has_image,
            cwd,
            git_branch,
            agent_version,
            model,
            offered_tools,
            event.started_agent_id,
        )

    def redact_uncounted(self, text: str, session_id: str) -> str:
        """Return a text redacted that is compared and not stored."""
        return self._name_redactor.redact_text(text, session_id)

    def redact_name(self, name: str | None) -> str | None:
        """Return a path, branch, tool, version or model name redacted; the few there are are remembered."""
        return None if name is None else self._redact_name(name)

    def _redact_name(self, name: str) -> str:
        if name not in self._names:
            self._names[name] = self._name_redactor.redact_text(name, _PROJECT_KEY)
        return self._names[name]


class _Collector:
    """Gathers what the files of one family hold, redacting as it goes."""

    def __init__(self, task: FamilyTask, reader: FamilyReader, contexts: dict[str, ProjectContext]) -> None:
        self.family = FamilyEvents(agent_type=task.lock.files[0].format)
        self.quarantine: list[Row] = []
        self._lock = task.lock
        self._reader = reader
        self._contexts = contexts
        self._stored = StoredHistory(task.stored)
        self._ids = CountedIds(task.stored, reader.redact_uncounted)
        # Event id to node, session and place of its first occurrence; no place where an earlier run stored it.
        self._seen: dict[str, _Place] = {}
        # What was said, to the event id of the first who said it; prompts said again, with that id; nodes that copy others.
        self._said: dict[Key, str] = {}
        self._asked_again: list[tuple[Event, str]] = []
        self._copies: list[tuple[str, str]] = []
        self._repeats: list[Event] = []
        self._pending: list[Event] = []
        self._pending_characters = 0

    def read_file(self, locked: LockedFile) -> None:
        file = self._reader.redact_name(locked.path) or locked.path
        counted: tuple[GraphNode, list[Event]] | None = None
        for record in read_locked_file(self._lock, locked, file):
            if isinstance(record, GraphNode):
                if counted is not None:
                    self._take_counted(*counted)
                    counted = None
                if is_counted(record.node_id):
                    counted = (record, [])  # what is on the line tells whose it is
                else:
                    self.family.nodes.append(self._ids.below(record))
            elif isinstance(record, MalformedLine):
                self.quarantine.append(
                    {
                        "source_file": file,
                        "source_line": record.location.line,
                        "byte_offset": record.location.byte_offset,
                        "reason": record.reason,
                        "length_bytes": record.length_bytes,
                    }
                )
            elif counted is not None and record.node_id == counted[0].node_id:
                counted[1].append(record)
            elif record.kind in _STORED_KINDS or record.offered_tools or record.subkind == INSTRUCTIONS:
                self._take(record)
        if counted is not None:
            self._take_counted(*counted)

    def _take_counted(self, node: GraphNode, events: Sequence[Event]) -> None:
        node, settled = self._ids.settle(node, events)
        self.family.nodes.append(node)
        for event in settled:
            if event.kind in _STORED_KINDS or event.offered_tools or event.subkind == INSTRUCTIONS:
                self._take(event)

    def flush(self) -> None:
        events = self._pending
        self._pending, self._pending_characters = [], 0
        for event, redacted in zip(events, self._reader.redact_events(events), strict=True):
            if redacted.cwd not in self.family.project_paths:
                context = self._reader.project(event.cwd)
                self._contexts[context.full_path] = context
                self.family.project_paths[redacted.cwd] = context.full_path
            self.family.events.append(redacted)

    def judge_prompts(self) -> None:
        """Leave out prompts of copied history, whose nodes become those of the first; take the others."""
        if not self._copies:
            copied: set[str] = set()
        else:
            candidates = [(event.node_id, self._seen[first][0]) for event, first in self._asked_again]
            copied, self.family.copied = copied_prompts(self.family.nodes, candidates, self._copies, self._stored)
        self.family.duplicates_skipped += len(copied)
        for event, _ in self._asked_again:
            if event.node_id not in copied:
                self._take_first(event)

    def judge_repeats(self) -> None:
        """Put calls that only share their id with another call of their session into quarantine; the rest are repeats."""
        repeats = self._reader.redact_events(self._repeats)
        ids = {event.event_id for event in repeats}
        first = {event.event_id: event for event in self.family.events if event.event_id in ids}
        for event in repeats:
            known = first[event.event_id]
            if (event.tool_name, event.tool_input) == (known.tool_name, known.tool_input):
                self.family.duplicates_skipped += 1
                continue
            self.quarantine.append(
                {
                    "source_file": event.location.file,
                    "source_line": event.location.line,
                    "byte_offset": event.location.byte_offset,
                    "reason": TAKEN_ID,
                    "length_bytes": 0,
                }
            )

    def _take(self, event: Event) -> None:
        first = self._seen.get(event.event_id)
        if first is not None:
            self._take_again(event, *first)
        elif not self._stored.nodes or not self._take_stored(event):
            self._take_said(event)

    def _take_stored(self, event: Event) -> bool:
        """Take an event that an earlier run stored, from this line or another; False where none did."""
        if self._stored.has(event):
            self.family.duplicates_skipped += 1
        elif event.kind is EventKind.TOOL_CALL and event.event_id in self._stored.calls:
            # Taken all the same: the insert tells a repeat from a call whose id another one has.
            self._take_first(event)
            self._see_stored(event.event_id, self._stored.calls[event.event_id])
            self._note_copy(event, self._seen[event.event_id][0])
        elif event.kind is EventKind.TOOL_RESULT and call_id_of(event) in self._stored.results:
            self._see_stored(event.event_id, self._stored.results[call_id_of(event)])
            self._take_again(event, *self._seen[event.event_id])
        else:
            return False
        return True

    def _take_said(self, event: Event) -> None:
        key = said_key(event)
        said = self._said.get(key) if key is not None else None
        if said is None and key is not None:
            said = self._stored_said(event, key)
            self._said[key] = said or event.event_id
        if said is None:
            self._take_first(event)
        elif event.kind is EventKind.PROMPT:
            self._asked_again.append((event, said))
        else:
            self._take_again(replace(event, event_id=said), *self._seen[said])

    def _stored_said(self, event: Event, key: Key) -> str | None:
        found = self._stored.first_like(event, key, self._reader.redact_uncounted)
        if found is None:
            return None
        event_id, node = found
        self._see_stored(event_id, node)
        return event_id

    def _take_again(self, event: Event, node_id: str, session_id: str, location: SourceLocation | None) -> None:
        """Note a repeat: of a line, a copied history, or a call whose id only looks like another's."""
        if node_id != event.node_id:
            self.family.elsewhere.setdefault(event.event_id, []).append(event.node_id)
        self._note_copy(event, node_id)
        is_other_place = node_id != event.node_id or location == event.location
        if event.kind is EventKind.TOOL_CALL and is_other_place and session_id == event.session_id:
            self._repeats.append(event)
        else:
            self.family.duplicates_skipped += 1

    def _note_copy(self, event: Event, node_id: str) -> None:
        if node_id != event.node_id:
            self._copies.append((event.node_id, node_id))

    def _take_first(self, event: Event) -> None:
        self._seen[event.event_id] = (event.node_id, event.session_id, event.location)
        self._pending.append(event)
        self._pending_characters += _characters(event)
        if self._pending_characters > _CHUNK_CHARACTERS:
            self.flush()

    def _see_stored(self, event_id: str, node: GraphNode) -> None:
        """Take a stored event for the first of what this night reads of it."""
        self._seen[event_id] = (node.node_id, node.session_id, None)


def _characters(event: Event) -> int:
    if event.text is not None:
        return len(event.text)
    if isinstance(event.tool_input, dict):
        return sum([len(value) for value in event.tool_input.values() if isinstance(value, str)])
    return 0


_reader: FamilyReader | None = None


def start_worker(options: RedactionOptions) -> None:
    """Prepare a worker process: a warm reader, and an end when its parent is killed."""
    global _reader
    _reader = FamilyReader(options)
    parent = parent_process()
    if parent is not None:
        # A worker whose parent was killed waits forever for its next task: it holds the other end of its own queue.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def read_family(task: FamilyTask) -> FamilyRows:
    """Return a family's rows, in a process that `start_worker` prepared."""
    assert _reader is not None
    return _reader.read(task)

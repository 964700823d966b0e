"""Which locked files belong together: a family is read, linked and stored as one, and never split over transactions.

Files belong together when they carry the same session, the same node or call (copied history), a node whose parent is in the
other, or when an earlier run stored something that joins them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.engine import Connection, Engine

from toolcall_pipeline.sessions.lock import LockedFile
from toolcall_pipeline.store.engine import look_keys_up


@dataclass(frozen=True, slots=True)
class FileNodes:
    """What is known of a locked file before it is read.

    Attributes:
        locked: Its entry in the lock.
        node_ids: Nodes in its new range and parents these name outside of it.
        call_ids: Event ids of the calls in it.
    """

    locked: LockedFile
    node_ids: frozenset[str]
    call_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FileFamily:
    """Files that belong together, in lock order, and the stored sessions they continue."""

    files: tuple[LockedFile, ...]
    stored_sessions: frozenset[str]


class _Sets:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        parent = self._parent.setdefault(name, name)
        while parent != self._parent[parent]:
            self._parent[parent] = self._parent[self._parent[parent]]
            parent = self._parent[parent]
        self._parent[name] = parent
        return parent

    def join(self, one: str, two: str) -> None:
        first, second = sorted((self.find(one), self.find(two)))
        self._parent[second] = first


def group_files(
    files: Sequence[FileNodes],
    stored_sessions: Iterable[tuple[str, str]],
    families: dict[str, str],
    stored_calls: Iterable[tuple[str, str]] = (),
) -> list[FileFamily]:
    """Return the files in groups that share nothing.

    Args:
        files: The files with something to read, in lock order.
        stored_sessions: (node id, session id) of every node of `files` that an earlier run stored.
        families: Session id to family id, as stored.
        stored_calls: (call's event id, session id) of every call of `files` that an earlier run stored.

    Returns:
        Families in the order of their first file; each file is in exactly one.
    """
    sets = _Sets()
    for index, file in enumerate(files):
        name = _file(index)
        for session_id in file.locked.session_ids:
            sets.join(name, _family(session_id, families))
        for node_id in file.node_ids:
            sets.join(name, f"node:{node_id}")
        for call_id in file.call_ids:
            sets.join(name, f"call:{call_id}")
    for call_id, session_id in stored_calls:
        sets.join(f"call:{call_id}", _family(session_id, families))
    for node_id, session_id in stored_sessions:
        sets.join(f"node:{node_id}", _family(session_id, families))
    members: defaultdict[str, list[LockedFile]] = defaultdict(list)
    for index, file in enumerate(files):
        members[sets.find(_file(index))].append(file.locked)
    known: defaultdict[str, set[str]] = defaultdict(set)
    for session_id in families:
        known[sets.find(_family(session_id, families))].add(session_id)
    return [FileFamily(tuple(group), frozenset(known.get(root, ()))) for root, group in members.items()]


def _file(index: int) -> str:
    return f"file:{index}"


def _family(session_id: str, families: dict[str, str]) -> str:
    return f"family:{families.get(session_id, session_id)}"


def stored_families(engine: Engine, but_run: str) -> dict[str, str]:
    """Return session id to family id as runs other than `but_run` stored them; the newest run's word counts."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT DISTINCT ON (session_id) session_id, family_id FROM mem_session_families "
                "JOIN backfill_runs USING (backfill_run_id) WHERE backfill_run_id <> :run "
                "ORDER BY session_id, freeze_number DESC"
            ),
            {"run": but_run},
        )
        return {session_id: family_id for session_id, family_id in rows}


_NODES = text(
    "SELECT node_id, session_id FROM unnest(CAST(:ids AS text[])) AS wanted (node_id) "
    "JOIN mem_graph_nodes USING (node_id) WHERE backfill_run_id <> :run"
)
_CALLS = text(
    "SELECT event_id, session_id FROM mem_tool_calls WHERE event_id = ANY(CAST(:ids AS text[])) "
    "AND backfill_run_id <> :run UNION ALL SELECT event_id, session_id FROM mem_parked_events "
    "WHERE event_id = ANY(CAST(:ids AS text[])) AND backfill_run_id <> :run"
)
# As in the index of migration 016, with the length that `counted_ids.is_counted` asks.
_COUNTED = text(
    "SELECT substring(node_id FROM '[^:]*$'), session_id FROM mem_graph_nodes "
    "WHERE substring(node_id FROM '[^:]*$') = ANY(CAST(:ids AS text[])) AND node_id LIKE '%:%' "
    "AND length(substring(node_id FROM '[^:]*$')) < 20 AND backfill_run_id <> :run"
)
_IDS_PER_QUERY = 50_000


def sessions_of_nodes(connection: Connection, node_ids: Sequence[str], but_run: str) -> list[tuple[str, str]]:
    """Return (node id, session id) of the nodes that runs other than `but_run` stored."""
    look_keys_up(connection)
    return _sessions_of(connection, _NODES, node_ids, but_run)


def sessions_of_calls(connection: Connection, call_ids: Sequence[str], but_run: str) -> list[tuple[str, str]]:
    """Return (event id, session id) of the calls that runs other than `but_run` stored."""
    return _sessions_of(connection, _CALLS, call_ids, but_run)


def sessions_of_counted(connection: Connection, node_ids: Sequence[str], but_run: str) -> list[tuple[str, str]]:
    """Return (id, session id) of lines that have one of these counted ids behind a session's name, see `CountedIds`."""
    return _sessions_of(connection, _COUNTED, node_ids, but_run)


def _sessions_of(connection: Connection, query: TextClause, ids: Sequence[str], but_run: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for start in range(0, len(ids), _IDS_PER_QUERY):
        rows = connection.execute(query, {"ids": list(ids[start : start + _IDS_PER_QUERY]), "run": but_run})
        found += [(found_id, session_id) for found_id, session_id in rows]
    return found

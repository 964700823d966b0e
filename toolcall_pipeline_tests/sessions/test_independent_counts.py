"""On real sessions the readers count what a program written another way counts."""

from collections import Counter
from pathlib import Path

import pytest

from toolcall_pipeline.sessions.discovery import discover, sniff_format
from toolcall_pipeline.sessions.events import Event, GraphNode
from toolcall_pipeline.sessions.graph import resolve
from toolcall_pipeline.sessions.reading import SessionFileReader
from toolcall_pipeline_tests.sessions.independent_count import Counted, count_claude, count_codex

# A file of every size class without the hours of the large ones; `slow` reads all of them.
_DEFAULT_MAX_BYTES = 250_000


def _files(root: Path, folder: str, max_bytes: int | None) -> list[Path]:
    return [path for path in discover(root / folder) if max_bytes is None or path.stat().st_size <= max_bytes]


def _read(root: Path, path: Path, format_name: str) -> tuple[Counted, SessionFileReader, list[GraphNode]]:
    reader = SessionFileReader(path, relative_path=path.relative_to(root).as_posix(), format=format_name)
    counted, nodes = Counted(), []
    for record in reader:
        if isinstance(record, GraphNode):
            nodes.append(record)
        elif isinstance(record, Event) and record.kind == "tool_call":
            counted.calls.add(record.tool_use_id or "")
            if record.spawned_by_tool_use_id and record.agent_id and not record.agent_id.startswith("side-"):
                counted.nested_calls.add(record.tool_use_id or "")
        elif isinstance(record, Event) and record.kind == "tool_result":
            counted.results.add(record.tool_use_id or "")
        elif isinstance(record, Event) and record.kind == "prompt" and record.agent_id is None:
            counted.prompts.add(record.event_id)
    return counted, reader, nodes


def _queued(prompts: set[str]) -> set[str]:
    return {prompt for prompt in prompts if prompt.startswith("queued:")}


def _compare_claude(root: Path, paths: list[Path]) -> None:
    differences: list[str] = []
    totals: Counter[str] = Counter()
    ours_overall, theirs_overall = Counted(), Counted()
    for path in paths:
        if sniff_format(path) != "claude_code":
            continue
        ours, reader, _ = _read(root, path, "claude_code")
        theirs = count_claude(path)
        name = path.relative_to(root).as_posix()
        invented = {call for call in ours.calls if call not in theirs.calls and "." in call}  # calls without any id
        if ours.calls - invented != theirs.calls:
            differences.append(f"{name}: calls {len(ours.calls)} against {len(theirs.calls)}")
        if not theirs.nested_calls <= ours.calls:
            differences.append(f"{name}: nested calls are missing")
        if {result for result in ours.results if not result.endswith(".unknown")} != theirs.results:
            differences.append(f"{name}: results {len(ours.results)} against {len(theirs.results)}")
        typed = {prompt for prompt in ours.prompts - _queued(ours.prompts) if "@" not in prompt}
        attachments = typed - theirs.prompts
        if theirs.prompts - typed or any(attachments - _attachment_ids(path)):
            differences.append(f"{name}: prompts {len(typed)} against {len(theirs.prompts)}")
        if reader.account.lines != theirs.lines or reader.account.accounted_lines != theirs.lines:
            differences.append(f"{name}: lines {reader.account.lines} against {theirs.lines}")
        for counted, overall in ((ours, ours_overall), (theirs, theirs_overall)):
            overall.calls |= counted.calls
            overall.results |= counted.results
        totals["files"] += 1
    assert not differences, "\n".join(differences)
    assert totals["files"] > 0
    assert theirs_overall.calls <= ours_overall.calls
    assert theirs_overall.results <= ours_overall.results


def _attachment_ids(path: Path) -> set[str]:
    from toolcall_pipeline_tests.sessions.independent_count import objects_of

    return {
        item["uuid"]
        for item in objects_of(path)
        if item.get("type") == "attachment" and isinstance(item.get("uuid"), str)
    }


def _compare_codex(root: Path, paths: list[Path]) -> None:
    codex_files = [path for path in paths if sniff_format(path) == "codex"]
    assert codex_files, f"no Codex file below {root}: nothing would be compared"
    for path in codex_files:
        ours, reader, _ = _read(root, path, "codex")
        theirs = count_codex(path)
        name = path.relative_to(root).as_posix()
        assert {call for call in ours.calls if "@" not in call} == theirs.calls, name
        assert {result for result in ours.results if "@" not in result} == theirs.results, name
        assert len(ours.prompts) >= len(theirs.prompts), name
        assert reader.account.lines == reader.account.accounted_lines == theirs.lines, name


def test_small_claude_code_files_count_the_same_another_way(real_sessions_dir: Path) -> None:
    _compare_claude(real_sessions_dir, _files(real_sessions_dir, "claude", _DEFAULT_MAX_BYTES))


def test_small_codex_files_count_the_same_another_way(real_sessions_dir: Path) -> None:
    _compare_codex(real_sessions_dir, _files(real_sessions_dir, "codex", 1_500_000))


@pytest.mark.slow
def test_all_files_count_the_same_another_way(real_sessions_dir: Path) -> None:
    _compare_claude(real_sessions_dir, _files(real_sessions_dir, "claude", None))
    _compare_codex(real_sessions_dir, _files(real_sessions_dir, "codex", None))


def _active_by_walking_up(nodes: list[GraphNode]) -> set[str]:
    """What a walk up from each session's last line keeps, the plain way, with the calls and results of every message on it."""
    by_id: dict[str, GraphNode] = {}
    for node in nodes:
        by_id.setdefault(node.node_id, node)
    kept: set[str] = set()
    for session in {node.session_id for node in nodes}:
        lines = [node for node in nodes if node.session_id == session and node.agent_id is None]
        starts = [node for node in lines if node.role not in ("passive", "trigger")][-1:]
        for node in starts:
            above: GraphNode | None = node
            while above is not None and above.node_id not in kept:
                kept.add(above.node_id)
                above = by_id.get(above.parent_node_id or "")
    return kept


def test_what_leads_to_the_last_line_of_a_session_is_never_superseded(real_sessions_dir: Path) -> None:
    for path in _files(real_sessions_dir, "claude", _DEFAULT_MAX_BYTES):
        if sniff_format(path) == "claude_code":
            _, _, nodes = _read(real_sessions_dir, path, "claude_code")
            found = resolve(nodes)
            assert not _active_by_walking_up(nodes) & set(found.superseded), path

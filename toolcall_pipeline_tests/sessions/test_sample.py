"""The sample sessions: the same bytes for a seed, and everything in them that the chain needs."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from toolcall_pipeline.sessions.events import Event, GraphNode
from toolcall_pipeline.sessions.graph import Resolution, resolve
from toolcall_pipeline.sessions.reading import SessionFileReader
from toolcall_pipeline.sessions.sample import sample_files, write_sample_sessions


class Sample:
    def __init__(self, folder: Path) -> None:
        self.paths = write_sample_sessions(folder)
        self.nodes: list[GraphNode] = []
        self.events: dict[str, Event] = {}
        for path in self.paths:
            reader = SessionFileReader(path, relative_path=path.relative_to(folder).as_posix(), format="claude_code")
            for record in reader:
                if isinstance(record, GraphNode):
                    self.nodes.append(record)
                else:
                    assert isinstance(record, Event)
                    self.events.setdefault(record.event_id, record)
        self.graph: Resolution = resolve(self.nodes)

    def active(self, kind: str) -> list[Event]:
        return [event for event in self.events.values() if event.kind == kind and event.node_id in self.graph.active]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sample"))


def test_a_seed_always_gives_the_same_bytes_and_another_seed_others() -> None:
    assert sample_files(7) == sample_files(7)
    assert not set(sample_files(7)) & set(sample_files(8))


def test_writing_again_leaves_equal_files_alone(tmp_path: Path) -> None:
    before = [path.stat().st_mtime_ns for path in write_sample_sessions(tmp_path)]
    assert [path.stat().st_mtime_ns for path in write_sample_sessions(tmp_path)] == before


def test_there_is_enough_for_the_smoke_presets_gates(sample: Sample) -> None:
    calls = sample.active("tool_call")
    assert len(calls) >= 150
    assert len(set(sample.graph.families.values())) >= 40
    by_prompt = defaultdict(list)
    for event in sample.active("assistant_text"):
        by_prompt[sample.graph.prompt_above[event.node_id]].append(event)
    with_calls = {sample.graph.prompt_above[call.node_id] for call in calls}
    assert len(with_calls & set(by_prompt)) >= 80  # episodes that conclude after a result


def test_no_tool_or_command_is_more_than_a_fifth_of_all_turns(sample: Sample) -> None:
    names = Counter(
        event.tool_name if event.tool_name != "Bash" else f"Bash:{event.tool_input['command'].split()[0]}"
        for event in sample.active("tool_call")
    )
    turns = sum(names.values()) + len(sample.active("assistant_text"))
    assert len(names) >= 10
    assert names.most_common(1)[0][1] <= 0.2 * turns


def test_everything_that_breaks_naive_readers_is_in_them(sample: Sample) -> None:
    subkinds = Counter(event.subkind for event in sample.events.values())
    assert {"queued", "sub_agent_task", "slash_command", "interruption", "boundary", "compaction_summary"} <= set(
        subkinds
    )
    assert set(sample.graph.superseded.values()) == {"rewind"}
    assert len(sample.graph.spawned_by) == 10
    sessions = {node.session_id for node in sample.nodes}
    assert len(set(sample.graph.families.values())) == len(sessions) - 5  # five sessions were resumed
    assert any(event.is_rejected for event in sample.events.values())
    assert any(event.is_error and not event.is_rejected for event in sample.events.values())


def test_every_call_has_the_prompt_it_answers_and_a_result(sample: Sample) -> None:
    for call in sample.active("tool_call"):
        assert sample.graph.prompt_above[call.node_id] is not None
        assert f"{call.event_id}:result" in sample.events


def test_no_prompt_comes_twice_and_all_are_short(sample: Sample) -> None:
    prompts = [event for event in sample.active("prompt") if event.agent_id is None]
    repeated = Counter((event.cwd, event.text) for event in prompts)
    assert repeated.most_common(1)[0][1] == 1
    assert max(len(event.text or "") for event in prompts) < 300
    assert max(len(json.dumps(event.tool_input)) for event in sample.active("tool_call")) < 500

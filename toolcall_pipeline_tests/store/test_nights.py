"""What nights bring in, what a later night says about an earlier one, and what a rollback restores."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from toolcall_pipeline.errors import StoreError, UsageError
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.store import stage, stored_nodes
from toolcall_pipeline.store.family_worker import TAKEN_ID
from toolcall_pipeline.store.ledger import load_ledger
from toolcall_pipeline.store.reading import EpisodeCounts, iter_episodes
from toolcall_pipeline.store.rollback import rollback
from toolcall_pipeline.store.row_hash import hash_run_rows
from toolcall_pipeline_tests.store.transcripts import NIGHTS, Transcript, night, values

ONE, TWO, THREE, FOUR = NIGHTS[:4]
_TABLES = (
    "mem_sessions",
    "mem_user_prompts",
    "mem_tool_calls",
    "mem_assistant_texts",
    "mem_late_results",
    "mem_supersessions",
    "mem_graph_nodes",
    "mem_copied_nodes",
    "mem_parked_events",
    "mem_session_families",
    "mem_session_files",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def contents(engine: Engine) -> dict[str, list[str]]:
    """Return every row of every table without its number and time."""
    return {
        table: sorted(
            values(engine, f"SELECT (to_jsonb(t) - 'id' - 'created_at' - 'prev_user_prompt_id')::text FROM {table} t")
        )
        for table in _TABLES
    }


def prompts_of(engine: Engine, *runs: str) -> list[str]:
    return [episode.prompt_text for episode in iter_episodes(engine, run_ids=runs)]


def test_a_session_stored_rewound_and_grown_is_restored_by_rolling_the_second_night_back(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "-home-alice-garden" / "a.jsonl")
    session.turn("Read the plan", "/home/alice/garden/plan.md", "It is short.")
    before_rewind = session.last
    abandoned = session.turn("Add a shed", "/home/alice/garden/shed.md", "Added.")
    first = night(settings, engine, folder, ONE)
    stored, ledger, rows = contents(engine), load_ledger(engine), hash_run_rows(engine, ONE)
    assert prompts_of(engine, ONE) == ["Read the plan", "Add a shed"]

    session.last = before_rewind
    session.turn("Add a pond instead", "/home/alice/garden/pond.md", "Added a pond.")
    second = night(settings, engine, folder, TWO)

    assert second.manifest.metadata["prompts_count"] == 1
    assert second.manifest.metadata["superseded_count"] == 3  # the prompt, its call, its answer
    superseded = values(engine, "SELECT event_id FROM mem_supersessions WHERE backfill_run_id = :run", run=TWO)
    assert abandoned in superseded
    assert hash_run_rows(engine, ONE) == rows, "a later night never changes rows of an earlier one"
    assert prompts_of(engine, ONE, TWO) == ["Read the plan", "Add a pond instead"]
    assert prompts_of(engine, ONE) == ["Read the plan", "Add a shed"], "as of night one nothing was abandoned"

    rollback(engine, TWO)
    assert contents(engine) == stored
    assert load_ledger(engine) == ledger
    assert prompts_of(engine, ONE) == ["Read the plan", "Add a shed"]
    assert first.sha256 == night(settings, engine, folder, ONE).sha256


def test_a_rolled_back_night_can_be_linked_again_with_the_same_rows(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    Transcript(folder / "a.jsonl").turn("Read it", "/home/alice/garden/a.md", "Done.")
    first = night(settings, engine, folder, ONE)
    rollback(engine, ONE)
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [0]
    again = night(settings, engine, folder, ONE)
    assert again.sha256 == first.sha256
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [1]
    assert prompts_of(engine, ONE) == ["Read it"]


def test_the_same_night_again_and_a_night_without_news_insert_nothing(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    Transcript(folder / "a.jsonl").turn("Read it", "/home/alice/garden/a.md", "Done.")
    first = night(settings, engine, folder, ONE)
    stored = contents(engine)
    assert night(settings, engine, folder, ONE).sha256 == first.sha256
    quiet = night(settings, engine, folder, TWO)
    assert contents(engine) == stored
    assert quiet.manifest.metadata["tool_calls_count"] == 0
    assert quiet.manifest.metadata["read_bytes"] == 0


def test_a_grown_file_costs_its_new_bytes_and_continues_its_turn(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "a.jsonl")
    session.prompt("Read both")
    session.result(session.call("Read", {"file_path": "/x/one"}), "1")
    size = session.path.stat().st_size if session.path.exists() else 0
    night(settings, engine, folder, ONE)
    session.result(session.call("Read", {"file_path": "/x/two"}), "2")
    session.answer("Read both.")
    second = night(settings, engine, folder, TWO)
    assert second.manifest.metadata["read_bytes"] == session.path.stat().st_size - size
    calls = values(engine, "SELECT turn_index, turn_subindex FROM mem_tool_calls ORDER BY position")
    assert calls == [(0, 0), (0, 1)]
    (episode,) = iter_episodes(engine)
    assert [step.calls[0].response if step.calls else step.text for step in episode.steps] == ["1", "2", "Read both."]
    assert episode.backfill_run_ids == (ONE, TWO)


def test_families_whose_stored_nodes_are_asked_for_together_each_go_on_from_their_own(
    settings: Settings, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [Transcript(folder / f"{number}.jsonl") for number in range(5)]
    prompts = [session.turn(f"Read {number}", f"/x/{number}", "Done.") for number, session in enumerate(sessions)]
    night(settings, engine, folder, ONE)
    for number, session in enumerate(sessions):
        session.result(session.call("Read", {"file_path": f"/y/{number}"}), "more")
    monkeypatch.setattr(stage, "_FAMILIES_LOOKED_UP", 2)
    night(settings, engine, folder, TWO)
    linked = "SELECT prompt_event_id, turn_subindex FROM mem_tool_calls WHERE tool_input->>'file_path' LIKE '/y/%'"
    assert sorted(values(engine, linked)) == sorted((prompt, 1) for prompt in prompts)


def test_looking_a_familys_prompts_up_does_not_walk_all_prompts_ever_stored(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "a.jsonl")
    session.turn("Read it", "/x/a", "Done.")
    night(settings, engine, folder, ONE)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO mem_user_prompts OVERRIDING SYSTEM VALUE SELECT copy.* FROM mem_user_prompts p, "
                "generate_series(1000, 9000) AS n, jsonb_populate_record("
                "p, jsonb_build_object('id', n, 'event_id', format('e%s', n), 'node_id', format('n%s', n))) AS copy"
            )
        )
    statement = f"EXPLAIN {stored_nodes._STORED_NODES.text}"
    plan = "\n".join(values(engine, statement, sessions=[session.session_id], run=TWO))
    assert "mem_user_prompts_node_idx" in plan
    assert "mem_user_prompts_event_id_key" not in plan


def test_a_result_that_comes_a_night_late_is_a_row_of_that_night(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "a.jsonl")
    session.prompt("Run it")
    call = session.call("Bash", {"command": "make"})
    night(settings, engine, folder, ONE)
    session.result(call, "made", is_error=True)
    night(settings, engine, folder, TWO)
    assert values(engine, "SELECT response FROM mem_tool_calls") == [None]
    assert values(engine, "SELECT call_event_id, backfill_run_id FROM mem_late_results") == [(call, TWO)]
    (as_of_one,) = iter_episodes(engine, run_ids=[ONE])
    (as_of_two,) = iter_episodes(engine, run_ids=[ONE, TWO])
    assert as_of_one.steps[0].calls[0].response is None
    assert (as_of_two.steps[0].calls[0].response, as_of_two.steps[0].calls[0].is_error) == ("made", True)


def test_a_branch_the_user_returns_to_comes_back(settings: Settings, engine: Engine, folder: Path) -> None:
    session = Transcript(folder / "a.jsonl")
    session.turn("Start", "/x/start", "Started.")
    fork = session.last
    session.turn("Way one", "/x/one", "One done.")
    end_of_one = session.last
    night(settings, engine, folder, ONE)
    session.last = fork
    session.turn("Way two", "/x/two", "Two done.")
    night(settings, engine, folder, TWO)
    session.last = end_of_one
    session.turn("Way one, on", "/x/on", "On.")
    night(settings, engine, folder, THREE)
    assert prompts_of(engine, ONE) == ["Start", "Way one"]
    assert prompts_of(engine, ONE, TWO) == ["Start", "Way two"]
    assert prompts_of(engine, ONE, TWO, THREE) == ["Start", "Way one", "Way one, on"]
    rollback(engine, THREE)
    assert prompts_of(engine, ONE, TWO) == ["Start", "Way two"]


def test_what_was_abandoned_before_the_first_night_is_no_row_until_the_user_returns_to_it(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "a.jsonl")
    session.turn("Start", "/x/start", "Started.")
    fork = session.last
    session.turn("Way one", "/x/one", "One done.")
    end_of_one = session.last
    session.last = fork
    session.turn("Way two", "/x/two", "Two done.")
    night(settings, engine, folder, ONE)
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [2]
    assert values(engine, "SELECT count(*) FROM mem_parked_events") == [3]
    stored = contents(engine)
    session.last = end_of_one
    session.turn("Way one, on", "/x/on", "On.")
    night(settings, engine, folder, TWO)
    assert prompts_of(engine, ONE, TWO) == ["Start", "Way one", "Way one, on"]
    assert values(engine, "SELECT backfill_run_id FROM mem_tool_calls WHERE tool_input->>'file_path' = '/x/one'") == [
        TWO
    ]
    rollback(engine, TWO)
    assert contents(engine) == stored


def test_copied_history_is_stored_once_and_joins_the_families(settings: Settings, engine: Engine, folder: Path) -> None:
    original = Transcript(folder / "a.jsonl")
    original.turn("Start", "/x/start", "Started.")
    night(settings, engine, folder, ONE)
    resumed = Transcript(folder / "b.jsonl")
    resumed.copy_of(original)
    resumed.turn("Go on", "/x/on", "On.")
    second = night(settings, engine, folder, TWO)
    assert second.manifest.metadata["duplicates_skipped_count"] == 4
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [2]
    episodes = list(iter_episodes(engine))
    assert len({episode.family_id for episode in episodes}) == 1
    assert len(episodes) == 2


def test_history_a_session_copied_under_new_ids_is_stored_once_and_goes_on_from_its_first_prompts(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "a.jsonl")
    session.turn("Start", "/x/start", "Started.")
    second = session.prompt("And then?")
    session.result(session.call("Read", {"file_path": "/x/then"}), "then")
    session.answer("Then this.")
    session.copy_under_new_ids()
    session.result(session.call("Read", {"file_path": "/x/more"}), "more")
    session.answer("And more.")
    artifact = night(settings, engine, folder, ONE)
    assert prompts_of(engine, ONE) == ["Start", "And then?"]
    assert values(engine, "SELECT text FROM mem_assistant_texts ORDER BY position") == [
        "Started.",
        "Then this.",
        "And more.",
    ]
    assert values(
        engine, "SELECT tool_input->>'file_path', prompt_event_id, turn_index, turn_subindex FROM mem_tool_calls"
    )[1:] == [("/x/then", second, 1, 0), ("/x/more", second, 1, 1)]
    assert artifact.manifest.metadata["duplicates_skipped_count"] == 8
    assert values(engine, "SELECT count(*) FROM mem_supersessions") == [0]


def test_the_same_words_at_the_same_time_are_two_prompts_where_nothing_below_them_is_a_copy(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "a.jsonl")
    for _ in range(2):
        session.minute = 0
        session.turn("ok", "/x/start", "Done.")
    night(settings, engine, folder, ONE)
    assert prompts_of(engine, ONE) == ["ok", "ok"]
    assert values(engine, "SELECT count(*) FROM mem_assistant_texts") == [2]


@pytest.mark.parametrize("nights", [1, 2])
def test_a_second_call_under_the_id_of_another_is_in_quarantine_and_a_repeated_line_is_not(
    settings: Settings, engine: Engine, folder: Path, nights: int
) -> None:
    session = Transcript(folder / "-home-alice-garden" / "a.jsonl")
    session.prompt("Read both plans")
    session.result(session.call("Read", {"file_path": "one.md"}, tool_id="call_1"), "one")
    session.result(session.call("Read", {"file_path": "one.md"}, tool_id="call_1"), "one")
    if nights == 2:
        night(settings, engine, folder, ONE)
    session.result(session.call("Read", {"file_path": "two.md"}, tool_id="call_1"), "two")
    artifact = night(settings, engine, folder, NIGHTS[nights - 1])
    assert values(engine, "SELECT tool_input->>'file_path' FROM mem_tool_calls") == ["one.md"]
    assert values(engine, "SELECT source_line, reason FROM mem_quarantine") == [(6, TAKEN_ID)]
    assert artifact.manifest.metadata["quarantined_lines_count"] == 1


def test_two_calls_of_one_line_with_one_id_are_not_taken_for_one(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "-home-alice-garden" / "a.jsonl")
    session.prompt("Read both plans")
    calls = [{"type": "tool_use", "id": "call_1", "name": "Read", "input": {"file_path": name}} for name in "ab"]
    session._assistant(calls, None)
    night(settings, engine, folder, ONE)
    assert values(engine, "SELECT tool_input->>'file_path' FROM mem_tool_calls") == ["a"]
    assert values(engine, "SELECT source_line, reason FROM mem_quarantine") == [(2, TAKEN_ID)]


def test_an_episode_that_needs_a_row_of_a_held_run_is_left_out_and_counted(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "a.jsonl")
    session.prompt("Long work")
    session.result(session.call("Read", {"file_path": "/x/one"}), "1")
    other = Transcript(folder / "b.jsonl")
    other.turn("Other", "/x/other", "Other done.")
    night(settings, engine, folder, ONE)
    session.result(session.call("Read", {"file_path": "/x/two"}), "2")
    other.prompt("Second")
    night(settings, engine, folder, TWO)
    session.answer("Both read.")
    other.result(other.call("Read", {"file_path": "/x/three"}), "3")
    night(settings, engine, folder, THREE)
    counts = EpisodeCounts()
    episodes = list(iter_episodes(engine, run_ids=[ONE, THREE], counts=counts))
    assert [episode.prompt_text for episode in episodes] == ["Other"]
    assert counts.left_out_held_run == 2
    assert len(prompts_of(engine, ONE, TWO, THREE)) == 3
    assert sorted(prompts_of(engine, ONE)) == ["Long work", "Other"], "an earlier dataset stays what it was"


def test_only_the_newest_run_rolls_back_unless_later_ones_go_with_it(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    session = Transcript(folder / "a.jsonl")
    for run in (ONE, TWO):
        session.turn(f"In {run}", "/x/y", "Done.")
        night(settings, engine, folder, run)
    with pytest.raises(UsageError, match=f"{TWO} came after it"):
        rollback(engine, ONE)
    with pytest.raises(UsageError, match="no run"):
        rollback(engine, FOUR)
    report = rollback(engine, ONE, cascade=True)
    assert report.runs == (TWO, ONE)
    assert all(not rows for rows in contents(engine).values())
    with pytest.raises(UsageError, match="already"):
        rollback(engine, ONE)


def test_a_run_linked_after_a_later_one_loses_nothing_when_the_later_one_is_rolled_back(
    settings: Settings, engine: Engine, folder: Path
) -> None:
    from toolcall_pipeline_tests.store.transcripts import context_for, freeze

    session = Transcript(folder / "a.jsonl")
    session.turn("Start", "/x/start", "Started.")
    freeze(context_for(settings, engine, ONE), folder)
    night(settings, engine, folder, TWO)
    late = night(settings, engine, folder, ONE)
    assert late.manifest.metadata["tool_calls_count"] == 0
    rollback(engine, TWO)
    night(settings, engine, folder, THREE)
    assert values(engine, "SELECT count(*) FROM mem_tool_calls") == [1]


def test_rows_changed_behind_the_artifact_are_noticed(settings: Settings, engine: Engine, folder: Path) -> None:
    Transcript(folder / "a.jsonl").turn("Start", "/x/start", "Started.")
    night(settings, engine, folder, ONE)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM mem_tool_calls"))
    with pytest.raises(StoreError, match="no longer reproducible"):
        night(settings, engine, folder, ONE)

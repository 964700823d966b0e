"""The gates on linked_tool_calls: right links pass, each planted fault fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.errors import ArtifactError
from toolcall_pipeline.gates.linked_tool_calls import GATES
from toolcall_pipeline.gates.profiles import rule_for
from toolcall_pipeline.gates.verdict import GateContext, GateResult, Verdict
from toolcall_pipeline.presets import PRESETS
from toolcall_pipeline.settings import Settings
from toolcall_pipeline_tests.store.transcripts import NIGHTS, Transcript, night

RUN = NIGHTS[0]


@pytest.fixture
def linked(settings: Settings, engine: Engine, tmp_path: Path) -> Artifact:
    for name in ("a", "b"):
        session = Transcript(tmp_path / "sessions" / f"{name}.jsonl", session_id=name)
        session.turn("ok", f"/x/{name}/1", "First.")
        session.turn("ok", f"/x/{name}/2", "Second.")
    return night(settings, engine, tmp_path / "sessions", RUN)


def judge(name: str, artifact: Artifact, settings: Settings, engine: Engine) -> GateResult:
    (gate,) = (gate for gate in GATES if gate.name == name)
    configuration = PRESETS["nightly"]
    return gate.judge(
        GateContext(
            artifact=artifact,
            partition=RUN,
            store=ArtifactStore(settings.artifacts_dir),
            engine=engine,
            configuration=configuration,
            rule=rule_for(configuration, "linked_tool_calls", name),
        )
    )


def test_the_asset_has_its_three_gates() -> None:
    assert [gate.name for gate in GATES] == ["linkage", "identity_unique", "no_secrets"]


@pytest.mark.parametrize("name", ["linkage", "identity_unique"])
def test_rows_that_are_right_pass(name: str, linked: Artifact, settings: Settings, engine: Engine) -> None:
    result = judge(name, linked, settings, engine)
    assert (result.verdict, result.measured) == (Verdict.PASS, 0.0)
    assert result.n > 0


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        # The source's fault: equal texts, so every call went to the last "ok" of the session.
        (
            "UPDATE mem_tool_calls c SET prev_user_prompt_id = (SELECT id FROM mem_user_prompts p "
            "WHERE p.session_id = c.session_id ORDER BY position DESC LIMIT 1)",
            "linked to another prompt",
        ),
        ("UPDATE mem_tool_calls SET prev_user_prompt_id = NULL", "not linked although a prompt is above it"),
        ("UPDATE mem_tool_calls SET prompt_event_id = 'other'", "key and event id name different prompts"),
        (
            "UPDATE mem_graph_nodes SET parent_node_id = NULL WHERE role = 'assistant'",
            "linked although no prompt is above it",
        ),
    ],
)
def test_a_wrong_link_holds(statement: str, fault: str, linked: Artifact, settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    result = judge("linkage", linked, settings, engine)
    assert result.verdict is Verdict.FAIL
    assert fault in result.details["kinds"]


@pytest.mark.parametrize("lost", ["TRUE", "event_id = (SELECT min(event_id) FROM mem_tool_calls)"])
def test_a_call_of_the_files_that_is_nowhere_holds(
    lost: str, linked: Artifact, settings: Settings, engine: Engine
) -> None:
    with engine.begin() as connection:
        calls = set(connection.exec_driver_sql(f"DELETE FROM mem_tool_calls WHERE {lost} RETURNING event_id").scalars())
    result = judge("linkage", linked, settings, engine)
    assert (result.verdict, result.measured) == (Verdict.FAIL, len(calls))
    assert {lost["call"] for lost in result.details["lost"]} == calls
    assert result.n == 4


def test_a_unique_constraint_that_is_gone_holds(linked: Artifact, settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX mem_tool_calls_event_id_key")
    result = judge("identity_unique", linked, settings, engine)
    assert result.verdict is Verdict.FAIL
    assert result.details["missing_constraints"] == ["mem_tool_calls_event_id_key"]


def test_rows_changed_since_are_not_judged(linked: Artifact, settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE mem_tool_calls SET response = 'other'")
    with pytest.raises(ArtifactError, match="not those that linked_tool_calls was made"):
        judge("identity_unique", linked, settings, engine)

"""BFCL from its public files, and the recall facts of the user's projects."""

from collections import Counter

import pytest

from toolcall_pipeline.errors import MissingInputError
from toolcall_pipeline.evaluation.backends import Generation
from toolcall_pipeline.evaluation.commands import describe_case
from toolcall_pipeline.evaluation.outcomes import score
from toolcall_pipeline.evaluation.play import read_turn
from toolcall_pipeline.evaluation.suites.bfcl import bfcl_cases
from toolcall_pipeline.evaluation.suites.recall import recall_cases
from toolcall_pipeline.evaluation.suites.recall_facts import facts_of_episodes
from toolcall_pipeline.store.episodes import AssistantStep, Episode, StoredCall
from toolcall_pipeline_tests.evaluation.scripted_models import perfect_turns


def test_bfcl_answers_pass_on_their_own_schemas(shared_dir):
    cases = bfcl_cases(shared_dir / "testassets/bfcl")
    assert set(Counter(case.stratum for case in cases)) == {
        "simple_python", "multiple", "parallel", "parallel_multiple", "irrelevance",
    }  # fmt: skip
    outcomes = Counter(
        score(case, [read_turn(Generation(perfect_turns(describe_case(case))[0]), case)]).outcome for case in cases[::7]
    )
    assert outcomes["pass"] / outcomes.total() >= 0.95  # some public answers do not fit their own schema


def test_a_folder_without_bfcl_is_named(tmp_path):
    with pytest.raises(MissingInputError, match="BFCL_v4"):
        bfcl_cases(tmp_path)


def make_episode(number: int, root: str, calls: list[tuple[str, dict]], remote: str | None = None) -> Episode:
    stored = tuple(
        StoredCall(f"c{number}-{index}", name, value, "ok", False, False, False, None, "f", 1)
        for index, (name, value) in enumerate(calls)
    )
    return Episode(
        prompt_event_id=f"p{number}", prompt_text="x", steps=(AssistantStep("", stored, (), "f", 1, 0),), session_id="s",
        family_id="s", turn_index=0, project_root=root, git_remote=remote, project_kind="git", agent="claude_code",
        agent_version=None, backfill_run_ids=("r",), freeze_number=1, is_synthetic=False, is_sub_agent=False,
        is_interrupted=False, source_file="f", source_line=1,
    )  # fmt: skip


def test_facts_are_habits_of_a_project_and_never_stand_in_their_question():
    reads = [("Read", {"file_path": "/home/user/shop/server/core/routes.py"})] * 4
    tests = [("Bash", {"command": "cd x && pytest -q"})] * 4
    other = [("Bash", {"command": "cargo test"})] * 4
    facts = facts_of_episodes(
        [
            make_episode(1, "/home/user/shop", reads + tests, "git@github.com:acme/shop.git"),
            make_episode(2, "/home/user/engine", other),
            make_episode(3, "/home/user/once", [("Bash", {"command": "make"})]),
        ]
    )
    by_kind = {(fact.project, fact.kind): fact for fact in facts}
    assert by_kind["shop", "command"].answers == ("pytest",)
    assert by_kind["shop", "command"].distractors == ("cargo",)
    assert by_kind["shop", "folder"].answers == ("server/core",)
    assert by_kind["shop", "language"].answers == ("Python",)
    assert by_kind["shop", "owner"].answers == ("acme",)
    assert ("once", "command") not in by_kind
    cases = recall_cases(facts, 200)
    assert all(not case.tools for case in cases)
    for case in cases:
        echo = read_turn(Generation(case.messages[-1]["content"]), case)
        assert score(case, [echo]).outcome == "fail"
        right = read_turn(Generation(perfect_turns(describe_case(case))[0]), case)
        assert score(case, [right]).outcome == "pass"


def test_naming_every_folder_or_a_longer_path_answers_nothing():
    paths = ["src/app/main.py", "src/view.py", "docs/guide.md", "tests/unit/test_main.py"]
    calls = [("Read", {"file_path": f"/home/user/shop/{path}"}) for path in paths for _ in range(4)]
    facts = [fact for fact in facts_of_episodes([make_episode(1, "/home/user/shop", calls)]) if fact.kind == "folder"]
    assert {fact.answers[0]: fact.distractors for fact in facts} == {
        "src/app": ("docs", "tests/unit"),  # who says src/app says src with it
        "src": ("docs", "src/app", "tests/unit"),
        "docs": ("src", "src/app", "tests/unit"),
        "tests/unit": ("docs", "src", "src/app"),
    }
    for case in recall_cases(facts, 200):
        (answer,) = case.expected["answers"]

        def outcome(text, case=case):
            return score(case, [read_turn(Generation(text), case)]).outcome

        assert outcome(f"It is in `/home/user/shop/{answer}/`.") == "pass"
        assert outcome("One of src, src/app, docs and tests/unit.") == "partial"
        assert outcome(f"It is in {answer}/other.") == "fail"


def test_a_question_is_asked_once_and_never_where_two_projects_of_one_name_differ():
    def reads(root, folder, name):
        return make_episode(1, root, [("Read", {"file_path": f"{root}/{folder}/{name}"})] * 4)

    facts = facts_of_episodes(
        [
            reads("/a/cli", "src/core", "main.py"),
            reads("/b/cli", "src/core", "main.py"),
            reads("/a/web", "src/one", "view.py"),
            reads("/b/web", "src/two", "view.py"),
            reads("/a/3", "src/three", "odd.py"),  # a worktree's number is no name
        ]
    )
    folders = [(fact.project, fact.answers) for fact in facts if fact.kind == "folder"]
    assert folders == [("cli", ("src/core",))]

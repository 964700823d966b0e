"""Each fault that sank v2 to v5, planted into a good dataset, is blocked by the gate named for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_fakes import PARTITION

from toolcall_pipeline.artifacts import Artifact, ArtifactStore, load_artifact
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.writing import encoded_schema
from toolcall_pipeline.gates.profiles import rule_for
from toolcall_pipeline.gates.v2_chat_dataset import GATES
from toolcall_pipeline.gates.verdict import GateContext, GateResult, Verdict
from toolcall_pipeline.presets import resolve_configuration

_GATES = {gate.name: gate for gate in GATES}


def judge(artifact: Artifact, name: str, *, preset: str = "nightly", recipe: str = "v3") -> GateResult:
    configuration = resolve_configuration(preset, {"dataset": {"recipe": recipe}})
    gate = _GATES[name]
    return gate.judge(
        GateContext(
            artifact=artifact,
            partition=PARTITION,
            store=ArtifactStore(artifact.directory.parent),
            engine=None,  # type: ignore[arg-type]
            configuration=configuration,
            rule=rule_for(configuration, gate.asset, name),
        )
    )


@pytest.fixture
def copy(standard: Artifact, tmp_path: Path) -> Artifact:
    shutil.copytree(standard.directory, tmp_path / "copy")
    return load_artifact(tmp_path / "copy")


def edit_rows(artifact: Artifact, change: Callable[[list[dict[str, Any]]], None], name: str = files.TRAIN_CHAT) -> None:
    path = artifact.directory / name
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def edit_tokens(artifact: Artifact, change: Callable[[dict[str, Any]], None]) -> None:
    path = artifact.directory / files.ENCODED_TRAIN
    rows = pq.read_table(path).to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, schema=encoded_schema()), path)


@pytest.mark.parametrize("name", sorted(set(_GATES) - {"min_examples", "no_secrets"}))
def test_a_good_dataset_passes_under_ship(name: str, standard: Artifact) -> None:
    result = judge(standard, name)
    assert result.verdict is Verdict.PASS, result.explanation


def test_every_gate_of_the_profile_is_here() -> None:
    assert set(_GATES) == {
        "min_examples", "synthetic_share", "no_empty_arguments", "renders", "mask_proof", "template_parity_training",
        "category_cap", "text_after_tool_share", "split_disjoint", "decontaminated", "no_secrets",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "verdict"), [("smoke", Verdict.PASS), ("nightly", Verdict.FAIL), ("full", Verdict.FAIL)]
)
def test_too_few_examples_are_refused_by_preset(preset: str, verdict: Verdict, standard: Artifact) -> None:
    assert judge(standard, "min_examples", preset=preset).verdict is verdict


def cut_answer(tokens: dict[str, Any]) -> None:
    last = max(index for index, label in enumerate(tokens["labels"]) if label != -100)
    tokens["input_ids"], tokens["labels"] = tokens["input_ids"][: last - 2], tokens["labels"][: last - 2]


def end_unsupervised(tokens: dict[str, Any]) -> None:
    last = max(index for index, label in enumerate(tokens["labels"]) if label != -100)
    tokens["labels"][last] = -100


def tool_output_supervised(tokens: dict[str, Any]) -> None:
    tokens["labels"] = list(tokens["input_ids"])


@pytest.mark.parametrize("fault", [cut_answer, end_unsupervised, tool_output_supervised])
def test_the_mask_proof_blocks(fault: Callable[[dict[str, Any]], None], copy: Artifact) -> None:
    edit_tokens(copy, fault)
    result = judge(copy, "mask_proof")
    assert (result.verdict, result.measured) == (Verdict.FAIL, 1)


def test_a_row_without_a_supervised_token_is_blocked(copy: Artifact) -> None:
    edit_tokens(copy, lambda tokens: tokens.update(labels=[-100] * len(tokens["labels"])))
    assert judge(copy, "renders").verdict is Verdict.FAIL
    assert judge(copy, "mask_proof").verdict is Verdict.FAIL


def test_a_row_over_the_length_is_blocked(copy: Artifact) -> None:
    edit_tokens(copy, lambda tokens: tokens.update({name: tokens[name] * 40 for name in ("input_ids", "labels")}))
    assert judge(copy, "renders").verdict is Verdict.FAIL


def test_a_leaked_session_is_blocked(copy: Artifact) -> None:
    leaked = (copy.directory / files.VALID_CHAT).read_text("utf-8").splitlines()[0]
    edit_rows(copy, lambda rows: rows.append(json.loads(leaked)))
    result = judge(copy, "split_disjoint")
    assert result.verdict is Verdict.FAIL
    assert "families" in result.details


@pytest.mark.parametrize(
    "prompt", ["What is the capital of the moon colony today?", "what is THE capital of the moon colony today"]
)
def test_a_suite_prompt_in_training_is_blocked(prompt: str, copy: Artifact) -> None:
    edit_rows(copy, lambda rows: rows[0]["messages"][1].update(content=prompt))
    assert judge(copy, "decontaminated").verdict is Verdict.FAIL


def test_a_dataset_without_a_suite_is_never_clean(copy: Artifact) -> None:
    (copy.directory / files.SUITE_PROMPTS).write_text('{"prompts": {}, "boilerplate_grams": [], "version": null}')
    assert judge(copy, "decontaminated").verdict is Verdict.FAIL


@pytest.mark.parametrize("arguments", ["{}", '{"file_pa', '{"file_path": 3}'])
def test_a_cut_or_empty_argument_is_blocked(arguments: str, copy: Artifact) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for message in row["messages"]:
                for call in message["tool_calls"]:
                    if call["name"] == "Read":
                        call["arguments"] = arguments
                        return

    edit_rows(copy, change)
    if arguments.endswith("pa"):
        with pytest.raises(ValueError, match="Unterminated string"):  # a gate that raises holds
            judge(copy, "no_empty_arguments")
    else:
        assert judge(copy, "no_empty_arguments").verdict is Verdict.FAIL


def test_a_schema_that_is_none_is_blocked(copy: Artifact) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        tools = json.loads(rows[0]["tools"])
        tools[0]["function"]["parameters"]["type"] = "thing"
        rows[0]["tools"] = json.dumps(tools)

    edit_rows(copy, change)
    assert judge(copy, "no_empty_arguments").verdict is Verdict.FAIL


@pytest.mark.parametrize("name", [files.TRAINING_TEMPLATE, files.CHAT_TEMPLATE])
def test_one_changed_byte_of_a_template_is_blocked(name: str, copy: Artifact) -> None:
    path = copy.directory / name
    path.write_text(path.read_text("utf-8").replace("# Tools", "# tools", 1), "utf-8")
    assert judge(copy, "template_parity_training").verdict is Verdict.FAIL


def test_a_training_template_that_marks_the_header_is_blocked(copy: Artifact) -> None:
    path = copy.directory / files.TRAINING_TEMPLATE
    text = path.read_text("utf-8")
    header = "{{- '<|im_start|>' + message.role + '\\n' }}\n        {%- generation %}"
    moved = "{%- generation %}{{- '<|im_start|>' + message.role + '\\n' }}"
    assert header in text
    path.write_text(text.replace(header, moved), "utf-8")
    assert judge(copy, "template_parity_training").verdict is Verdict.FAIL


def test_a_dominating_category_is_blocked(copy: Artifact) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for message in row["messages"]:
                for call in message["tool_calls"]:
                    call["name"] = "Grep"

    edit_rows(copy, change)
    assert judge(copy, "category_cap").verdict is Verdict.FAIL


@pytest.mark.parametrize("keep_text", [True, False])
def test_too_many_and_too_few_conclusions_are_blocked(keep_text: bool, copy: Artifact) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for message in row["messages"]:
                message["supervised"] = message["supervised"] and bool(message["tool_calls"]) != keep_text

    edit_rows(copy, change)
    assert judge(copy, "text_after_tool_share").verdict is Verdict.FAIL


def test_synthetic_rows_are_blocked(copy: Artifact) -> None:
    edit_rows(copy, lambda rows: [row["meta"].update(synthetic=True) for row in rows[::5]] and None)
    assert judge(copy, "synthetic_share").verdict is Verdict.FAIL


def test_recipe_v2_is_refused_by_the_gates_that_its_faults_deserve(standard_v2: Artifact) -> None:
    verdicts = {name: judge(standard_v2, name, recipe="v2").verdict for name in ("mask_proof", "text_after_tool_share")}
    assert set(verdicts.values()) == {Verdict.FAIL}
    assert judge(standard_v2, "mask_proof").details["kinds"] == {
        "the end of turn is not supervised": judge(standard_v2, "mask_proof").n
    }

"""Each fault that sank v2 to v5, planted into a good dataset on disk, is blocked by its gate, and by no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_fakes import encode_row, judge
from tokenizers import Tokenizer

from toolcall_pipeline.artifacts import Artifact, load_artifact
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.masks import IGNORED
from toolcall_pipeline.dataset.rows import row_from_disk
from toolcall_pipeline.dataset.templates import ChatTemplate
from toolcall_pipeline.dataset.writing import encoded_schema
from toolcall_pipeline.errors import DatasetError
from toolcall_pipeline.gates.v2_chat_dataset import GATES
from toolcall_pipeline.gates.verdict import Verdict

_JUDGED = sorted({gate.name for gate in GATES} - {"min_examples"})
"""A dataset of a test is too small for `ship`, planted or not."""


@dataclass
class Copy:
    """A dataset on disk that is changed and written back: rows as on disk, and their tokens, in step."""

    artifact: Artifact
    rows: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [json.loads(line) for line in self.text(files.TRAIN_CHAT).splitlines()]
        self.tokens = pq.read_table(self.artifact.directory / files.ENCODED_TRAIN).to_pylist()

    def text(self, name: str) -> str:
        return (self.artifact.directory / name).read_text("utf-8")

    def replace(self, name: str, old: str, new: str) -> None:
        text = self.text(name)
        assert old in text
        (self.artifact.directory / name).write_text(text.replace(old, new, 1), "utf-8")

    def encode(self, index: int) -> None:
        """Tokenize a changed row again, as a build that had the fault itself would have."""
        tokenizer = Tokenizer.from_file(str(self.artifact.directory / files.TOKENIZER))
        encoded = encode_row(row_from_disk(self.rows[index]), ChatTemplate(self.text(files.CHAT_TEMPLATE)), tokenizer)
        self.tokens[index] |= {"input_ids": encoded.input_ids, "labels": encoded.labels}

    def encode_all(self) -> None:
        """Tokenize all rows again and leave out those in which nothing is supervised."""
        kept = [any(message["supervised"] for message in row["messages"]) for row in self.rows]
        self.rows = [row for row, keep in zip(self.rows, kept, strict=True) if keep]
        self.tokens = [tokens for tokens, keep in zip(self.tokens, kept, strict=True) if keep]
        for index in range(len(self.rows)):
            self.encode(index)

    def first_call(self, name: str) -> tuple[int, dict[str, Any]]:
        """Return the first supervised call of a tool and the number of its row."""
        for index, row in enumerate(self.rows):
            for message in row["messages"]:
                for call in message["tool_calls"]:
                    if call["name"] == name and message["supervised"]:
                        return index, call
        raise AssertionError(name)

    def write(self) -> None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        (self.artifact.directory / files.TRAIN_CHAT).write_text(lines, "utf-8")
        table = pa.Table.from_pylist(self.tokens, schema=encoded_schema())
        pq.write_table(table, self.artifact.directory / files.ENCODED_TRAIN)


@pytest.fixture
def copy(standard: Artifact, tmp_path: Path) -> Copy:
    shutil.copytree(standard.directory, tmp_path / "copy")
    return Copy(load_artifact(tmp_path / "copy"))


def answer_cut(copy: Copy) -> None:
    last = _last_supervised(copy)
    copy.tokens[0] |= {name: copy.tokens[0][name][: last - 2] for name in ("input_ids", "labels")}


def end_of_turn_unsupervised(copy: Copy) -> None:
    copy.tokens[0]["labels"][_last_supervised(copy)] = IGNORED


def tool_output_supervised(copy: Copy) -> None:
    copy.tokens[0]["labels"] = list(copy.tokens[0]["input_ids"])


def nothing_supervised(copy: Copy) -> None:
    copy.tokens[0]["labels"] = [IGNORED] * len(copy.tokens[0]["labels"])


def row_too_long(copy: Copy) -> None:
    copy.tokens[0] |= {name: copy.tokens[0][name] * 40 for name in ("input_ids", "labels")}


def row_without_tokens(copy: Copy) -> None:
    del copy.tokens[-1]


def tokens_of_another_row(copy: Copy) -> None:
    copy.tokens[0], copy.tokens[1] = copy.tokens[1], copy.tokens[0]


def session_leaked(copy: Copy) -> None:
    valid = json.loads(copy.text(files.VALID_CHAT).splitlines()[0])
    copy.rows[0]["meta"] |= {name: valid["meta"][name] for name in ("family_id", "session_id")}


def resumed_session_leaked(copy: Copy) -> None:
    valid = json.loads(copy.text(files.VALID_CHAT).splitlines()[0])
    copy.rows[0]["meta"]["family_id"] = valid["meta"]["family_id"]


def evaluation_prompt(copy: Copy) -> None:
    copy.rows[0]["messages"][1]["content"] = "what is THE capital of the moon colony today"
    copy.encode(0)


def evaluation_prompt_in_a_longer_one(copy: Copy) -> None:
    asked = json.loads(copy.text(files.SUITE_PROMPTS))["prompts"]["A"][0]
    copy.rows[0]["messages"][1]["content"] = f"Hello there. {asked.upper()} Thank you very much!"
    copy.encode(0)


def evaluation_prompt_in_the_tokens_alone(copy: Copy) -> None:
    honest = copy.rows[0]["messages"][1]["content"]
    evaluation_prompt(copy)
    copy.rows[0]["messages"][1]["content"] = honest


def tool_taken_from_the_tokens(copy: Copy) -> None:
    honest = copy.rows[0]["tools"]
    copy.rows[0]["tools"] = json.dumps(json.loads(honest)[1:])
    copy.encode(0)
    copy.rows[0]["tools"] = honest


def session_leaked_under_other_names(copy: Copy) -> None:
    valid = json.loads(copy.text(files.VALID_CHAT).splitlines()[0])
    names = ("family_id", "session_id", "prompt_event_id", "row_id", "call_event_ids")
    valid["meta"] |= {name: copy.rows[0]["meta"][name] for name in names}
    copy.rows[0] = valid
    copy.encode(0)


def suite_missing(copy: Copy) -> None:
    path = copy.artifact.directory / files.SUITE_PROMPTS
    path.write_text('{"prompts": {}, "boilerplate_grams": [], "version": null}')


def suite_prompts_missing(copy: Copy) -> None:
    (copy.artifact.directory / files.PARITY_CASES).write_text("")


def validation_missing(copy: Copy) -> None:
    (copy.artifact.directory / files.VALID_CHAT).write_text("")
    pq.write_table(pa.Table.from_pylist([], schema=encoded_schema()), copy.artifact.directory / files.ENCODED_VALID)


def _argument(arguments: str, name: str = "Read") -> Callable[[Copy], None]:
    def plant(copy: Copy) -> None:
        index, call = copy.first_call(name)
        call["arguments"] = arguments
        copy.encode(index)

    return plant


def schema_is_none(copy: Copy) -> None:
    tools = json.loads(copy.rows[0]["tools"])
    tools[0]["function"]["parameters"]["type"] = "thing"
    copy.rows[0]["tools"] = json.dumps(tools)
    copy.encode(0)


def tool_not_offered(copy: Copy) -> None:
    index, _ = copy.first_call("Read")
    tools = [tool for tool in json.loads(copy.rows[index]["tools"]) if tool["function"]["name"] != "Read"]
    copy.rows[index]["tools"] = json.dumps(tools)
    copy.encode(index)


def placeholder_supervised(copy: Copy) -> None:
    index, call = copy.first_call("Grep")
    call["arguments"] = json.dumps({"pattern": "[REDACTED:api_key:0a1b]", "output_mode": "content"})
    copy.encode(index)


def secret_in_a_result(copy: Copy) -> None:
    message = next(message for message in copy.rows[0]["messages"] if message["role"] == "tool")
    message["content"] = "token = ghp_" + "x7Kq9LmZ2vRb4TnW8sYd" + "1cFg5HjP3aEuQw2Z"
    copy.encode(0)


def _template(name: str, old: str, new: str) -> Callable[[Copy], None]:
    return lambda copy: copy.replace(name, old, new)


def header_marked(copy: Copy) -> None:
    header = "{{- '<|im_start|>' + message.role + '\\n' }}\n        {%- generation %}"
    copy.replace(files.TRAINING_TEMPLATE, header, "{%- generation %}{{- '<|im_start|>' + message.role + '\\n' }}")


def category_over_full(copy: Copy) -> None:
    texts, reads = 0, 0
    for message in _assistant(copy):
        is_read = bool(message["tool_calls"]) and message["tool_calls"][0]["name"] == "Read"
        reads += is_read and message["supervised"]
        texts += not message["tool_calls"] and message["supervised"]
        # One conclusion for four calls: the share of conclusions stays what it should be.
        keep = is_read or (not message["tool_calls"] and 4 * texts <= reads)
        texts -= not message["tool_calls"] and message["supervised"] and not keep
        message["supervised"] = message["supervised"] and keep
    copy.encode_all()


def conclusions_too_few(copy: Copy) -> None:
    for number, message in enumerate(_assistant(copy)):
        message["supervised"] = message["supervised"] and (bool(message["tool_calls"]) or number % 8 == 0)
    copy.encode_all()


def conclusions_too_many(copy: Copy) -> None:
    for number, message in enumerate(_assistant(copy)):
        message["supervised"] = message["supervised"] and (not message["tool_calls"] or number % 2 == 0)
    copy.encode_all()


def rows_synthetic(copy: Copy) -> None:
    for row in copy.rows[::5]:
        row["meta"]["synthetic"] = True


def _last_supervised(copy: Copy) -> int:
    return max(index for index, label in enumerate(copy.tokens[0]["labels"]) if label != IGNORED)


def _assistant(copy: Copy) -> list[dict[str, Any]]:
    return [message for row in copy.rows for message in row["messages"] if message["role"] == "assistant"]


@pytest.mark.parametrize(
    ("plant", "gates"),
    [
        (lambda copy: None, set()),
        (answer_cut, {"mask_proof", "renders"}),  # v3
        (end_of_turn_unsupervised, {"mask_proof"}),  # v2, v5
        (tool_output_supervised, {"mask_proof"}),
        (nothing_supervised, {"renders", "mask_proof"}),  # v3
        (row_too_long, {"renders", "mask_proof"}),
        (row_without_tokens, {"renders", "mask_proof"}),
        (tokens_of_another_row, {"renders", "mask_proof"}),
        (session_leaked, {"split_disjoint"}),
        (resumed_session_leaked, {"split_disjoint"}),
        (evaluation_prompt, {"decontaminated"}),
        (evaluation_prompt_in_a_longer_one, {"decontaminated"}),
        (session_leaked_under_other_names, {"split_disjoint", "decontaminated"}),
        (evaluation_prompt_in_the_tokens_alone, {"renders"}),
        (tool_taken_from_the_tokens, {"renders"}),
        (suite_missing, {"decontaminated"}),
        (suite_prompts_missing, {"template_parity_training"}),
        (validation_missing, {"split_disjoint"}),
        (_argument("{}"), {"no_empty_arguments"}),
        (_argument('{"file_path": 3}'), {"no_empty_arguments"}),
        (_argument('{"limit": 3}'), {"no_empty_arguments"}),  # cut before what is required
        (schema_is_none, {"no_empty_arguments"}),
        (tool_not_offered, {"no_empty_arguments"}),
        (placeholder_supervised, {"no_secrets"}),
        (secret_in_a_result, {"no_secrets"}),
        (_template(files.TRAINING_TEMPLATE, "# Tools", "# tools"), {"template_parity_training"}),
        (_template(files.CHAT_TEMPLATE, "# Tools", "# tools"), {"template_parity_training", "renders"}),
        # In a branch that no prompt of ours reaches.
        (_template(files.CHAT_TEMPLATE, "You are a helpful", "You are a Helpful"), {"template_parity_training"}),
        (_template(files.TRAINING_TEMPLATE, "You are a helpful", "You are no helpful"), {"template_parity_training"}),
        (header_marked, {"template_parity_training"}),
        (category_over_full, {"category_cap"}),
        (conclusions_too_few, {"text_after_tool_share"}),  # v2
        (conclusions_too_many, {"text_after_tool_share"}),  # v4
        (rows_synthetic, {"synthetic_share"}),  # v1
    ],
)
def test_a_planted_fault_is_blocked_by_its_gates_and_no_other(
    plant: Callable[[Copy], None], gates: set[str], copy: Copy
) -> None:
    plant(copy)
    copy.write()
    results = {name: judge(copy.artifact, name) for name in _JUDGED}
    assert {name for name, result in results.items() if result.verdict is not Verdict.PASS} == gates
    assert all(result.how_to_fix and result.explanation for result in results.values())


def test_an_argument_cut_in_the_middle_is_found_and_no_gate_reads_past_it(copy: Copy) -> None:
    _, call = copy.first_call("Read")
    call["arguments"] = '{"file_pa'
    copy.write()
    result = judge(copy.artifact, "no_empty_arguments")
    assert (result.verdict, result.details["problems"]) == (Verdict.FAIL, {"cut_or_unreadable": 1})
    for name in ("renders", "mask_proof"):
        assert judge(copy.artifact, name).verdict is Verdict.FAIL
    for name in ("min_examples", "category_cap", "split_disjoint", "decontaminated"):  # a gate that raises holds
        with pytest.raises(DatasetError, match=r"train\.chat\.jsonl line \d+ is no row") as raised:
            judge(copy.artifact, name)
        assert "file_pa" not in str(raised.value)


def test_every_gate_of_the_profile_is_here() -> None:
    assert {gate.name for gate in GATES} == {
        "min_examples", "synthetic_share", "no_empty_arguments", "renders", "mask_proof", "template_parity_training",
        "category_cap", "text_after_tool_share", "split_disjoint", "decontaminated", "no_secrets",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "verdict"), [("smoke", Verdict.PASS), ("nightly", Verdict.FAIL), ("full", Verdict.FAIL)]
)
def test_too_few_examples_are_refused_by_preset(preset: str, verdict: Verdict, standard: Artifact) -> None:
    assert judge(standard, "min_examples", preset=preset).verdict is verdict


def test_recipe_v2_is_refused_by_the_gates_that_its_faults_deserve(standard_v2: Artifact) -> None:
    results = {name: judge(standard_v2, name, recipe="v2") for name in _JUDGED}
    held = {name for name, result in results.items() if result.verdict is not Verdict.PASS}
    assert {"mask_proof", "text_after_tool_share"} <= held <= {"mask_proof", "text_after_tool_share", "category_cap"}
    assert results["mask_proof"].details["kinds"] == {"the end of turn is not supervised": results["mask_proof"].n}
    assert results["text_after_tool_share"].measured == 0
    assert "recipe v3" in results["text_after_tool_share"].how_to_fix

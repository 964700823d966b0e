"""Episodes of our own and a small ChatML tokenizer: the dataset's tests need neither a store nor a model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from toolcall_pipeline.artifacts import Artifact, ArtifactStore
from toolcall_pipeline.dataset.masks import IGNORED, EncodedRow, backend_of, supervised_spans
from toolcall_pipeline.dataset.rows import Row, template_messages
from toolcall_pipeline.dataset.suite_protocol import ChatCase, SuiteForDataset
from toolcall_pipeline.dataset.templates import ChatTemplate, hermes_template, system_prompt, training_template
from toolcall_pipeline.dataset.turn_tokens import encode_texts
from toolcall_pipeline.gates.profiles import rule_for
from toolcall_pipeline.gates.v2_chat_dataset import GATES
from toolcall_pipeline.gates.verdict import GateContext, GateResult
from toolcall_pipeline.presets import resolve_configuration
from toolcall_pipeline.store.episodes import AssistantStep, Episode, StoredCall

PARTITION = "20261123T020000Z-test"
RUN = PARTITION
_TRAINING_TEXT = [
    hermes_template(),
    '{"name": "Read", "arguments": {"file_path": "/home/user/app/main.py"}}',
    "def f():\n    pass\n",
] * 4


@dataclass
class FakeTokenizer:
    """What the dataset needs of a transformers tokenizer."""

    backend_tokenizer: Tokenizer
    chat_template: Any = field(default_factory=hermes_template)
    bos_token: str = "<|im_start|>"
    eos_token: str = "<|im_end|>"
    name_or_path: str = "test"


def make_backend() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>")])
    return tokenizer


def call(
    name: str = "Read",
    tool_input: Any = None,
    response: str | None = "1 import os",
    *,
    event_id: str = "toolu_1",
    **changes: Any,
) -> StoredCall:
    """One call with its result; any field can be changed."""
    fields: dict[str, Any] = {
        "is_error": False, "is_rejected": False, "is_interrupted": False, "truncated_at_bytes": None,
        "source_file": "a/session.jsonl", "source_line": 3,
    }  # fmt: skip
    default = {"file_path": "/home/user/app/main.py"} if name == "Read" else {"command": "git status"}
    return StoredCall(event_id, name, default if tool_input is None else tool_input, response, **{**fields, **changes})


def step(text: str = "", *calls: StoredCall) -> AssistantStep:
    """One assistant message."""
    return AssistantStep(text, calls, ("e",), "a/session.jsonl", 3, 0)


def episode(
    steps: Sequence[AssistantStep] = (), *, prompt: str = "Read the main module and say what it does", **changes: Any
) -> Episode:
    """One episode; any field can be changed."""
    fields: dict[str, Any] = {
        "prompt_event_id": "prompt-1", "prompt_text": prompt, "steps": tuple(steps), "session_id": "session-1",
        "family_id": "family-1", "turn_index": 0, "project_root": "/home/user/app",
        "git_remote": "git@example.com:me/app", "project_kind": "git", "agent": "claude_code", "agent_version": "2.1.0",
        "backfill_run_ids": (RUN,), "freeze_number": 1, "is_synthetic": False, "is_sub_agent": False,
        "is_interrupted": False, "source_file": "a/session.jsonl", "source_line": 2, "cwd": "/home/user/app",
    }  # fmt: skip
    return Episode(**{**fields, **changes})


_NOUNS = (
    "harbour", "lantern", "meadow", "compass", "orchard", "quarry", "violin", "glacier", "market", "turbine", "parcel",
    "saffron", "canyon", "beacon", "ledger", "mosaic", "willow", "anchor", "copper", "falcon", "granite", "hamlet",
)  # fmt: skip
_VERBS = (
    "Explain",
    "Repair",
    "Rename",
    "Measure",
    "Document",
    "Simplify",
    "Verify",
    "Translate",
    "Inspect",
    "Speed up",
)


def make_corpus(families: int = 40, *, seed: int = 3) -> list[Episode]:
    """Different families with several tools, failures, and conclusions; every prompt has its own words."""
    rng = random.Random(seed)
    episodes = []
    for number in range(families):
        root = f"/home/user/projects/{rng.choice(_NOUNS)}-{number}"
        for turn in range(rng.randint(1, 3)):
            place = f"{number}-{turn}"
            words = " ".join(rng.sample(_NOUNS, 6))
            calls = [_any_call(rng, root, f"{place}-{index}", words) for index in range(rng.randint(1, 4))]
            steps = [step(rng.choice(("", f"Looking at {words}.")), item) for item in calls]
            if rng.random() < 0.6:
                steps.append(step(f"The {words} is in order: {rng.randint(10, 99)} of them {place}."))
            episodes.append(
                episode(
                    steps,
                    prompt=f"{rng.choice(_VERBS)} the {words} of {place} in this project, please",
                    prompt_event_id=f"prompt-{place}",
                    session_id=f"session-{number}",
                    family_id=f"session-{number}",
                    turn_index=turn,
                    project_root=root,
                    cwd=root,
                    git_remote=f"git@example.com:me/{number % 7}",
                    source_line=10 + turn,
                )
            )
    return episodes


def _any_call(rng: random.Random, root: str, place: str, words: str) -> StoredCall:
    path = f"{root}/src/{rng.choice(_NOUNS)}.py"
    name, arguments = rng.choice(
        (
            ("Read", {"file_path": path}),
            ("Edit", {"file_path": path, "old_string": f"a = {place!r}", "new_string": f"b = {words!r}"}),
            ("Grep", {"pattern": rng.choice(_NOUNS), "output_mode": "content"}),
            ("Glob", {"pattern": f"**/{rng.choice(_NOUNS)}*"}),
            ("Write", {"file_path": path, "content": f"# {words}\n"}),
            ("Bash", {"command": f"git log -{rng.randint(1, 9)}"}),
            ("Bash", {"command": f"pytest -k {rng.choice(_NOUNS)}"}),
            ("Bash", {"command": f"ls {root}/{rng.choice(_NOUNS)}"}),
            ("mcp__tracker__get_ticket", {"id": f"T-{rng.randint(1, 400)}"}),
        )
    )
    lines = "\n".join(f"{index:4} {rng.choice(_NOUNS)} = {rng.random()}" for index in range(rng.randint(1, 30)))
    return call(name, arguments, lines, event_id=f"call-{place}", is_error=rng.random() < 0.06)


def encode_row(row: Row, template: ChatTemplate, tokenizer: Any) -> EncodedRow:
    """Return a row as it trains, made from its messages; the stage makes the same of drafts."""
    text, spans = training_template(template).render_spans(template_messages(row.messages), list(row.tools))
    encoded = encode_texts([text], [spans], backend_of(tokenizer))[0]
    ids = list(encoded.input_ids)
    labels = [IGNORED] * len(ids)
    for start, end in supervised_spans(encoded, [item.supervised for item in row.messages if item.role == "assistant"]):
        labels[start:end] = ids[start:end]
    return EncodedRow(row.meta.row_id, ids, labels)


def row_to_disk(row: Row) -> dict[str, Any]:
    """Return a row in its form on disk: `arguments` and `tools` as JSON strings, key order kept."""
    data = row.model_dump(mode="json")
    data["tools"] = json.dumps(data["tools"], ensure_ascii=False)
    for message in data["messages"]:
        for made in message["tool_calls"]:
            made["arguments"] = json.dumps(made["arguments"], ensure_ascii=False)
    return data


def no_overlap_suite(rows: Iterable[Row], tools: list[dict[str, Any]]) -> SuiteForDataset:
    """A suite of one case per validation row, as the evaluation room freezes it."""
    rows = list(rows)
    first = [tuple({"role": item.role, "content": item.content} for item in row.messages[:2]) for row in rows[:1]]
    return SuiteForDataset(
        version="test",
        sha256="0" * 64,
        prompts={
            "A": [row.messages[1].content for row in rows],
            "D": ["What is the capital of the moon colony today?"],
        },
        cases=[
            *(ChatCase(messages, tuple(tools[:5])) for messages in first),
            ChatCase(({"role": "system", "content": system_prompt(None)}, {"role": "user", "content": "Hi"})),
        ],
    )


def judge(artifact: Artifact, name: str, *, preset: str = "nightly", recipe: str = "v3") -> GateResult:
    """Judge one gate of a dataset, without a store."""
    configuration = resolve_configuration(preset, {"dataset": {"recipe": recipe}})
    gate = next(gate for gate in GATES if gate.name == name)
    return gate.judge(
        GateContext(
            artifact=artifact,
            partition=PARTITION,
            store=ArtifactStore(artifact.directory.parent / "artifacts"),
            engine=None,  # type: ignore[arg-type]
            configuration=configuration,
            rule=rule_for(configuration, gate.asset, name),
        )
    )

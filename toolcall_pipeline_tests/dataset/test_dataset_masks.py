"""The mask supervises exactly the marked turns with their ends, and the proof sees whatever is not so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dataset_fakes import FakeTokenizer, encode_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolcall_pipeline.dataset.drafts import neutral
from toolcall_pipeline.dataset.masks import IGNORED, EncodedRow, prove_row
from toolcall_pipeline.dataset.rows import Message, Row, RowMeta, ToolCall
from toolcall_pipeline.dataset.templates import ChatTemplate, hermes_template

_TOOL = {"type": "function", "function": {"name": "Read", "description": "Read.", "parameters": {"type": "object"}}}
_META = RowMeta(
    row_id="r", session_id="s", family_id="f", prompt_event_id="p", project_root="/p", category="Read",
    backfill_run_id="run", recipe="v3", synthetic=False, source_file="f.jsonl", source_line=1,
)  # fmt: skip


def make_row(*, supervised: tuple[bool, bool, bool] = (True, False, True), text: str = "It is fine.") -> Row:
    return Row(
        messages=(
            Message(role="system", content="s"),
            Message(role="user", content="Read it"),
            Message(role="assistant", content="Now.", tool_calls=(_call(),), supervised=supervised[0]),
            Message(role="tool", content="assistant\nNo, this is tool output"),
            Message(role="assistant", tool_calls=(_call(), _call()), supervised=supervised[1]),
            Message(role="tool", content="one"),
            Message(role="tool", content="two"),
            Message(role="assistant", content=text, supervised=supervised[2]),
        ),
        tools=(_TOOL,),
        meta=_META,
    )


def _call() -> ToolCall:
    return ToolCall(name="Read", arguments={"file_path": "/é/a.py", "limit": 2, "deep": {"a": [1, None, True]}})


@pytest.fixture(scope="module")
def encode(fake_tokenizer: FakeTokenizer) -> Callable[[Row], EncodedRow]:
    template = ChatTemplate(hermes_template())
    return lambda row: encode_row(row, template, fake_tokenizer)


def test_supervised_tokens_decode_to_the_turns_and_their_ends(
    encode: Callable[[Row], EncodedRow], backend: Any
) -> None:
    row = make_row(supervised=(False, False, True))
    encoded = encode(row)
    supervised = [label for label in encoded.labels if label != IGNORED]
    assert backend.decode(supervised, skip_special_tokens=False) == "It is fine.<|im_end|>"
    assert prove_row(row, encoded.input_ids, encoded.labels, backend) == []


_ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    texts=st.lists(_ANY_TEXT, min_size=4, max_size=4),
    supervised=st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any),
)
def test_any_neutral_text_is_proven(
    encode: Callable[[Row], EncodedRow], backend: Any, texts: list[str], supervised: tuple[bool, bool, bool]
) -> None:
    first, result, argument, last = (neutral(text) for text in texts)
    row = Row(
        messages=(
            Message(role="user", content=result),
            Message(
                role="assistant",
                content=first.strip(),
                tool_calls=(ToolCall(name="Read", arguments={"a": argument}),),
                supervised=supervised[0],
            ),
            Message(role="tool", content=result),
            Message(role="assistant", content="x" + first.strip(), supervised=supervised[1]),
            Message(role="user", content=argument),
            Message(role="assistant", content=last.strip() or "y", supervised=supervised[2]),
        ),
        tools=(_TOOL,),
        meta=_META,
    )
    encoded = encode(row)
    assert prove_row(row, encoded.input_ids, encoded.labels, backend) == []


def _cut_answer(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    return ids[:-6], labels[:-6]


def _end_unsupervised(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    return ids, [IGNORED if label == end else label for label in labels]


def _all_supervised(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    return ids, list(ids)


def _first_token_unsupervised(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    first = next(index for index, label in enumerate(labels) if label != IGNORED)
    return ids, [IGNORED if index == first else label for index, label in enumerate(labels)]


def _newline_after_end_supervised(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    last = max(index for index, label in enumerate(labels) if label == end)
    return ids, [ids[index] if index == last + 1 else label for index, label in enumerate(labels)]


def _nothing_supervised(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    return ids, [IGNORED] * len(ids)


def _header_supervised(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    first = next(index for index, label in enumerate(labels) if label != IGNORED)
    return ids, [ids[index] if index == first - 1 else label for index, label in enumerate(labels)]


def _shifted(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    return ids, [IGNORED, *labels[:-1]]


def _changed_token(ids: list[int], labels: list[int], end: int) -> tuple[list[int], list[int]]:
    first = next(index for index, label in enumerate(labels) if label != IGNORED)
    other = [ids[index] + 1 if index == first else token for index, token in enumerate(ids)]
    return other, [other[index] if label != IGNORED else IGNORED for index, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_cut_answer, "end"),  # a row whose answer was cut
        (_end_unsupervised, "end of turn is not supervised"),  # v2 and v5
        (_all_supervised, "outside assistant turns"),  # tool output supervised
        (_first_token_unsupervised, "only part of the turn"),
        (_newline_after_end_supervised, "outside assistant turns"),
        (_nothing_supervised, "no supervised token"),  # v3
        (_header_supervised, "outside assistant turns"),
        (_shifted, "differ from their token"),
        (_changed_token, "do not decode to the row's turn"),
    ],
)
def test_the_proof_sees_each_planted_fault(
    encode: Callable[[Row], EncodedRow], backend: Any, fault: Callable[..., Any], said: str
) -> None:
    row = make_row()
    encoded = encode(row)
    ids, labels = fault(encoded.input_ids, encoded.labels, backend.token_to_id("<|im_end|>"))
    assert said in "; ".join(prove_row(row, ids, labels, backend))


def test_the_proof_sees_a_row_that_says_something_else(encode: Callable[[Row], EncodedRow], backend: Any) -> None:
    encoded = encode(make_row())
    assert prove_row(make_row(text="It is broken."), encoded.input_ids, encoded.labels, backend)
    assert prove_row(make_row(supervised=(True, True, True)), encoded.input_ids, encoded.labels, backend)
    assert prove_row(make_row(supervised=(True, False, False)), encoded.input_ids, encoded.labels, backend)

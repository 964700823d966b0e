"""Token spans from summed lengths are those of the tokenizer's own offsets, for any text and any way to tokenize."""

from __future__ import annotations

import pytest
from dataset_fakes import make_backend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from toolcall_pipeline.dataset.templates import Span
from toolcall_pipeline.dataset.turn_tokens import encode_texts

_TEXT = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=30)


def _conversation(parts: list[str]) -> tuple[str, list[Span | None]]:
    """Return turns after their headers, and where each stands in the text, its end included."""
    text = ""
    spans: list[Span | None] = []
    for part in parts:
        text += "<|im_start|>assistant\n"
        spans.append((len(text), len(text) + len(part) + len("<|im_end|>")))
        text += part + "<|im_end|>\n"
    return text, spans


def _spans_by_offsets(text: str, spans: list[Span | None], tokenizer: Tokenizer) -> list[tuple[int, int] | None]:
    """Return the token spans as the tokenizer's offsets of every single token give them."""
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    result: list[tuple[int, int] | None] = []
    for span in spans:
        assert span is not None
        fits = span[0] in starts and span[1] in ends
        result.append((starts.index(span[0]), ends.index(span[1]) + 1) if fits else None)
    return result


@pytest.fixture(scope="module")
def merging() -> Tokenizer:
    """A byte-level tokenizer that merges across the end of a header: some turns begin inside a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["assistant\nLooking at it"] * 20, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>", "<｜é｜>")])
    return tokenizer


def _splitting(*steps: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = make_backend()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    return tokenizer


_OTHER_SPLITS = (
    _splitting(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    _splitting(pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)),
    _splitting(
        pre_tokenizers.Split(
            Regex(r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), behavior="isolated"
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ),
)
"""With a space put before a text, with single digits, and as Qwen2 splits."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(parts=st.lists(_TEXT, min_size=1, max_size=4))
def test_lengths_give_the_spans_that_offsets_give(backend: Tokenizer, merging: Tokenizer, parts: list[str]) -> None:
    for tokenizer in (backend, merging):
        text, spans = _conversation([*parts, "Looking at <｜é｜> it"])
        encoded = encode_texts([text], [spans], tokenizer)[0]
        assert list(encoded.input_ids) == tokenizer.encode(text, add_special_tokens=False).ids
        assert encoded.turns == _spans_by_offsets(text, spans, tokenizer)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(
    before=_TEXT,
    recurring=st.lists(st.text(alphabet="a {}[],\"'\n.é1<", min_size=1, max_size=12), max_size=4),
    between=st.sampled_from(("\n", "", ", ", "  \n ", "e")),
    after=_TEXT,
)
def test_recurring_texts_change_no_token(
    backend: Tokenizer, merging: Tokenizer, before: str, recurring: list[str], between: str, after: str
) -> None:
    text = f"<|im_start|>system\n{before}{between.join(recurring)}{between}{after}<|im_end|>\n"
    for tokenizer in (backend, merging, *_OTHER_SPLITS):
        encoded = encode_texts([text, text], [[], []], tokenizer, [recurring, ["not in the text"]])
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert [list(item.input_ids) for item in encoded] == [expected, expected]


def test_a_turn_that_begins_inside_a_token_has_no_span(merging: Tokenizer) -> None:
    text, spans = _conversation(["Looking at it", "é then"])
    turns = encode_texts([text], [spans], merging)[0].turns
    assert turns[0] is None
    assert turns[1] is not None


def test_a_text_that_a_normaliser_changes_gets_its_spans_from_offsets() -> None:
    tokenizer = make_backend()
    tokenizer.normalizer = normalizers.NFC()
    text, spans = _conversation(["e\u0301 and A\u030a", "plain"])
    encoded = encode_texts([text], [spans], tokenizer)[0]
    assert encoded.turns == _spans_by_offsets(text, spans, tokenizer)
    first = encoded.turns[0]
    assert first is not None
    assert tokenizer.decode(list(encoded.input_ids[slice(*first)]), skip_special_tokens=False) == "é and Å<|im_end|>"


def test_another_kind_of_tokenizer_gets_its_spans_from_offsets() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "assistant": 1, "it": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>")])
    text, spans = _conversation(["it", "unknown é it"])
    turns = encode_texts([text, text], [spans, [None, spans[1]]], tokenizer)
    assert turns[0].turns == _spans_by_offsets(text, spans, tokenizer)
    assert turns[1].turns == [None, turns[0].turns[1]]

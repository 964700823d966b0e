"""The tokens of each assistant turn, from the characters it stands at.

A tokenizer's own offsets cost half as much again as tokenizing. Byte-level BPE needs none: a token stands for as many
bytes as its vocabulary entry has characters (GPT-2's byte alphabet), so that its borders are sums of lengths. Where the
sum is not the length of the text (a normaliser changed it), and for other tokenizers, the offsets are asked for.

Half of what rows say is tools on offer, the same ones in ever other orders. Byte-level BPE never merges across the border
of a pre-token, so that a text cut there gives the same tokens piece by piece: each tool is tokenized once.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolcall_pipeline.dataset.templates import Span

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TokenSpan = tuple[int, int]
_SPACE = re.compile(r"\s*")
_SEEN_CHARACTERS = 64
"""More than a pre-tokenizer looks at to see a border."""
_TEXTS_AT_A_TIME = 64
"""An encoding keeps the strings of its tokens: about 100 bytes each, so that one episode of many rows would be much."""


@dataclass(frozen=True)
class EncodedText:
    """Token ids of a rendered conversation and the token span of each assistant turn.

    Attributes:
        input_ids: Token ids.
        turns: Per assistant turn its tokens, end of turn included; None where the turn does not begin or end at a
            token's border, or its history is rendered differently from when it was written: never supervised.
    """

    input_ids: Sequence[int]
    turns: list[TokenSpan | None]


def encode_texts(
    texts: Sequence[str],
    spans: Sequence[Sequence[Span | None]],
    tokenizer: Tokenizer,
    recurring: Sequence[Sequence[str]] | None = None,
) -> list[EncodedText]:
    """Tokenize rendered conversations.

    Args:
        texts: As `TrainingTemplate.render_spans` gives them; special tokens are in the text, none are added.
        spans: Character spans of the assistant turns, per text, in order.
        tokenizer: The fast tokenizer's backend.
        recurring: Per text, what stands in it in this order and in other texts as well: its tools as JSON. The tokens are
            the same without.

    Returns:
        One per text, in order.
    """
    token_bytes = _token_bytes(tokenizer)
    result = []
    for start in range(0, len(texts), _TEXTS_AT_A_TIME):
        part = slice(start, start + _TEXTS_AT_A_TIME)
        if token_bytes is None:
            encodings = tokenizer.encode_batch(list(texts[part]), add_special_tokens=False)
            result += [
                EncodedText(array("i", encoding.ids), _spans_of_offsets(encoding, text_spans))
                for text_spans, encoding in zip(spans[part], encodings, strict=True)
            ]
            continue
        ids_of_texts = _ids_of_texts(texts[part], recurring[part] if recurring else None, tokenizer)
        for text, text_spans, ids in zip(texts[part], spans[part], ids_of_texts, strict=True):
            turns = _spans_of_lengths(text, text_spans, ids, token_bytes)
            if turns is None:
                turns = _spans_of_offsets(tokenizer.encode(text, add_special_tokens=False), text_spans)
            result.append(EncodedText(ids, turns))
    return result


def _ids_of_texts(
    texts: Sequence[str], recurring: Sequence[Sequence[str]] | None, tokenizer: Tokenizer
) -> list[array[int]]:
    """Return the tokens of each text; only what recurs in no other text is tokenized anew."""
    cut = [_cut(text, known, tokenizer) for text, known in zip(texts, recurring or [()] * len(texts), strict=True)]
    encodings = tokenizer.encode_batch_fast([pieces[-1] for pieces in cut], add_special_tokens=False)
    result = []
    for pieces, encoding in zip(cut, encodings, strict=True):
        ids = array("i")
        for piece in pieces[:-1]:
            ids.extend(_ids_of_piece(tokenizer, piece))
        ids.extend(encoding.ids)
        result.append(ids)
    return result


def _cut(text: str, recurring: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Return a text in pieces that are tokenized each for itself as they are together: recurring ones, then the rest."""
    places, place = [0], 0
    for known in recurring:
        found = text.find(known, place)
        if found < 0:
            return [text]
        places.append(found)
        place = found + len(known)
    rest = _SPACE.match(text, place)
    assert rest is not None
    pieces = [text[start:stop] for start, stop in pairwise([*places, rest.end(), len(text)])]
    meet = all(
        _is_border(tokenizer, left[-_SEEN_CHARACTERS:], right[:_SEEN_CHARACTERS]) for left, right in pairwise(pieces)
    )
    return pieces if meet else [text]


@lru_cache(maxsize=4096)
def _is_border(tokenizer: Tokenizer, left: str, right: str) -> bool:
    """Return whether texts that meet like this are split between them, and are tokenized as each is alone."""
    if tokenizer.pre_tokenizer is None:
        return False
    whole = left + right
    borders = {start for _, (start, _) in tokenizer.pre_tokenizer.pre_tokenize_str(whole)}
    together, *alone = tokenizer.encode_batch_fast([whole, left, right], add_special_tokens=False)
    return len(left) in borders and together.ids == alone[0].ids + alone[1].ids


@lru_cache(maxsize=4096)
def _ids_of_piece(tokenizer: Tokenizer, piece: str) -> array[int]:
    return array("i", tokenizer.encode(piece, add_special_tokens=False).ids)


@lru_cache(maxsize=2)
def _token_bytes(tokenizer: Tokenizer) -> NDArray[np.int64] | None:
    """Return how many bytes each token stands for, by id; None where the tokenizer is not byte-level."""
    from tokenizers.decoders import ByteLevel

    if not isinstance(tokenizer.decoder, ByteLevel):
        return None
    lengths = {token: len(entry) for entry, token in tokenizer.get_vocab(with_added_tokens=False).items()}
    # Added tokens are in no byte alphabet.
    added = tokenizer.get_added_tokens_decoder()
    lengths |= {token: len(entry.content.encode()) for token, entry in added.items()}
    result = np.zeros(max(lengths) + 1, dtype=np.int64)
    result[list(lengths)] = list(lengths.values())
    return result


def _spans_of_lengths(
    text: str, spans: Sequence[Span | None], ids: array[int], token_bytes: NDArray[np.int64]
) -> list[TokenSpan | None] | None:
    """Return the token span of each turn, None in place of all where the tokens are not as long as the text."""
    borders = np.concatenate(([0], np.cumsum(token_bytes[np.frombuffer(ids, dtype=np.int32)])))
    places = [place for span in spans if span is not None for place in span]
    *positions, total = _byte_positions(text, [*places, len(text)])
    if borders[-1] != total:
        return None
    tokens = np.searchsorted(borders, positions)
    found = iter(np.where(borders[tokens] == positions, tokens, -1).tolist())
    turns = [None if span is None else (next(found), next(found)) for span in spans]
    return [None if turn is None or -1 in turn else turn for turn in turns]


def _byte_positions(text: str, places: list[int]) -> list[int]:
    """Return the places in a text, in order, as places in its UTF-8."""
    if text.isascii():
        return places
    positions, before, total = [], 0, 0
    for place in places:
        total += len(text[before:place].encode())
        before = place
        positions.append(total)
    return positions


def _spans_of_offsets(encoding: Any, spans: Sequence[Span | None]) -> list[TokenSpan | None]:
    return [None if span is None else _span_of_offsets(encoding, span) for span in spans]


def _span_of_offsets(encoding: Any, span: Span) -> TokenSpan | None:
    first = encoding.char_to_token(span[0])
    last = encoding.char_to_token(span[1] - 1)
    if first is None or last is None:
        return None
    begins_there = encoding.token_to_chars(first)[0] == span[0]
    ends_there = encoding.token_to_chars(last)[1] == span[1]
    return (first, last + 1) if begins_there and ends_there else None

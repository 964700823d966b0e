"""Which tokens are trained on, and the proof that exactly those are.

`turn_tokens.py` finds the tokens of each assistant turn from the character spans of the template. The proof
(`walk_tokens`) is written another way on purpose: it never sees characters or spans, only token ids and labels,
splits at ChatML's turn tokens, and decodes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.dataset.rows import Row
from toolcall_pipeline.dataset.turn_tokens import EncodedText, TokenSpan
from toolcall_pipeline.errors import DatasetError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IGNORED = -100


@dataclass(frozen=True)
class EncodedRow:
    """A row as it trains: `labels[i]` is `input_ids[i]` where supervised, -100 elsewhere; not shifted."""

    row_id: str
    input_ids: list[int]
    labels: list[int]


def backend_of(tokenizer: Any) -> Tokenizer:
    """Return the Rust tokenizer behind a transformers tokenizer (or the tokenizer itself).

    Raises:
        DatasetError: The tokenizer is a slow one.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "encode_batch"):
        raise DatasetError(f"Tokenizer {type(tokenizer).__name__} has no fast form, which the dataset needs.")
    return backend


def supervised_spans(
    encoded: EncodedText, supervised: Sequence[bool], *, end_of_turn: bool = True
) -> Iterator[TokenSpan]:
    """Yield the spans of the tokens that are trained on.

    Args:
        encoded: The tokenized conversation.
        supervised: Per assistant turn.
        end_of_turn: Whether the token that ends the turn is supervised with it (recipe v2 left it out).

    Raises:
        DatasetError: A supervised turn has no tokens of its own.
    """
    for index, (turn, wanted) in enumerate(zip(encoded.turns, supervised, strict=True)):
        if not wanted:
            continue
        if turn is None:
            raise DatasetError(f"Assistant turn {index} is marked supervised but does not begin or end at a token.")
        yield turn[0], turn[1] - (0 if end_of_turn else 1)


@dataclass(frozen=True)
class WalkedTurn:
    """An assistant turn as the tokens alone tell it.

    Attributes:
        text: What its supervised tokens decode to, without the end-of-turn token.
        whole_text: What all its tokens decode to, without the end-of-turn token.
        supervised_tokens: Supervised tokens in it, the end of turn included.
        ends_supervised: Whether its end-of-turn token is supervised.
    """

    text: str
    whole_text: str
    supervised_tokens: int
    ends_supervised: bool


def walk_tokens(
    input_ids: Sequence[int], labels: Sequence[int], tokenizer: Tokenizer
) -> tuple[list[WalkedTurn], list[str]]:
    """Read a training example back from its ids alone.

    Args:
        input_ids: Token ids.
        labels: Labels.
        tokenizer: The backend that decodes.

    Returns:
        The assistant turns in order, and what is wrong outside them, in words (no text of the row): supervised
        tokens in other roles, labels that differ from their ids, turns that never end.
    """
    start_id, end_id = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
    if start_id is None or end_id is None:
        raise DatasetError(
            "The tokenizer has no ChatML turn tokens (<|im_start|>, <|im_end|>); no mask proof is possible."
        )
    turns: list[WalkedTurn] = []
    faults = []
    if len(input_ids) != len(labels):
        return turns, [f"{len(labels)} labels for {len(input_ids)} tokens"]
    wrong = sum(label not in (IGNORED, token) for token, label in zip(input_ids, labels, strict=True))
    if wrong:
        faults.append(f"{wrong} labels differ from their token")
    starts = [position for position, token in enumerate(input_ids) if token == start_id]
    outside = sum(label != IGNORED for label in labels[: starts[0] if starts else len(labels)])
    for number, start in enumerate(starts):
        stop = starts[number + 1] if number + 1 < len(starts) else len(input_ids)
        ends = [position for position in range(start, stop) if input_ids[position] == end_id]
        end = ends[0] if ends else stop
        header = _header_length(input_ids, start, end, tokenizer)
        if header is None:
            outside += sum(label != IGNORED for label in labels[start:stop])
            continue
        if not ends:
            faults.append(f"assistant turn {len(turns)} has no end-of-turn token")
        outside += sum(label != IGNORED for label in labels[start:header])
        outside += sum(label != IGNORED for label in labels[end + 1 : stop])
        body = range(header, end)
        chosen = [input_ids[position] for position in body if labels[position] != IGNORED]
        ends_supervised = bool(ends) and labels[end] != IGNORED
        turns.append(
            WalkedTurn(
                _decode(tokenizer, chosen),
                _decode(tokenizer, [input_ids[position] for position in body]),
                len(chosen) + ends_supervised,
                ends_supervised,
            )
        )
    if outside:
        faults.append(f"{outside} supervised tokens outside assistant turns")
    return turns, faults


def _header_length(ids: Sequence[int], start: int, end: int, tokenizer: Tokenizer) -> int | None:
    """Return where the body of an assistant turn begins, None where the turn is another role's."""
    for position in range(start + 1, min(end, start + 6) + 1):
        head = _decode(tokenizer, ids[start + 1 : position])
        if "\n" in head:
            return position if head == "assistant\n" else None
    return None


def _decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False) if ids else ""


def expected_turn(message: Any) -> str:
    """Return what a Hermes-style assistant turn must decode to, written out without any template."""
    import json

    parts = [message.content] if message.content else []
    for call in message.tool_calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        parts.append(f'<tool_call>\n{{"name": "{call.name}", "arguments": {arguments}}}\n</tool_call>')
    return unicodedata.normalize("NFC", "\n".join(parts))


def strip_thinking(text: str) -> str:
    """Return a decoded turn without the empty think block that some templates put before its words."""
    for block in ("<think>\n\n</think>\n\n", "\n</think>\n\n"):
        if text.startswith(block):
            return text[len(block) :]
    return text


def prove_row(row: Row, input_ids: Sequence[int], labels: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Compare the supervised spans of an encoded row with the turns the row marks supervised.

    Returns:
        What does not hold, in words without the row's text; empty where the mask is proven.
    """
    walked, faults = walk_tokens(input_ids, labels, tokenizer)
    messages = [message for message in row.messages if message.role == "assistant"]
    if len(walked) != len(messages):
        return [*faults, f"{len(walked)} assistant turns in the tokens, {len(messages)} in the row"]
    if not any(turn.supervised_tokens for turn in walked):
        faults.append("no supervised token")
    for index, (turn, message) in enumerate(zip(walked, messages, strict=True)):
        if not message.supervised:
            if turn.supervised_tokens:
                faults.append(f"turn {index} is not marked supervised but {turn.supervised_tokens} of its tokens are")
            continue
        if not turn.ends_supervised:
            faults.append(f"turn {index}: the end of turn is not supervised")
        if turn.text != turn.whole_text:
            faults.append(f"turn {index}: only part of the turn is supervised")
        elif strip_thinking(turn.text) != expected_turn(message):
            faults.append(f"turn {index}: the supervised tokens do not decode to the row's turn")
    return faults

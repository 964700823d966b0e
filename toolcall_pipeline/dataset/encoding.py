"""Drafts to tokenized rows: fit, render, tokenize in batches, and keep what did not change from night to night.

Every assistant turn keeps its token span, supervised or not, so that the choices made later (shares, repeats) need no
second tokenization and the cache survives them.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from toolcall_pipeline.artifacts import canonical_json
from toolcall_pipeline.dataset import drafts as drafts_module
from toolcall_pipeline.dataset.drafts import Draft, DraftStep
from toolcall_pipeline.dataset.fitting import FittedRow, fit, turn_sizes
from toolcall_pipeline.dataset.offers import LEAST_TOOLS, choose_tools
from toolcall_pipeline.dataset.templates import RenderedTool, Span, TrainingTemplate
from toolcall_pipeline.dataset.turn_tokens import EncodedText, encode_texts
from toolcall_pipeline.errors import DatasetError

CODE_VERSION = 6
"""Raise when what this module makes of the same draft changes: old cache entries are then not found."""
CHARACTERS_PER_TOKEN = 3.0
"""Guess for drafts too short to matter; longer ones are sampled, since code, logs and prose differ by half."""
_SAMPLE_CHARACTERS = 2400
_SAMPLE_SAFETY_RATIO = 0.92
"""A sample is not the whole: rows that still come out too long are fitted again."""
_ATTEMPTS = 5
_AGAIN_RATIO = 0.97
_SPELT_CHARACTERS_PER_TOKEN = 1.0
"""Below this a vocabulary spells a script in bytes (Chinese, emoji); the schemas beside it are read as ever."""
_FIXED_CHARACTERS = 700
"""What a template writes around the tools and the turns' headers."""
_MAX_FIXED_RATIO = 0.5
_MAX_TOOL_RATIO = 0.2
"""A tool whose schema alone takes more of a row than this is offered only where it is called."""


class PreparedRow(msgspec.Struct):
    """A tokenized row before it is decided which of its turns are supervised.

    `left_out_steps` of the episode come before it; `input_ids` are little-endian 32-bit integers; `spans` has one entry
    per step.
    """

    row_id: str
    left_out_steps: int
    prompt: str
    steps: list[DraftStep]
    context_steps: int
    shortened_results: int
    tools: list[str]
    input_ids: bytes
    spans: list[tuple[int, int] | None]


class PreparedDraft(msgspec.Struct):
    """All rows of one draft, and the turns that no row could hold."""

    rows: list[PreparedRow]
    turns_too_long: int
    not_rendered: int


@dataclass(frozen=True)
class Encoder:
    """What decides how a draft is rendered and tokenized."""

    template: TrainingTemplate
    tokenizer: Any
    schemas: Mapping[str, RenderedTool]
    max_row_tokens: int
    max_tools: int
    seed: int
    identity: str = ""
    schema_lengths: dict[str, int] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        *,
        template: TrainingTemplate,
        tokenizer: Any,
        schemas: Mapping[str, dict[str, Any]],
        max_row_tokens: int,
        max_tools: int,
        seed: int,
    ) -> Encoder:
        """Return an encoder with its identity (what its results depend on beside the draft)."""
        identity = sha256(
            canonical_json(
                [
                    CODE_VERSION,
                    template.text,
                    template.serving.text,
                    tokenizer.to_str(),
                    max_row_tokens,
                    max_tools,
                    seed,
                ]
            ).encode("utf-8", "surrogatepass")
        ).hexdigest()
        tools = {name: RenderedTool(tool) for name, tool in schemas.items()}
        lengths = {name: len(tool.as_json) for name, tool in tools.items()}
        return cls(template, tokenizer, tools, max_row_tokens, max_tools, seed, identity, lengths)

    def key(self, draft: Draft, had: Sequence[str]) -> bytes:
        """Return the cache key of a draft: its content, the tools it may be offered, and this encoder."""
        names = sorted({*had, *(call.name for step in draft.steps for call in step.calls)})
        digest = sha256(self.identity.encode())
        digest.update(drafts_module.pack(draft))
        digest.update(canonical_json([list(had), [self.schemas[name] for name in names]]).encode())
        return digest.digest()


@dataclass
class _Work:
    """A draft on its way through fitting and measuring.

    Attributes:
        sizes: Its `turn_sizes`.
        open: Turns (start, stop) that still need rows, with characters per token to fit them for.
        done: Rows that fit, with their tools and tokens.
    """

    draft: Draft
    had: Sequence[str]
    sizes: list[int]
    open: list[tuple[int, int, float]]
    done: list[tuple[FittedRow, list[str], EncodedText]] = field(default_factory=list)
    turns_too_long: int = 0
    not_rendered: int = 0

    def prepared(self) -> PreparedDraft:
        """Return the result."""
        ordered = sorted(self.done, key=lambda item: item[0].start)
        rows = [_prepared(self.draft, index, *item) for index, item in enumerate(ordered)]
        return PreparedDraft(rows, self.turns_too_long, self.not_rendered)


def prepare(drafts: Sequence[tuple[Draft, Sequence[str]]], encoder: Encoder) -> list[PreparedDraft]:
    """Return the tokenized rows of some drafts, in order.

    Args:
        drafts: Drafts with the tools their agent had; all texts are held at once.
        encoder: How.
    """
    batch = [_Work(draft, had, turn_sizes(draft), []) for draft, had in drafts]
    _estimate(batch, encoder)
    open_work = batch
    for attempt in range(_ATTEMPTS):
        open_work = _attempt(open_work, encoder, is_last=attempt == _ATTEMPTS - 1)
        if not open_work:
            break
    return [work.prepared() for work in batch]


def _estimate(batch: list[_Work], encoder: Encoder) -> None:
    """Measure characters per token on a sample of each draft that may not fit as it is."""
    samples: list[tuple[_Work, str]] = []
    for work in batch:
        work.open = [(0, len(work.draft.steps), CHARACTERS_PER_TOKEN)]
        texts = [text for step in work.draft.steps for text in (step.content, *(call.result for call in step.calls))]
        if sum(map(len, texts)) > encoder.max_row_tokens:
            longest = max(texts, key=len)
            middle = max(0, len(longest) // 2 - _SAMPLE_CHARACTERS // 2)
            whole = longest[middle : middle + _SAMPLE_CHARACTERS // 2] + "\n".join(texts)[: _SAMPLE_CHARACTERS // 2]
            samples.append((work, whole))
    encoded = (
        encoder.tokenizer.encode_batch_fast([text for _, text in samples], add_special_tokens=False) if samples else []
    )
    for (work, text), encoding in zip(samples, encoded, strict=True):
        ratio = _SAMPLE_SAFETY_RATIO * len(text) / max(1, len(encoding.ids))
        work.open = [(0, len(work.draft.steps), ratio)]


def _attempt(batch: list[_Work], encoder: Encoder, *, is_last: bool) -> list[_Work]:
    """Fit, render and tokenize what is open; return the drafts of which a row came out too long, opened again."""
    texts: list[str] = []
    spans: list[list[Span | None]] = []
    places: list[tuple[_Work, FittedRow, list[str], float]] = []
    for work in batch:
        opened, work.open = work.open, []
        for start, stop, ratio in opened:
            for row, tools in _fit(work, encoder, start, stop, ratio):
                try:
                    text, text_spans = encoder.template.render_spans(*_rendered_from(work.draft, row, tools, encoder))
                except DatasetError:
                    work.not_rendered += 1
                    continue
                texts.append(text)
                spans.append(text_spans)
                places.append((work, row, tools, ratio))
    recurring = [[encoder.schemas[name].as_json for name in tools] for _, _, tools, _ in places]
    for (work, row, tools, ratio), text, encoded in zip(
        places, texts, encode_texts(texts, spans, encoder.tokenizer, recurring), strict=True
    ):
        length_tokens = len(encoded.input_ids)
        if length_tokens <= encoder.max_row_tokens:
            work.done.append((row, tools, encoded))
        elif is_last:
            work.turns_too_long += row.stop - row.start
        else:
            work.open.append((row.start, row.stop, min(ratio, len(text) / length_tokens) * _AGAIN_RATIO))
    return [work for work in batch if work.open]


def _fit(
    work: _Work, encoder: Encoder, start: int, stop: int, characters_per_token: float
) -> list[tuple[FittedRow, list[str]]]:
    """Split turns of the draft into rows for an estimate of characters per token; return them with their tools."""
    draft = work.draft
    budget = int(encoder.max_row_tokens * characters_per_token)
    is_spelt = characters_per_token < _SPELT_CHARACTERS_PER_TOKEN
    # What a schema's characters weigh beside the draft's own.
    weight = characters_per_token / CHARACTERS_PER_TOKEN if is_spelt else 1
    called = [call.name for step in draft.steps for call in step.calls]
    had = [name for name in work.had if weight * encoder.schema_lengths[name] <= _MAX_TOOL_RATIO * budget]
    limit = encoder.max_tools
    fixed = budget
    # Where rows are short, tools that nobody calls make room for the conversation, down to five.
    while limit >= min(LEAST_TOOLS, encoder.max_tools):
        names = choose_tools(had, called, seed=encoder.seed, row_id=draft.row_id, limit=limit)
        fixed = int(
            weight * (sum(encoder.schema_lengths[name] for name in names) + _FIXED_CHARACTERS + len(draft.system))
        )
        if fixed <= _MAX_FIXED_RATIO * budget:
            break
        limit -= 1
    limit = max(limit, min(LEAST_TOOLS, encoder.max_tools))
    rows, too_long = fit(draft, work.sizes, fixed_characters=fixed, budget_characters=budget, start=start, stop=stop)
    work.turns_too_long += too_long
    return [
        (
            row,
            choose_tools(
                had,
                [call.name for step in row.steps for call in step.calls],
                seed=encoder.seed,
                row_id=f"{draft.row_id}+{row.start}",
                limit=limit,
            ),
        )
        for row in rows
    ]


def messages_on_disk(
    system: str, prompt: str, steps: Sequence[DraftStep], supervised: Sequence[bool]
) -> list[dict[str, Any]]:
    """Return the chat messages of a row in their form on disk (`rows.py`), arguments as JSON strings."""
    messages = [_message("system", system), _message("user", prompt)]
    for step, is_supervised in zip(steps, supervised, strict=True):
        calls = [
            {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
                "event_id": call.event_id,
            }
            for call in step.calls
        ]
        messages.append(_message("assistant", step.content, calls, is_supervised))
        messages.extend(_message("tool", call.result) for call in step.calls)
    return messages


def _message(
    role: str, content: str, tool_calls: list[dict[str, Any]] | None = None, supervised: bool = False
) -> dict[str, Any]:
    return {"role": role, "content": content, "tool_calls": tool_calls or [], "supervised": supervised}


def _rendered_from(
    draft: Draft, row: FittedRow, tools: list[str], encoder: Encoder
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": draft.system},
        {"role": "user", "content": row.prompt},
    ]
    for step in row.steps:
        message: dict[str, Any] = {"role": "assistant", "content": step.content}
        if step.calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in step.calls
            ]
        messages.append(message)
        messages.extend({"role": "tool", "content": call.result} for call in step.calls)
    return messages, [encoder.schemas[name] for name in tools]


def _prepared(draft: Draft, index: int, row: FittedRow, tools: list[str], encoded: EncodedText) -> PreparedRow:
    return PreparedRow(
        draft.row_id + (f"+{index}" if index else ""),
        row.start - row.context_steps,
        row.prompt,
        row.steps,
        row.context_steps,
        row.shortened_results,
        tools,
        array("i", encoded.input_ids).tobytes(),
        list(encoded.turns),
    )


_KEPT_BUILDS = 5
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(PreparedDraft).decode


class PreparedCache:
    """Prepared drafts on disk, by content; one SQLite file, safe against kill -9 and against two builds at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        # Entries are large: fewer pages to write than with 4 KiB ones.
        self._connection.execute("PRAGMA page_size=32768")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS prepared (key BLOB PRIMARY KEY, value BLOB NOT NULL, build INTEGER NOT NULL)"
        )

    def get(self, key: bytes) -> PreparedDraft | None:
        """Return a stored draft, or None; an entry that does not parse counts as absent."""
        found = self._connection.execute("SELECT value FROM prepared WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        try:
            return _unpack(found[0])
        except msgspec.DecodeError:
            return None

    def put(self, items: Sequence[tuple[bytes, PreparedDraft]], build: int) -> None:
        """Store drafts in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT OR REPLACE INTO prepared VALUES (?, ?, ?)", [(key, _pack(value), build) for key, value in items]
        )
        self._connection.execute("COMMIT")

    def touch(self, keys: Sequence[bytes], build: int) -> None:
        """Note that a build used these entries."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("UPDATE prepared SET build = ? WHERE key = ?", [(build, key) for key in keys])
        self._connection.execute("COMMIT")

    def next_build(self) -> int:
        """Return the number of a new build."""
        return 1 + (self._connection.execute("SELECT max(build) FROM prepared").fetchone()[0] or 0)

    def prune(self, build: int) -> None:
        """Forget what the last builds did not use."""
        self._connection.execute("DELETE FROM prepared WHERE build < ?", (build - _KEPT_BUILDS,))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

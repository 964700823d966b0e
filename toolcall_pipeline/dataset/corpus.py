"""The corpus in two passes over a spill file, so that memory does not grow with it.

The first pass turns episodes into drafts and observes tools; only then are all schemas known, and the second pass
checks calls, fits, renders and tokenizes. What stays in memory per row is a `Candidate` without texts.
"""

from __future__ import annotations

import struct
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from toolcall_pipeline.dataset.decontamination import PromptPrint, print_prompt, row_minhash
from toolcall_pipeline.dataset.drafts import (
    Draft,
    DraftStep,
    category,
    pack,
    strings_in,
    turn_kind,
    unpack,
)
from toolcall_pipeline.dataset.encoding import Encoder, PreparedCache, PreparedDraft, PreparedRow, prepare
from toolcall_pipeline.dataset.offers import ToolPools, others_that_fit, project_key
from toolcall_pipeline.dataset.schemas import CallChecker, SchemaCollector
from toolcall_pipeline.dataset.shares import TEXT, TEXT_AFTER_TOOL, Turn
from toolcall_pipeline.store.episodes import Episode

_LENGTH = struct.Struct("<I")
_BATCH_DRAFTS = 48
_BATCHES_AHEAD = 3
_WORKERS = 2


@dataclass
class Corpus:
    """All drafts of a build, on disk, and what was observed on the way.

    Attributes:
        drops: Why episodes are no rows.
        turn_drops: Why turns are not supervised.
        counts: What was read.
        draft_count: Drafts on disk; recipe v2 makes one of every call.
    """

    spill: IO[bytes]
    collector: SchemaCollector = field(default_factory=SchemaCollector)
    pools: ToolPools = field(default_factory=ToolPools)
    drops: Counter[str] = field(default_factory=Counter)
    turn_drops: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    draft_count: int = 0

    @classmethod
    def create(cls, spill_dir: Path) -> Corpus:
        """Return an empty corpus; close it when done."""
        spill_dir.mkdir(parents=True, exist_ok=True)
        return cls(tempfile.TemporaryFile(dir=spill_dir, prefix="drafts-"))

    def close(self) -> None:
        """Close and so remove the spill file."""
        self.spill.close()

    def drafts(self) -> Iterator[Draft]:
        """Yield the drafts in the order read."""
        self.spill.seek(0)
        while head := self.spill.read(_LENGTH.size):
            yield unpack(self.spill.read(_LENGTH.unpack(head)[0]))


@dataclass(slots=True)
class Candidate:
    """A tokenized row before the choices that need the whole corpus.

    Attributes:
        key, position: Where its texts and tokens are: cache key of the draft, row in it.
        source: The draft without texts.
        turns: Turns that may be supervised.
        prompt_print, sketch: For decontamination and near-duplicates.
        call_turns, conclusions: How many of `turns` make calls, and how many say in text what came of one.
        more_tools_fit: Whether another offered tool would serve the first call as well.
        repeat: 0, or the number of a deliberate repeat.
    """

    key: bytes
    position: int
    row_id: str
    source: Draft
    turns: list[Turn]
    prompt_print: PromptPrint
    sketch: Any
    call_turns: int
    conclusions: int
    length_tokens: int
    more_tools_fit: bool
    repeat: int = 0


def read_corpus(
    corpus: Corpus,
    episodes: Iterable[Episode],
    make_drafts: Callable[[Episode], tuple[list[Draft], Counter[str]]],
    progress: Callable[[int], None],
) -> None:
    """Make drafts of all episodes and observe the tools in them."""
    for number, episode in enumerate(episodes, 1):
        corpus.counts["episodes"] += 1
        for offered in episode.offered_tools:
            corpus.collector.define(offered)
        drafts, drops = make_drafts(episode)
        corpus.drops.update(drops)
        for draft in drafts:
            _take(corpus, draft)
        if number % 200 == 0:
            progress(number)


def _take(corpus: Corpus, draft: Draft) -> None:
    for step in draft.steps:
        corpus.counts["turns"] += 1
        for call in step.calls:
            corpus.counts["calls"] += 1
            if step.reason in {"failed", "cut_arguments"}:
                # Its arguments teach no schema, but a known tool has one, so that the call can stay as context.
                corpus.collector.define(call.name)
            else:
                corpus.collector.observe(call.name, call.arguments)
    if draft.has_image:
        corpus.counts["episodes_with_image_replaced_by_marker"] += 1
    corpus.pools.observe(draft)
    data = pack(draft)
    corpus.draft_count += 1
    corpus.spill.write(_LENGTH.pack(len(data)))
    corpus.spill.write(data)


def remove_misfits(draft: Draft, checker: CallChecker) -> Counter[str]:
    """Take calls that do not fit their schema out of a draft, in place.

    A turn that lost one is not supervised, nor is the turn after it: it says what came of a call that the row does not show.

    Returns:
        `calls_<problem>` removed and `turns_emptied`.
    """
    counts: Counter[str] = Counter()
    steps: list[DraftStep] = []
    has_lost = False
    for step in draft.steps:
        problems = [checker.problem(call.name, call.arguments) for call in step.calls]
        if has_lost:
            step.reason = step.reason or "context_left_out"
        has_lost = any(problems)
        if has_lost:
            counts.update(f"calls_{problem}" for problem in problems if problem)
            step.calls = [call for call, problem in zip(step.calls, problems, strict=True) if problem is None]
            step.reason = step.reason or "schema_violation"
            if not step.calls:
                counts["turns_emptied"] += 1
                continue
        steps.append(step)
    draft.steps = steps
    return counts


@dataclass
class _Batch:
    """Some drafts with what the cache has of them; what it lacks is made by another thread."""

    drafts: list[tuple[Draft, bytes, PreparedDraft | None]]
    made: Future[list[PreparedDraft]]


def prepare_corpus(
    corpus: Corpus, encoder: Encoder, cache: PreparedCache, progress: Callable[[int], None]
) -> list[Candidate]:
    """Check, fit, render and tokenize every draft; unchanged ones come from the cache.

    The tokenizer works without Python's lock: one batch is tokenized while another is rendered in a second thread, and
    this one reads the next and looks at the last.
    """
    build = cache.next_build()
    candidates: list[Candidate] = []
    waiting: deque[_Batch] = deque()
    with ThreadPoolExecutor(_WORKERS) as worker:
        for batch in _batches(corpus, encoder, cache, worker, progress):
            waiting.append(batch)
            if len(waiting) > _BATCHES_AHEAD:
                candidates.extend(_finished(corpus, waiting.popleft(), cache, build))
        while waiting:
            candidates.extend(_finished(corpus, waiting.popleft(), cache, build))
    cache.prune(build)
    return candidates


def _batches(
    corpus: Corpus, encoder: Encoder, cache: PreparedCache, worker: Executor, progress: Callable[[int], None]
) -> Iterator[_Batch]:
    checker = CallChecker(encoder.schemas)
    pending: list[tuple[Draft, bytes, PreparedDraft | None]] = []
    fresh: list[tuple[Draft, Sequence[str]]] = []
    for number, draft in enumerate(corpus.drafts(), 1):
        corpus.turn_drops.update(remove_misfits(draft, checker))
        if not draft.steps:
            corpus.drops["no_valid_turn"] += 1
            continue
        had = corpus.pools.had(draft, encoder.schemas)
        key = encoder.key(draft, had)
        found = cache.get(key)
        pending.append((draft, key, found))
        if found is None:
            fresh.append((draft, had))
        if len(pending) == _BATCH_DRAFTS:
            yield _Batch(pending, worker.submit(prepare, fresh, encoder))
            pending, fresh = [], []
        if number % 200 == 0:
            progress(number)
    yield _Batch(pending, worker.submit(prepare, fresh, encoder))


def _finished(corpus: Corpus, batch: _Batch, cache: PreparedCache, build: int) -> list[Candidate]:
    """Wait for a batch, store what was made, and return its candidates."""
    made = iter(batch.made.result())
    stored: list[tuple[bytes, PreparedDraft]] = []
    candidates: list[Candidate] = []
    for draft, key, found in batch.drafts:
        prepared = found or next(made)
        if found is None:
            stored.append((key, prepared))
        candidates.extend(_candidates(corpus, draft, key, prepared))
    cache.put(stored, build)
    cache.touch([key for _, key, found in batch.drafts if found is not None], build)
    corpus.counts["drafts_tokenized"] += len(stored)
    corpus.counts["drafts_reused"] += len(batch.drafts) - len(stored)
    return candidates


def _candidates(corpus: Corpus, draft: Draft, key: bytes, prepared: PreparedDraft) -> Iterator[Candidate]:
    corpus.turn_drops.update(step.reason for step in draft.steps if step.reason)
    corpus.turn_drops["too_long_for_a_row"] += prepared.turns_too_long
    corpus.drops["row_does_not_render"] += prepared.not_rendered
    if not prepared.rows and not prepared.not_rendered:
        corpus.drops["no_turn_fits_a_row"] += 1
    prompt_print = print_prompt(draft.prompt)
    light = Draft(**{name: getattr(draft, name) for name in Draft.__struct_fields__} | {"prompt": "", "steps": []})
    for position, row in enumerate(prepared.rows):
        turns = list(_turns(corpus, row))
        if not turns:
            corpus.drops["row_without_supervised_turn"] += 1
            continue
        conclusions = sum(turn.category == TEXT_AFTER_TOOL for turn in turns)
        calls = sum(turn.category not in {TEXT, TEXT_AFTER_TOOL} for turn in turns)
        first_call = next((call for step in row.steps for call in step.calls), None)
        corpus.counts["results_shortened"] += row.shortened_results
        yield Candidate(
            key,
            position,
            row.row_id,
            light,
            turns,
            prompt_print,
            row_minhash(_own_words(row)),
            calls,
            conclusions,
            len(row.input_ids) // 4,
            bool(first_call and others_that_fit(first_call.name, first_call.arguments, row.tools)),
        )


def _own_words(row: PreparedRow) -> Iterator[str]:
    yield row.prompt
    for step in row.steps:
        yield step.content
        for call in step.calls:
            yield from strings_in(call.arguments)


def _turns(corpus: Corpus, row: PreparedRow) -> Iterator[Turn]:
    """Yield the turns of a row that may be supervised here."""
    for number, step in enumerate(row.steps):
        if number < row.context_steps or step.reason is not None:
            continue
        if row.spans[number] is None:
            corpus.turn_drops["history_or_token_border"] += 1
            continue
        if number == 0 and row.left_out_steps and not step.calls:
            corpus.turn_drops["context_left_out"] += 1
            continue
        kind = turn_kind(step, after_tool=number > 0)
        name = category(step.calls[0].name, step.calls[0].arguments) if step.calls else kind
        yield Turn(row.row_id, number, name)


def project_of(candidate: Candidate) -> str:
    """Return what counts as a candidate's project in caps and shares."""
    return project_key(candidate.source.git_remote, candidate.source.project_root)

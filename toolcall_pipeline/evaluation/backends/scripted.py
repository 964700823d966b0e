"""Recorded answers from a file: JSON lines `{"suite", "case_id", "seed", "turns": ["raw completion", ...]}`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolcall_pipeline.artifacts import sha256_file
from toolcall_pipeline.errors import MissingInputError, UsageError
from toolcall_pipeline.evaluation.backends.protocol import Generation, Request, RequestSource
from toolcall_pipeline.evaluation.cases import ModelIdentity

_Key = tuple[str, str, int | None]


class ScriptedBackend:
    """Answers each case with its recorded turns; a script that runs out repeats its last.

    A line without `seed`, or with `null`, serves every seed that has no line of its own.
    """

    def __init__(self, path: Path) -> None:
        """Read the script.

        Raises:
            MissingInputError: There is no such file.
            UsageError: A line is no script, or the second of its case and seed; the message names it and what was expected.
        """
        if not path.is_file():
            raise MissingInputError(f"There is no scripted model at {path}. Expected a file of JSON lines.")
        self._turns: dict[_Key, list[str]] = {}
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    key, turns = _read_line(line, f"{path}:{number}")
                    if key in self._turns:
                        raise UsageError(f"{path}:{number} is the second script of {key[0]} {key[1]} seed {key[2]}.")
                    self._turns[key] = turns
        self.identity = ModelIdentity(
            name=path.name, sha256=sha256_file(path), path=str(path), quantisation=None, backend="scripted"
        )

    def generate(self, take: RequestSource) -> Iterator[tuple[int, Generation]]:
        """Yield the recorded turns."""
        while (taken := take()) is not None:
            number, request = taken
            yield number, self._answer(request)

    def _answer(self, request: Request) -> Generation:
        turns = self._turns.get((request.suite, request.case_id, request.seed))
        turns = turns or self._turns.get((request.suite, request.case_id, None))
        if not turns:
            return Generation(raw="", error=f"no script for {request.suite} {request.case_id} seed {request.seed}")
        raw = turns[min(request.turn_index, len(turns) - 1)]
        return Generation(raw=raw, completion_tokens=len(raw.split()))

    def close(self) -> None:
        """Nothing to free."""


def _read_line(line: bytes, place: str) -> tuple[_Key, list[str]]:
    expected = 'Expected {"suite": "A", "case_id": "...", "seed": 0, "turns": ["raw completion", ...]}.'
    try:
        # A byte-order mark is no fault of the answers.
        value: Any = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place} is not JSON ({error}). {expected}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{place} is a {type(value).__name__}. {expected}")
    turns, seed = value.get("turns"), value.get("seed")
    if not isinstance(turns, list) or not turns or any(not isinstance(turn, str) for turn in turns):
        raise UsageError(f"{place} has no list of texts under turns. {expected}")
    if not isinstance(value.get("case_id"), str) or not (seed is None or isinstance(seed, int)):
        raise UsageError(f"{place} is no script: it has the fields {sorted(value)}. {expected}")
    return (str(value.get("suite")), value["case_id"], seed), turns

"""Plausible alternatives of suite A, as a person labelled them: kept for good, used by every later run.

`<home>/suites/labels.jsonl`, one label a line, the last one of a case and call counts. The file is not part of a
suite's hash: a label is a correction of the answer key, and stored completions are scored again with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from toolcall_pipeline.artifacts import sha256_json
from toolcall_pipeline.errors import EvaluationError, UsageError
from toolcall_pipeline.evaluation.cases import ParsedCall
from toolcall_pipeline.evaluation.loops import call_key
from toolcall_pipeline.settings import Settings


class Label(BaseModel):
    """What a person said of one call as an answer to one case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    call_key: str
    call: ParsedCall
    is_plausible: bool
    note: str = ""
    labelled_at: datetime


def add_label(settings: Settings, case_id: str, call: dict[str, Any], plausible: bool = True, note: str = "") -> Label:
    """Record that a call is, or is not, a plausible alternative in a case of A.

    Raises:
        UsageError: The call has no name.
    """
    if not isinstance(call.get("name"), str) or not call["name"]:
        raise UsageError('A label needs a call such as {"name": "Bash", "arguments": {"command": "ls"}}.')
    parsed = ParsedCall(name=call["name"], arguments=call.get("arguments") or {})
    label = Label(
        case_id=case_id,
        call_key=call_key(parsed),
        call=parsed,
        is_plausible=plausible,
        note=note,
        labelled_at=datetime.now(UTC),
    )
    path = _path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, label.model_dump_json().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return label


def load_labels(settings: Settings) -> dict[tuple[str, str], bool]:
    """Return (case id, call key) to whether the call is plausible."""
    return {(label.case_id, label.call_key): label.is_plausible for label in _read(_path(settings))}


def labels_sha256(labels: dict[tuple[str, str], bool]) -> str:
    """Return the hash of what all labels say, the time they were given left out."""
    return sha256_json(sorted([case_id, key, plausible] for (case_id, key), plausible in labels.items()))


def _path(settings: Settings) -> Path:
    return settings.home_dir / "suites" / "labels.jsonl"


def _read(path: Path) -> Iterator[Label]:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield Label.model_validate(json.loads(line))
        except ValueError as error:
            raise EvaluationError(f"{path}:{number} is no label ({error}). Mend or remove the line.") from error

"""Frozen suites on disk: made once, hashed, and met again by every model night after night.

`<home>/suites/<version>/cases.jsonl` and `suite.json`. The user's versions are `1`, `2`, ...; `current` names the one
in use. Until a dataset of the user's own sessions fills A and B, the sample suite (`sample-...`) serves, and nothing
ships. A retired case is left out for all models, and the hash covers the rest.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from toolcall_pipeline.artifacts import canonical_json, sha256_text, write_atomically
from toolcall_pipeline.dataset.rows import Row
from toolcall_pipeline.errors import EvaluationError, MissingInputError, UsageError
from toolcall_pipeline.evaluation.cases import Case
from toolcall_pipeline.evaluation.suites.agentic import agentic_cases
from toolcall_pipeline.evaluation.suites.recall import RecallFact, recall_cases
from toolcall_pipeline.evaluation.suites.sample_episodes import sample_cases
from toolcall_pipeline.evaluation.suites.single_turn import single_turn_cases
from toolcall_pipeline.evaluation.suites.sizes import B_HALF, SUITE_SIZES
from toolcall_pipeline.evaluation.suites.vague import vague_cases
from toolcall_pipeline.evaluation.suites.validation import cases_of_rows, is_filled
from toolcall_pipeline.settings import Settings


class SuiteRecord(BaseModel):
    """`suite.json`: what a frozen version is; `cases_sha256` proves the cases untouched.

    Attributes:
        retired: Case id to why it is left out for all models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    is_sample: bool
    cases_sha256: str
    created_at: datetime
    retired: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class FrozenSuite:
    """A frozen version of the suites.

    Attributes:
        version: `1`, `2`, ... of the user; `sample-<8 hex>`.
        sha256: Hash of the cases that are not retired: the suite's identity.
        cases: Those cases, in suite order.
        retired: The others, with why.
        directory: Where it lies.
    """

    version: str
    sha256: str
    is_sample: bool
    cases: tuple[Case, ...]
    retired: dict[str, str]
    directory: Path

    @cached_property
    def prompts(self) -> list[str]:
        """Return what a person typed in each case, for decontamination."""
        return [
            str(message["content"]) for case in self.cases for message in case.messages if message["role"] == "user"
        ]

    @cached_property
    def families(self) -> frozenset[str]:
        """Return the session families that cases were made from."""
        return frozenset(str(case.source["family_id"]) for case in self.cases if case.source.get("family_id"))


def freeze_suite(
    settings: Settings,
    *,
    validation_rows: Iterable[Row],
    tools: Sequence[dict[str, Any]],
    is_sample: bool,
    recall_facts: Sequence[RecallFact] = (),
    trained_families: Collection[str] = (),
) -> FrozenSuite:
    """Return the suite that serves a dataset, freezing it where none is frozen yet.

    Args:
        settings: Where suites are kept.
        validation_rows: Of the dataset that is being built.
        tools: All its tool schemas.
        is_sample: The dataset is made of the shipped sample sessions.
        recall_facts: What the store knows of the user's projects (suite E).
        trained_families: Families that were ever trained on; their cases are retired.

    Returns:
        The user's current version; else version 1, where these rows fill A and B; else the sample suite.
    """
    if not is_sample:
        current = _current_version(settings)
        if current is not None:
            return retire_families(settings, load_suite(settings, current), trained_families)
        cases = cases_of_rows(validation_rows, tools)
        if is_filled(cases):
            return _write(settings, "1", [*cases, *_written_cases(tools, recall_facts)], is_sample=False)
    sample = _sample_version(settings)
    if sample is not None:
        return retire_families(settings, load_suite(settings, sample), trained_families)
    own = cases_of_rows(validation_rows, tools) if is_sample else []
    cases = [*_filled_up(own, sample_cases(tools)), *_written_cases(tools, recall_facts)]
    return _write(settings, f"sample-{_digest(cases)[:8]}", cases, is_sample=True)


def new_version(
    settings: Settings,
    *,
    validation_rows: Iterable[Row],
    tools: Sequence[dict[str, Any]],
    recall_facts: Sequence[RecallFact] = (),
) -> FrozenSuite:
    """Freeze the user's next version on purpose; results of different versions are not compared.

    Rows of sample and generated sessions are left out: what they judge must never ship.

    Raises:
        UsageError: The rows do not fill A and B.
    """
    cases = cases_of_rows([row for row in validation_rows if not row.meta.synthetic], tools)
    if not is_filled(cases):
        counts = {suite: sum(case.suite == suite for case in cases) for suite in ("A", "B")}
        raise UsageError(
            f"A suite version needs {SUITE_SIZES['A']} cases of A and {SUITE_SIZES['B']} of B, half of them conclusions; "
            f"the validation rows of your own sessions give {counts['A']} and {counts['B']}. Add sessions, or raise "
            "dataset.validation_family_ratio."
        )
    latest = max((int(version) for version in list_versions(settings) if version.isdigit()), default=0)
    return _write(settings, str(latest + 1), [*cases, *_written_cases(tools, recall_facts)], is_sample=False)


def load_suite(settings: Settings, version_or_sha: str | None = None) -> FrozenSuite:
    """Return a frozen suite by version, by hash or a beginning of it (6 digits or more), or the one in use.

    Raises:
        MissingInputError: There is no such version.
        EvaluationError: Its cases changed since they were frozen.
    """
    if version_or_sha is None:
        version_or_sha = _current_version(settings) or _sample_version(settings)
    for version in list_versions(settings):
        if version == version_or_sha:
            return _read(_folder(settings) / version)
    for version in list_versions(settings):
        suite = _read(_folder(settings) / version)
        if version_or_sha and len(version_or_sha) >= 6 and suite.sha256.startswith(version_or_sha):
            return suite
    raise MissingInputError(
        f"There is no frozen suite {version_or_sha!r} in {_folder(settings)}; there are {list_versions(settings)}. "
        "Materialise v2_chat_dataset, which freezes one, or run `toolcall-pipeline suite freeze`."
    )


def list_versions(settings: Settings) -> list[str]:
    """Return the versions there are, oldest first."""
    folder = _folder(settings)
    found = [entry for entry in folder.iterdir() if (entry / "suite.json").is_file()] if folder.is_dir() else []
    return [entry.name for entry in sorted(found, key=lambda entry: (len(entry.name), entry.name))]


def retire_families(settings: Settings, suite: FrozenSuite, families: Collection[str]) -> FrozenSuite:
    """Leave out, for all models and for good, the cases of families that were trained on."""
    trained = {
        case.case_id: f"family {case.source['family_id']} was trained on"
        for case in suite.cases
        if case.source.get("family_id") in families
    }
    if not trained:
        return suite
    record = SuiteRecord.model_validate_json((suite.directory / "suite.json").read_bytes())
    record = record.model_copy(update={"retired": {**record.retired, **trained}})
    write_atomically(suite.directory / "suite.json", record.model_dump_json(indent=2) + "\n")
    return _read(suite.directory)


def parity_prompts(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Return cases as messages and tools, for the template parity gate."""
    return [
        {"id": f"{case.suite}/{case.case_id}", "messages": list(case.messages), "tools": list(case.tools)}
        for case in cases
    ]


def _written_cases(tools: Sequence[dict[str, Any]], facts: Sequence[RecallFact]) -> list[Case]:
    return [
        *agentic_cases(tools, SUITE_SIZES["C"]),
        *single_turn_cases(tools, SUITE_SIZES["D"]),
        *recall_cases(facts, SUITE_SIZES["E"]),
        *vague_cases(tools, SUITE_SIZES["V"]),
    ]


def _filled_up(own: list[Case], others: list[Case]) -> list[Case]:
    """Return the sample dataset's own cases, with generated ones where a suite or half has too few."""
    result: list[Case] = []
    for suite, stratum, size in (("A", None, SUITE_SIZES["A"]), ("B", "call", B_HALF), ("B", "conclude", B_HALF)):
        mine, more = (
            [case for case in cases if case.suite == suite and stratum in (None, case.stratum)]
            for cases in (own, others)
        )
        result.extend([*mine, *more[: max(0, size - len(mine))]])
    return result


def _write(settings: Settings, version: str, cases: Sequence[Case], *, is_sample: bool) -> FrozenSuite:
    directory = _folder(settings) / version
    if not (directory / "suite.json").is_file():
        text = "".join(case.model_dump_json() + "\n" for case in cases)
        write_atomically(directory / "cases.jsonl", text)
        record = SuiteRecord(
            version=version, is_sample=is_sample, cases_sha256=sha256_text(text), created_at=datetime.now(UTC)
        )
        write_atomically(directory / "suite.json", record.model_dump_json(indent=2) + "\n")
    write_atomically(_folder(settings) / ("current-sample" if is_sample else "current"), version + "\n")
    return _read(directory)


def _read(directory: Path) -> FrozenSuite:
    record = SuiteRecord.model_validate_json((directory / "suite.json").read_bytes())
    text = (directory / "cases.jsonl").read_text(encoding="utf-8")
    if sha256_text(text) != record.cases_sha256:
        raise EvaluationError(
            f"{directory / 'cases.jsonl'} changed since it was frozen: expected SHA-256 {record.cases_sha256}, found "
            f"{sha256_text(text)}. Restore it from a backup, or freeze a new version with `suite freeze`."
        )
    cases = [Case.model_validate(json.loads(line)) for line in text.splitlines()]
    kept = tuple(case for case in cases if case.case_id not in record.retired)
    return FrozenSuite(record.version, _digest(kept), record.is_sample, kept, dict(record.retired), directory)


def _digest(cases: Sequence[Case]) -> str:
    return sha256_text("\n".join(canonical_json(case.model_dump(mode="json")) for case in cases))


def _folder(settings: Settings) -> Path:
    return settings.home_dir / "suites"


def _current_version(settings: Settings) -> str | None:
    return _pointer(_folder(settings) / "current")


def _sample_version(settings: Settings) -> str | None:
    return _pointer(_folder(settings) / "current-sample")


def _pointer(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None

"""Suite E: what the model should know of the user's projects, asked with an answer key from the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolcall_pipeline.dataset.templates import DEFAULT_SYSTEM_PROMPT
from toolcall_pipeline.evaluation.cases import Case


@dataclass(frozen=True, slots=True)
class RecallFact:
    """A question about a project, and what answers it.

    Attributes:
        project: Identity of the project; questions about one project are one cluster.
        kind: Such as `remote`, `test_command`.
        question: As it is asked; never contains an answer.
        answers: Terms that answer it.
        partial: Terms that show some knowledge.
        distractors: Answers of the same question about other projects.
    """

    project: str
    kind: str
    question: str
    answers: tuple[str, ...]
    partial: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()


def recall_cases(facts: Sequence[RecallFact], count: int) -> list[Case]:
    """Return up to `count` cases; no tools are offered."""
    return [
        Case(
            suite="E",
            case_id=f"E-{fact.kind}-{number:03d}",
            cluster_id=f"E-{fact.project}",
            stratum=fact.kind,
            messages=(
                {"role": "system", "content": DEFAULT_SYSTEM_PROMPT},
                {"role": "user", "content": fact.question},
            ),
            expected={
                "answers": list(fact.answers),
                "partial": list(fact.partial),
                "distractors": list(fact.distractors),
            },
        )
        for number, fact in enumerate(facts[:count])
    ]

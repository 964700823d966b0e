"""What the dataset asks of the evaluation suites, so that neither room imports the other backwards.

The suites are frozen from the validation rows; their prompts then clean the training rows. The chain passes what is
here to `build_dataset`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolcall_pipeline.dataset.rows import Row


@dataclass(frozen=True)
class ChatCase:
    """A suite prompt as a chat template takes it."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class SuiteForDataset:
    """A frozen suite as far as the dataset needs it.

    Attributes:
        version, sha256: Identity of the frozen suite.
        prompts: Suite id to the typed prompts of its cases; training rows that share a 13-gram with one are left out.
        cases: Every prompt as chat messages and tools, for the template parity.
    """

    version: str
    sha256: str
    prompts: Mapping[str, Sequence[str]]
    cases: Sequence[ChatCase] = ()


FreezeSuite = Callable[[Iterable[Row], list[dict[str, Any]]], SuiteForDataset]
FillsSuites = Callable[[Iterable[Row], list[dict[str, Any]]], bool]


@dataclass(frozen=True)
class Suites:
    """What the dataset asks of the evaluation room; both functions take the validation rows and all tool schemas.

    Attributes:
        freeze: Gives the frozen suite, the existing one where there is one.
        fills: Tells whether suites A and B can be filled from the rows; None where nothing is to be frozen from them.
        asked_sessions: Sessions that a frozen suite asks about: they never train.
    """

    freeze: FreezeSuite
    fills: FillsSuites | None = None
    asked_sessions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ValidationNeeds:
    """How many validation turns the suites need, at the least.

    Attributes:
        call_turns: Supervised turns with calls (suite A and the calling half of B).
        conclusions: Supervised final texts after a tool result (the concluding half of B).
    """

    call_turns: int
    conclusions: int

    def raised(self) -> ValidationNeeds:
        """Return a quarter more of each: equal turns and texts without a fact of the result make no case."""
        return ValidationNeeds(math.ceil(self.call_turns * 1.25), math.ceil(self.conclusions * 1.25))

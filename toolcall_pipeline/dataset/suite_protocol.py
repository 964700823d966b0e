"""What the dataset asks of the evaluation suites, so that neither room imports the other backwards.

The suites are frozen from the validation rows; their prompts then clean the training rows. The evaluation room passes
a `FreezeSuite` to `build_dataset`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
        retired_families: Families whose cases are left out because they once trained.
    """

    version: str
    sha256: str
    prompts: Mapping[str, Sequence[str]]
    cases: Sequence[ChatCase] = ()
    retired_families: Sequence[str] = field(default_factory=tuple)


FreezeSuite = Callable[[Sequence[Row], list[dict[str, Any]]], SuiteForDataset]
"""Called with the validation rows and all tool schemas; gives the frozen suite, the existing one where there is one."""


@dataclass(frozen=True)
class ValidationNeeds:
    """How many validation turns the suites need, at the least.

    Attributes:
        call_turns: Supervised turns with calls (suite A and the calling half of B).
        conclusions: Supervised final texts after a tool result (the concluding half of B).
    """

    call_turns: int
    conclusions: int

"""What the runner asks of a backend, and what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from toolcall_pipeline.evaluation.cases import ModelIdentity


@dataclass(frozen=True, slots=True)
class Request:
    """One completion asked for.

    Attributes:
        messages, tools: As a chat template takes them.
        seed, temperature: 0 is greedy.
        max_new_tokens: Generation is cut there, and says so.
        grammar: Constrain the completion to the tools' schemas (a second, separate run; never repair).
        suite, case_id, turn_index: Who asks; only the scripted backend looks.
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    seed: int
    temperature: float
    max_new_tokens: int
    grammar: bool = False
    suite: str = ""
    case_id: str = ""
    turn_index: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """One raw completion, what stood before the end of turn, special tokens that are not the end included.

    Attributes:
        error: Why there is no completion (the prompt does not fit the context, no script for the case); else None.
    """

    raw: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    hit_token_limit: bool = False
    error: str | None = None


class Backend(Protocol):
    """A model that answers. `width` says how many requests `generate_batch` takes at a time with gain."""

    width: int

    @property
    def identity(self) -> ModelIdentity:
        """Return which model answers."""
        ...

    def generate_batch(self, requests: Sequence[Request]) -> list[Generation]:
        """Return one generation per request, in order."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...

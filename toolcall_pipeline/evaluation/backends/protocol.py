"""What the runner asks of a backend, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


RequestSource = Callable[[], tuple[int, Request] | None]
"""Gives the next request with a number of the caller's; None where none is waiting now.

Another may be waiting once a generation was handed back: the next turn of that conversation.
"""


class Backend(Protocol):
    """A model that answers."""

    @property
    def identity(self) -> ModelIdentity:
        """Return which model answers."""
        ...

    def generate(self, take: RequestSource) -> Iterator[tuple[int, Generation]]:
        """Take requests whenever there is room for one; yield each generation with its number as it ends, in any order.

        Ends when nothing is waiting and everything that was taken has been yielded.

        Raises:
            EvaluationError: The backend failed as a whole.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


def generate_all(backend: Backend, requests: Sequence[Request]) -> list[Generation]:
    """Return the generations of requests that are all known from the start, in their order."""
    waiting = iter(enumerate(requests))
    found = dict(backend.generate(lambda: next(waiting, None)))
    return [found[index] for index in range(len(requests))]

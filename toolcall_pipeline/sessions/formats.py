"""The agent formats this project reads: a third one is a module beside these two and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from toolcall_pipeline.sessions import claude_code, codex
from toolcall_pipeline.sessions.events import Event, GraphNode, MalformedLine
from toolcall_pipeline.sessions.lines import RawLine

OTHER_FORMAT = "other"
UNREADABLE = "unreadable"


class LineParser(Protocol):
    """What a format's module provides: the state of reading one file."""

    def parse(self, line: RawLine) -> list[GraphNode | Event | MalformedLine]:
        """Return the records of a line; never raises on content."""

    def state(self) -> dict[str, Any]:
        """Return what reading on later needs, as JSON without any text."""


@dataclass(frozen=True)
class SessionFormat:
    """One agent's format.

    Attributes:
        name: As it stands in the lock and the store.
        looks_like: Whether a JSON object is a line of it.
        parser: Makes the parser of one file from its relative path, what locations call it, the state a former night left,
            and a way to read a line again by its byte offset.
    """

    name: str
    looks_like: Callable[[dict[str, Any]], bool]
    parser: Callable[[str, str, Mapping[str, Any], Callable[[int], bytes]], LineParser]


FORMATS: dict[str, SessionFormat] = {
    module.NAME: SessionFormat(module.NAME, module.looks_like, module.Parser) for module in (claude_code, codex)
}

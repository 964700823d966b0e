"""Identities of events: the agent's own id where it has one, position only where it has none."""

from __future__ import annotations

import re

# Providers' own call ids carry a score of random characters; proxies and test fixtures count (`call_1`, `tool_0`), and
# such an id means something inside its session only.
_GLOBALLY_UNIQUE = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_:.-]{20,}")


def call_event_id(tool_use_id: str, session_id: str) -> str:
    """Return the identity of a call: its own id, made unique by the session where the id is a mere counter."""
    return tool_use_id if is_globally_unique(tool_use_id) else f"{session_id}:{tool_use_id}"


def is_globally_unique(provider_id: str) -> bool:
    """Tell whether an id of a call or a message is the provider's own and means the same everywhere."""
    return _GLOBALLY_UNIQUE.fullmatch(provider_id) is not None


def result_event_id(call_id: str) -> str:
    """Return the identity of the result of a call, given the call's event id."""
    return f"{call_id}:result"


def positional_id(session_id: str, line: int, ordinal: int = 0) -> str:
    """Return the identity of something its agent gave none: the session, the line, and the object on the line."""
    return f"{session_id}@{line}" + (f".{ordinal}" if ordinal else "")

"""The form a redacted secret takes: `[REDACTED:kind:tag]`.

The tag is keyed by the session, so the same secret has the same placeholder wherever and whenever a session is read,
without any state that could be lost between two nights, and nothing can be correlated across sessions. It is 16 bits
short on purpose: enough to tell the secrets of one session apart, too little to confirm a guessed password, and below
the length at which any scanner takes it for a secret itself.
"""

from __future__ import annotations

import hashlib
import re

PLACEHOLDER = re.compile(r"\[REDACTED:[a-z0-9_]{1,48}:[0-9a-f]{4}\]")
PLACEHOLDER_BYTES = re.compile(PLACEHOLDER.pattern.encode())

_KIND_CHARACTERS = re.compile(r"[^a-z0-9]+")
_MAX_KIND_CHARACTERS = 48


def kind_of_rule(rule_id: str) -> str:
    """Return the kind a rule's findings are typed with: its id without the catalogue's name, in lower snake case."""
    name = rule_id.partition(".")[2] or rule_id
    return _KIND_CHARACTERS.sub("_", name.lower()).strip("_")[:_MAX_KIND_CHARACTERS].rstrip("_") or "secret"


def make_placeholder(kind: str, secret: bytes, session_key: str, salt: str = "") -> bytes:
    """Return the placeholder of a secret in a session.

    Args:
        kind: Lower snake case, see `kind_of_rule`.
        secret: The bytes that are replaced.
        session_key: The session (or family of sessions) in which equal secrets must look equal.
        salt: From the user's `redaction.toml`; sets the tags of two installations apart.
    """
    key = hashlib.blake2b(f"{salt}\0{session_key}".encode("utf-8", "surrogatepass"), digest_size=32).digest()
    tag = hashlib.blake2b(secret, key=key, digest_size=2).hexdigest()
    return f"[REDACTED:{kind}:{tag}]".encode()


def count_placeholders(text: str) -> int:
    """Return how many placeholders a text holds."""
    return sum(1 for _ in PLACEHOLDER.finditer(text))

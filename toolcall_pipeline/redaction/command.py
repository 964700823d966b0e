"""The command `redact`: a stream in, the same stream without secrets out."""

from __future__ import annotations

from typing import IO, Any

from toolcall_pipeline.redaction.redactor import Redactor

# A private key that has begun is waited for within this.
PIECE_BYTES = 1 << 20


def redact_stream(
    source: IO[bytes], sink: IO[bytes], *, redactor: Redactor, session_key: str = "stdin"
) -> dict[str, Any]:
    """Copy a stream without secrets, a piece of whole lines at a time.

    A secret that spans lines (a private key) is found as long as it ends within the same piece: pieces are cut at an
    empty line where there is one, else at a line's end, and a private key that has begun is waited for. Memory stays at
    a piece: a line over 16 MB is cut between its values.

    Args:
        source: UTF-8 text; other bytes pass as they are.
        sink: Where the result goes.
        redactor: Says what is replaced.
        session_key: Within which equal secrets get equal placeholders.

    Returns:
        `{"bytes": read, "replacements": {rule: count}}`.

    Raises:
        RedactionError: The scanner failed; what was written so far is whole and redacted, the rest is missing.
    """
    redactor.reset_report()
    pending = b""
    total = 0
    while piece := source.read(PIECE_BYTES):
        total += len(piece)
        pending += piece
        cut = _cut(pending)
        if cut:
            _write(sink, pending[:cut], redactor, session_key)
            pending = pending[cut:]
    if pending:
        _write(sink, pending, redactor, session_key)
    sink.flush()
    return {"bytes": total, "replacements": redactor.report()}


# A line longer than this is cut where one of these ends, the last of them first of all.
_MAX_LINE_BYTES = 16 << 20
_WITHIN_LINE = (b"\\n", b'",', b"}", b" ", b"\0")


def _cut(pending: bytes) -> int:
    """Return where a piece may end: never inside a private key or a line; 0 where nothing may be written yet."""
    if len(pending) < PIECE_BYTES:
        return 0
    end = len(pending)
    opened = pending.rfind(b"-----BEGIN ")
    if opened >= 0 and pending.find(b"-----END ", opened) < 0 and end - opened < PIECE_BYTES:
        end = opened
    for separator in (b"\n\n", b"\n"):
        position = pending.rfind(separator, 0, end)
        if position > 0:
            return position + len(separator)
    if len(pending) < _MAX_LINE_BYTES:
        return 0
    ends = (pending.rfind(separator, 0, end) + len(separator) for separator in _WITHIN_LINE)
    return next((position for position in ends if position > PIECE_BYTES), end)


def _write(sink: IO[bytes], data: bytes, redactor: Redactor, session_key: str) -> None:
    # Bytes that are no UTF-8 are carried through as lone surrogates and come out as they went in.
    text = data.decode("utf-8", "surrogateescape")
    sink.write(redactor.redact_text(text, session_key).encode("utf-8", "surrogateescape"))

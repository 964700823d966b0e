"""The form of a `backfill_run_id`: the one place that parses and makes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from toolcall_pipeline.errors import PartitionKeyError

ACCEPTED_FORM = "20261123T020000Z-nightly (UTC time, then a lower-case label; the bare 20261123T020000Z is accepted)"
_PATTERN = re.compile(r"(?P<time>\d{8}T\d{6}Z)(?:-(?P<label>[a-z0-9][a-z0-9-]{0,62}))?", re.ASCII)


def parse_partition_key(key: str) -> tuple[datetime, str | None]:
    """Split a partition key into its UTC time and its label.

    Args:
        key: Such as `20261123T020000Z-nightly`.

    Returns:
        The time (aware, UTC) and the label, or None where the key is the bare time.

    Raises:
        PartitionKeyError: The key has another form, or names a time that does not exist.
    """
    match = _PATTERN.fullmatch(key)
    if match is None:
        raise PartitionKeyError(f"Partition key {key!r} is not a backfill_run_id. Expected {ACCEPTED_FORM}.")
    try:
        time = datetime.strptime(match["time"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise PartitionKeyError(
            f"Partition key {key!r} names a time that does not exist ({error}). Expected {ACCEPTED_FORM}."
        ) from error
    return time, match["label"]


def make_partition_key(time: datetime, label: str | None = None) -> str:
    """Return the partition key of an aware time and a label.

    Raises:
        PartitionKeyError: The time is naive, or the label is not lower-case letters, digits and dashes.
    """
    if time.tzinfo is None:
        raise PartitionKeyError(f"Time {time.isoformat()} has no time zone. Expected an aware datetime.")
    key = time.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ") + (f"-{label}" if label else "")
    parse_partition_key(key)
    return key

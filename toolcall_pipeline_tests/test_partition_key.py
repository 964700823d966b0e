"""Partition keys: what is accepted, what is refused, and that making and parsing agree."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolcall_pipeline.errors import PartitionKeyError
from toolcall_pipeline.partition_key import make_partition_key, parse_partition_key


@pytest.mark.parametrize(
    "key, time, label",
    [
        ("20261123T020000Z-nightly", datetime(2026, 11, 23, 2, tzinfo=UTC), "nightly"),
        ("20260514T043555Z", datetime(2026, 5, 14, 4, 35, 55, tzinfo=UTC), None),  # the source design's bare form
        ("20260101T000000Z-a-b-2", datetime(2026, 1, 1, tzinfo=UTC), "a-b-2"),
    ],
)
def test_accepted_keys_give_their_time_and_label(key: str, time: datetime, label: str | None) -> None:
    assert parse_partition_key(key) == (time, label)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "2026-11-23",
        "20261123T020000Z-",
        "20261123T020000Z-Nightly",  # upper case
        "20261123T020000Z-a,b",  # commas break Dagster's partition ranges
        "20261123T020000Z-a b",
        "20261123T020000Z\n",  # a regular expression's $ would let this through
        "20261323T020000Z-nightly",  # month 13
        "20261123T250000Z",
        "../20261123T020000Z",
        "２０２６1123T020000Z",  # full-width digits are digits to \d
        "20261123T020000Z-" + "x" * 64,
    ],
)
def test_anything_else_is_refused_with_the_accepted_form(key: str) -> None:
    with pytest.raises(PartitionKeyError, match="20261123T020000Z-nightly"):
        parse_partition_key(key)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)), st.integers(-12, 12))  # noqa: DTZ001
def test_a_made_key_parses_back_to_the_same_second(naive: datetime, hours: int) -> None:
    time = naive.replace(tzinfo=timezone(timedelta(hours=hours)), microsecond=0)
    assert parse_partition_key(make_partition_key(time, "x"))[0] == time


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(PartitionKeyError, match="no time zone"):
        make_partition_key(datetime(2026, 1, 1))  # noqa: DTZ001


@given(st.text(max_size=40))
def test_no_text_raises_anything_but_a_partition_key_error(key: str) -> None:
    try:
        time, label = parse_partition_key(key)
    except PartitionKeyError:
        return
    assert make_partition_key(time, label) == key

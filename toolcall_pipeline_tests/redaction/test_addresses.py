"""E-mail addresses: what is one, where it begins and ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolcall_pipeline.redaction import Redactor
from toolcall_pipeline.redaction.addresses import address_spans

ADDRESSES = [
    ("write to anna.b@firm.dev.", ["anna.b@firm.dev"]),
    ("<anna+x@mail.firm.co.uk>,bob@firm.dev", ["anna+x@mail.firm.co.uk", "bob@firm.dev"]),
    ("mailto:anna%40x@firm.dev?subject=a", ["anna%40x@firm.dev"]),
    ("给anna@firm.dev，谢谢", ["anna@firm.dev"]),
    ("邮箱anna@firm.dev的主人", ["anna@firm.dev"]),
    ("a@b@firm.dev", ["b@firm.dev"]),
    ("x" * 80 + "@firm.dev", ["x" * 64 + "@firm.dev"]),
    ("Author: Anna <anna@firm.dev>\nDate", ["anna@firm.dev"]),
]
NO_ADDRESSES = [
    "@media.screen", "npm i react@18.2.0", "logo@2x.png", "git@github.com:org/repo", "user@example.localhost", "a@b", "@firm.dev",
    "noreply@firm.dev", "anna@firm.dev@", "@pytest.fixture", "import x@^1.2.js", "anna@firm.dev(x)", "@@ -1,3 +1,4 @@",
]  # fmt: skip


def found(text: str) -> list[str]:
    data = text.encode()
    return [data[start:end].decode() for start, end in address_spans(data)]


@pytest.mark.parametrize(("text", "expected"), ADDRESSES)
def test_an_address_is_found_whole(text: str, expected: list[str]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_only_looks_like_an_address_stays(text: str) -> None:
    assert found(text) == []
    assert Redactor().redact_text(text, "s") == text


@given(
    st.lists(st.sampled_from(["anna", "@", ".", "firm", "dev", " ", "é", "\n", "(", "_", "-", "1"]), max_size=30).map(
        "".join
    )
)
def test_spans_are_in_order_and_lie_apart(text: str) -> None:
    data = text.encode()
    position = 0
    for start, end in address_spans(data):
        assert position <= start < end <= len(data)
        assert data[start:end].count(b"@") == 1
        position = end


@pytest.mark.parametrize(
    "text", ["x@" + "a." * 200_000, "x@" + "a-" * 200_000, "@a." * 100_000, "@" * 200_000, "x@1" * 100_000]
)
def test_what_is_no_address_ends_however_long_it_is(text: str) -> None:
    assert found(text) == []

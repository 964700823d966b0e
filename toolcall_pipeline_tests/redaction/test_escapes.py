"""Escaped texts: read for what they say, and still valid JSON after a secret is gone from them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall_pipeline.redaction import PLACEHOLDER, Redactor
from toolcall_pipeline.redaction.escapes import Unescaped
from toolcall_pipeline_tests.redaction.held_out import planted
from toolcall_pipeline_tests.redaction.test_families import fragments_left

PLANTED = planted(2)
pieces = st.sampled_from(
    [
        rb"\n",
        rb"\\n",
        rb"\\\"",
        rb"\"",
        rb"\/",
        rb"\u0026",
        rb"\q",
        b"\x1b[01;31m",
        b"\x1b",
        rb"\\u001b[0m",
        b"&quot;",
        b"&#39;",
        b"&",
        b"%22",
        b"%20",
        b"\\",
        b"a",
        b"xyz",
        "é".encode(),
    ]
)


@given(st.lists(pieces, max_size=30).map(b"".join))
def test_every_byte_of_an_unescaped_text_is_found_where_it_came_from(data: bytes) -> None:
    read = Unescaped(data)
    origins = [read.origin(place) for place in range(len(read.text) + 1)]
    assert origins[0] == 0
    assert origins[-1] == len(data)
    assert origins == sorted(set(origins))
    for place, byte in enumerate(read.text):
        came_from = data[origins[place] : origins[place + 1]]
        assert came_from == bytes((byte,)) or (came_from[:1] in b"\\\x1b&%" and Unescaped(came_from).text[0] == byte)


_KEY = "kXOs91yH4hZ2uSjEZMACwxDWUA5z6GXx"


@pytest.mark.parametrize(
    "text",
    [
        f"password=&quot;{_KEY}&quot;",
        f"&lt;password&gt;{_KEY}&lt;/password&gt;",
        f"{{&#34;api_key&#34;: &#34;{_KEY}&#34;}}",
        f"/login?p=%7B%22password%22%3A%22{_KEY}%22%7D&x=1",
        f"GET /?q=%7b%22a%22%3a1%2c%22api_key%22%3a%22{_KEY}%22%7d",
    ],
)
def test_pages_and_addresses_hide_no_secret(text: str) -> None:
    redacted = Redactor().redact_text(text, "s")
    before, after = text.split(_KEY)
    placeholder = PLACEHOLDER.search(redacted)
    assert placeholder, redacted
    assert (redacted[: placeholder.start()], redacted[placeholder.end() :]) == (before, after)
    assert Redactor().redact_text(redacted, "s") == redacted


@pytest.mark.parametrize(
    "text", ["see https://e.org/?q=a%20key%3Avalue%22x%22", "if (a &lt; b &amp;&amp; c &gt; d) {", "100%25"]
)
def test_pages_and_addresses_without_a_secret_stay(text: str) -> None:
    assert Redactor().redact_text(text, "s") == text


@pytest.mark.parametrize("escape", ["\x1b", r"\u001b", r"\\u001B"])
def test_colours_hide_no_secret(escape: str) -> None:
    secret = "kXOs91yH4hZ2uSjEZMACwxDWUA5z6GXx"
    text = f"{escape}[32mAPI_KEY{escape}[0m={escape}[1;33m{secret}{escape}[0m\n{escape}[2Kdone"
    redacted = Redactor().redact_text(text, "s")
    assert not fragments_left(secret, redacted)
    placeholder = PLACEHOLDER.search(redacted)
    assert text.startswith(redacted[: placeholder.start()])
    assert text.endswith(redacted[placeholder.end() :])
    assert Redactor().redact_text(redacted, "s") == redacted


def _skeleton(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _skeleton(item) for key, item in value.items()}
    return [_skeleton(item) for item in value] if isinstance(value, list) else type(value).__name__


@given(
    st.lists(st.sampled_from(PLANTED), min_size=1, max_size=4),
    st.sampled_from(["\n", "\t", '"', " ", "\\", "/", "é", "\r\n"]),
    st.integers(1, 3),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_json_in_json_stays_json_and_keeps_its_keys(items: list[Any], before: str, depth: int, is_ascii: bool) -> None:
    value = {f"field{n}": [before + item.text, {"n": n}] for n, item in enumerate(items)}
    text = json.dumps(value, ensure_ascii=is_ascii)
    for _ in range(depth - 1):
        text = json.dumps({"body": text, "ok": True}, ensure_ascii=is_ascii)
    after: Any = Redactor().redact_text(text, "s")
    assert Redactor().redact_text(after, "s") == after
    for _ in range(depth - 1):
        after = json.loads(after)["body"]
    assert _skeleton(json.loads(after)) == _skeleton(value)


def test_an_escaped_letter_before_a_secret_is_no_part_of_it() -> None:
    secret = next(item.secret for item in PLANTED if item.kind == "supabase" and item.secret.startswith("sb_secret_"))
    text = json.dumps({"a": f"é{secret}"})
    assert json.loads(Redactor().redact_text(text, "s"))["a"].startswith("é[REDACTED:")


def test_a_secret_is_found_however_often_it_is_escaped() -> None:
    redactor = Redactor()
    missed: dict[int, list[str]] = {1: [], 2: [], 3: []}
    for item in PLANTED:
        if not item.secret.isprintable() or "\\" in item.secret:  # a key's own line ends are escaped with it
            continue
        text = item.text
        for depth in missed:
            text = json.dumps({"output": "line\n" + text, "code": 0})
            if fragments_left(item.secret, redactor.redact_text(text, "s")):
                missed[depth].append(item.text)
    for texts in missed.values():
        assert len(texts) <= 0.05 * len(PLANTED), texts


def test_a_line_with_a_hundred_secrets_is_settled() -> None:
    secrets = [item.secret for item in PLANTED if item.kind in {"github", "SESSION_SECRET", "SMTP_PASSWORD"}] * 6
    for joint in ("password={}&", "Cookie: sid={}; ", "token: '{}', ", "https://u:{}@h/ ", "curl -u a:{} http://x "):
        text = "".join(joint.format(f"{number}{secret}") for number, secret in enumerate(secrets))
        after = Redactor().redact_text(text, "s")
        assert not any(secret in after for secret in secrets)

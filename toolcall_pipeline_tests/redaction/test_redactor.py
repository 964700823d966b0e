"""The redactor: many strings give what each gives alone, twice changes nothing, and nothing passes a failed scanner."""

from __future__ import annotations

import copy
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolcall_pipeline.errors import RedactionError
from toolcall_pipeline.redaction import PLACEHOLDER, RedactionOptions, Redactor, count_placeholders, scanner
from toolcall_pipeline_tests.redaction.secrets import FAMILIES, sample

TOKEN = sample("github_classic", 0)[1]
SEPARATOR = "\n\x1e\n\n\x1e\n"

planted = st.builds(
    lambda family, seed, before, after: before + sample(family, seed)[0] + after,
    st.sampled_from(sorted(FAMILIES)),
    st.integers(0, 50),
    st.text(max_size=30),
    st.text(max_size=30),
)
cut = st.builds(lambda text, at: text[: at % (len(text) + 1)], planted, st.integers(0, 4000))
pieces = st.sampled_from(
    [
        "password = ",
        "token: '",
        "api_key=",
        "aws_secret_access_key = ",
        "-----BEGIN RSA PRIVATE KEY-----",
        "Bearer ",
        sample("aws_key_id", 0)[1],
        "https://user:",
        "@host.example.org",
        SEPARATOR,
        "\0",
        "\ud800",
        "/Users/anna/",
        "-home-bo-x",
        "client_id=",
        "kind: Secret\ndata:\n  a: ",
        "[REDACTED:secret:12ab]",
        "anna@firm.dev",
        "\\n",
        '"',
        "é" * 9,
        "user,password\n",
        "anna,k9Falcon77,x",
        "|",
    ]
)
texts = st.one_of(st.text(max_size=80), planted, cut, pieces, st.lists(pieces, max_size=6).map("".join))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(st.lists(texts, max_size=12))
@quick
def test_many_strings_give_what_each_gives_alone(values: list[str]) -> None:
    redactor = Redactor()
    assert redactor.redact_texts(values, "s") == [redactor.redact_text(value, "s") for value in values]


@given(texts)
@quick
def test_a_second_pass_changes_nothing(value: str) -> None:
    redactor = Redactor()
    once = redactor.redact_text(value, "s")
    assert redactor.redact_text(once, "s") == once


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["password", "token", "a", "secret key", "é", "x" * 90, "/Users/eve/token"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=4))
@quick
def test_json_keeps_its_keys_and_numbers_and_the_input_is_not_changed(values: list[Any]) -> None:
    redactor = Redactor()
    before = copy.deepcopy(values)
    redacted = redactor.redact_jsons(values, "s")
    assert values == before
    assert redacted == [redactor.redact_json(value, "s") for value in values]
    assert redactor.redact_jsons(redacted, "s") == redacted
    assert [_skeleton(value) for value in redacted] == [_skeleton(value) for value in values]


def _skeleton(value: Any) -> Any:
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return {key: _skeleton(item) for key, item in value.items()}
    return [_skeleton(item) for item in value] if isinstance(value, list) else value


def test_a_block_of_a_whole_session_gives_what_each_string_gives_alone() -> None:
    values = [sample(family, seed)[0] for seed in range(3) for family in FAMILIES]
    values += ["filler " * (n % 900) for n in range(600)]
    redactor = Redactor()
    assert redactor.redact_texts(values, "s") == [redactor.redact_text(value, "s") for value in values]


def test_the_key_a_value_stands_under_is_read_with_it() -> None:
    secret = "Zx9" + "kQ2wE7rT4y"
    assert Redactor().redact_json({"name": secret, "password": secret}, "s")["password"] != secret
    assert Redactor().redact_json({"name": "plain", "tokens": "plain"}, "s") == {"name": "plain", "tokens": "plain"}


def test_the_same_secret_has_the_same_placeholder_within_a_session_and_another_in_another() -> None:
    redactor = Redactor()
    first, second = redactor.redact_texts([f"a {TOKEN} b", f'{{"x": "{TOKEN}"}}'], "one")
    other = redactor.redact_text(TOKEN, "two")
    tags = [PLACEHOLDER.findall(text) for text in (first, second, other)]
    assert tags[0] == tags[1]
    assert tags[0] != tags[2]
    assert Redactor().redact_text(TOKEN, "one") == tags[0][0]
    assert Redactor(RedactionOptions(placeholder_salt="x")).redact_text(TOKEN, "one") != tags[0][0]


def test_a_secret_that_stands_again_without_its_context_is_replaced_there_too() -> None:
    secret = sample("env_assignment", 3)[1]
    redacted = Redactor().redact_text(f"client_secret = '{secret}'\nprint({secret})", "s")
    assert secret not in redacted
    assert count_placeholders(redacted) == 2


def test_the_report_counts_replacements_by_rule() -> None:
    redactor = Redactor()
    redactor.redact_texts([TOKEN, f"{TOKEN} and /home/anna/x", "nothing"], "s")
    report = redactor.reset_report()
    assert report["home_path"] == 1
    assert report["betterleaks.github-pat"] == 2
    assert redactor.report() == {}


class _Broken:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def scan(self, data: bytes) -> list[Any]:
        raise self._error


class _Panic(BaseException):
    """What a native library raises: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError(f"at {TOKEN}"), _Panic(TOKEN), MemoryError(), TimeoutError()])
def test_nothing_passes_a_scanner_that_fails(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "_scanner", lambda: _Broken(error))
    with pytest.raises(RedactionError) as caught:
        Redactor().redact_texts(["harmless", TOKEN], "s")
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_interrupt_stays_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanner, "_scanner", lambda: _Broken(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        Redactor().redact_text("x", "s")


def test_a_text_full_of_nul_bytes_is_scanned_as_it_stands() -> None:
    wide = "\0".join(TOKEN)
    redacted = Redactor().redact_texts([f"{TOKEN}\0{wide}\0{TOKEN}", "\0" * 100 + TOKEN], "s")
    assert all(TOKEN not in text for text in redacted)


def _redact_elsewhere(redactor: Redactor) -> tuple[str, dict[str, int]]:
    return redactor.redact_text(TOKEN, "s"), redactor.report()


def test_it_works_in_a_spawned_process_with_the_same_result() -> None:
    redactor = Redactor(RedactionOptions(strings=("Nightingale",)))
    assert pickle.loads(pickle.dumps(redactor)).options == redactor.options
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        text, report = pool.submit(_redact_elsewhere, redactor).result()
    assert text == redactor.redact_text(TOKEN, "s")
    assert report == {"betterleaks.github-pat": 1}


def test_no_scanner_takes_a_placeholder_for_a_secret() -> None:
    redactor = Redactor()
    for family in FAMILIES:
        redacted = redactor.redact_text(sample(family, 7)[0], "s")
        for placeholder in PLACEHOLDER.findall(redacted):
            for text in (
                placeholder,
                f'password = "{placeholder}"',
                f"https://u:{placeholder}@h/",
                f"Bearer {placeholder}",
            ):
                assert redactor.redact_text(text, "s") == text


BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@pytest.mark.parametrize(
    ("beginning", "alphabet", "length"),
    [
        *((beginning, BASE58, 51) for beginning in ("5H", "5J", "5K")),
        *((beginning, BASE58, 52) for beginning in ("Kw", "Kx", "Ky", "Kz", "L1", "L2", "L3", "L4", "L5")),
        *((beginning, BASE32, 56) for beginning in ("SA", "SB", "SC", "SD")),
    ],
)
def test_a_wallets_key_needs_no_name(beginning: str, alphabet: str, length: int) -> None:
    draw = random.Random(beginning)
    key = beginning + "".join(draw.choice(alphabet) for _ in range(length - len(beginning)))
    assert key not in Redactor().redact_text(f"it printed {key} twice", "s")


@pytest.mark.parametrize("beginning", ["K9", "Lz", "c", "T", "9"])
@pytest.mark.parametrize("text", ["WIF: {}", 'dogecoin-cli importprivkey "{}"', "BTC_KEY={}"])
def test_other_networks_wallet_keys_are_found_near_a_word_for_them(beginning: str, text: str) -> None:
    draw = random.Random(beginning)
    key = beginning + "".join(draw.choice(BASE58) for _ in range(52 - len(beginning)))
    assert key not in Redactor().redact_text(text.format(key), "s")

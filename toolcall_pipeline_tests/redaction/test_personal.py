"""What identifies the user: names in home paths, addresses, private hosts, and what the user lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolcall_pipeline.errors import ConfigurationError
from toolcall_pipeline.redaction import Redactor, load_options
from toolcall_pipeline.redaction.personal import replace_home_names
from toolcall_pipeline.settings import Settings

PATHS = [
    ("/Users/anna/project", "/Users/user/project"),
    ("/home/anna", "/home/user"),
    ("cd /home/anna.b-c_2/x && ls", "cd /home/user/x && ls"),
    ("It is in /Users/anna.", "It is in /Users/user."),
    ("file:///home/anna/x", "file:///home/user/x"),
    ("PATH=/usr/bin:/home/anna/bin", "PATH=/usr/bin:/home/user/bin"),
    ("-v/home/anna:/data", "-v/home/user:/data"),
    (r"C:\Users\anna\x", r"C:\Users\user\x"),
    (r"C:\\Users\\anna\\x", r"C:\\Users\\user\\x"),
    (r"c:\users\anna\x", r"c:\users\user\x"),
    (r"C:\Users\Anna Maria\x", r"C:\Users\user\x"),
    ("C:/Users/anna/x", "C:/Users/user/x"),
    ("/mnt/c/Users/anna/x", "/mnt/c/Users/user/x"),
    ("/c/Users/anna/x", "/c/Users/user/x"),
    (r"\\wsl$\Ubuntu\home\anna\x", r"\\wsl$\Ubuntu\home\user\x"),
    (r"\\wsl.localhost\Ubuntu\home\anna\x", r"\\wsl.localhost\Ubuntu\home\user\x"),
    ("~/.claude/projects/-Users-anna-app/x.jsonl", "~/.claude/projects/-Users-user-app/x.jsonl"),
    ("-home-anna-work-app", "-home-user-work-app"),
    ("C--Users-anna-app", "C--Users-user-app"),
    ("/home/müller/x", "/home/user/x"),
    ('"cwd":"/Users/anna"', '"cwd":"/Users/user"'),
    # what stays
    ("/Users/user/x", "/Users/user/x"),
    ("/Users/Shared/x", "/Users/Shared/x"),
    ("/home/linuxbrew/.linuxbrew/bin", "/home/linuxbrew/.linuxbrew/bin"),
    ("https://example.com/home/about", "https://example.com/home/about"),
    ("src/home/index.tsx", "src/home/index.tsx"),
    ("/home/$USER/x", "/home/$USER/x"),
    ("/Users/<name>/x", "/Users/<name>/x"),
    ("the-home-page", "the-home-page"),
    ("api/Users/42", "api/Users/42"),
]


@pytest.mark.parametrize(("text", "expected"), PATHS)
def test_a_home_path_names_no_one(text: str, expected: str) -> None:
    assert replace_home_names(text)[0] == expected
    assert replace_home_names(expected) == (expected, 0)


@pytest.mark.parametrize(
    ("text", "is_replaced"),
    [
        ("Author: Anna <anna.b@firm.dev>", True),
        ("mail anna+tag@sub.firm.co.uk now", True),
        ("ask jane.doe@example.com", True),
        ("user@example.com", False),
        ("1234+anna@users.noreply.github.com", False),
        ("git@github.com:a/b.git", False),
        ("react@18.2.0", False),
        ("@types/node@20.1.0", False),
        ("logo@2x.png", False),
        ("x@y", False),
    ],
)
def test_addresses_become_placeholders_and_what_looks_like_one_stays(text: str, is_replaced: bool) -> None:
    assert (Redactor().redact_text(text, "s") != text) == is_replaced


@pytest.mark.parametrize(
    ("text", "is_replaced"),
    [
        ("ssh deploy@build7.prod.corp", True),
        ("https://git.team.internal/x", True),
        ("http://host.docker.internal:8080", False),
        ("http://metadata.google.internal/", False),
        ("self.internal.value", False),
    ],
)
def test_hosts_only_a_private_network_knows_become_placeholders(text: str, is_replaced: bool) -> None:
    assert (Redactor().redact_text(text, "s") != text) == is_replaced


def test_what_the_user_lists_is_replaced_wherever_it_stands(tmp_path: Path) -> None:
    (tmp_path / "redaction.toml").write_text(
        'strings = ["Project Nightingale"]\nuser_names = ["jdoe"]\nprivate_hosts = ["firm.dev"]\nemail_addresses = false\n'
    )
    redactor = Redactor(load_options(Settings(home=tmp_path)))
    redacted = redactor.redact_text(
        "project nightingale of jdoe on CI.firm.dev, anna@mail.org; jdoes stays, infirm.dev", "s"
    )
    assert "nightingale" not in redacted.lower()
    assert " of user on " in redacted
    assert "CI.firm.dev" not in redacted
    assert "anna@mail.org; jdoes stays, infirm.dev" in redacted
    assert redactor.redact_text(redacted, "s") == redacted
    assert redactor.fingerprint != Redactor().fingerprint


@pytest.mark.parametrize("content", ["strings = ['x']", "unknown = 1", "no toml", "strings = 'hush-hush'"])
def test_a_file_that_does_not_fit_is_refused_without_repeating_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "redaction.toml").write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        load_options(Settings(home=tmp_path))
    assert "hush" not in str(caught.value)

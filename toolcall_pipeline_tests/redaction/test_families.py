"""Secrets of every family, drawn at random: altered, with nothing of the secret left."""

from __future__ import annotations

import pytest

from toolcall_pipeline.redaction import PLACEHOLDER, Redactor
from toolcall_pipeline_tests.redaction.secrets import FAMILIES, sample

SEEDS = range(12)
FRAGMENT_CHARACTERS = 6


def fragments_left(secret: str, redacted: str) -> list[str]:
    """Give every stretch of six characters of a secret that is still there."""
    shown = PLACEHOLDER.sub("\0", redacted)
    length = min(FRAGMENT_CHARACTERS, len(secret))
    pieces = {secret[at : at + length] for at in range(len(secret) - length + 1)}
    return [piece for piece in sorted(pieces) if piece in shown]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_nothing_of_a_secret_is_left(family: str) -> None:
    samples = [sample(family, seed) for seed in SEEDS]
    redacted = Redactor().redact_texts([text for text, _ in samples], "s")
    missed = [text for (text, secret), after in zip(samples, redacted, strict=True) if fragments_left(secret, after)]
    # One draw in twelve may look like words: these rules judge by what generated values look like.
    assert len(missed) <= 1, missed


HARMLESS = [
    "const apiKey = process.env.OPENAI_API_KEY;",
    "token = tokens[index + 1]",
    "password: string;",
    'password = os.environ["DB_PASSWORD"]',
    "key: keyof typeof config",
    "max_tokens=4096, temperature=0.7",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    '"tool_use_id": "toolu_01A09q90qw90lq917835lq9"',
    '"sessionId": "0b0f6c3e-4c1e-4a4e-9a76-0d8b0b3e8a55"',
    "primaryKey=01HZXK4V9S3Q2M7N8P5R6T1W0Y",
    "auth_url = https://example.com/oauth/authorize",
    "see https://github.com/user/repo/blob/main/src/auth/token_service.py#L120",
    "import { useAuthToken } from '../hooks/useAuthToken2';",
    "<input type='password' name='password' id='password1'>",
    "def test_rejects_expired_token_after_30_minutes():",
    "git@github.com:owner/repository.git",
    "uses: actions/checkout@v4.1.7",
    "npm install react@18.2.0 @types/node@20.11.5",
    'curl -u "$USER:$PASSWORD" https://api.example.com',
    "postgresql://$DB_USER:$DB_PASSWORD@localhost:5432/app",
    "Authorization: Bearer <YOUR_TOKEN>",
    "echo 'deploy-2024' | tee version.txt",
    'echo "$DOCKER_PASSWORD" | docker login --password-stdin',
    "CREATE USER app IDENTIFIED BY '$APP_PASSWORD';",
    "hash the password PBKDF2WithHmacSHA256 or Argon2id",
    "the password field2 validateInput",
    "ssh-keygen -t rsa -b 4096 -N '' -f key",
    "openssl req -x509 -newkey rsa:4096 -keyout key.pem -out cert.pem -nodes",
    "https://user:pass@example.com/path",
    '{"stdout": "pwd=/home/user/projects/app"}',
    "+git@github.com:acme/app.git",
    "src/app.py:1204:def:run:",
    "12:30:4512:worker:started-job",
    "Authorization: Bearer ${{ secrets.GITHUB_TOKEN }}",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAnzyis1ZjfNB0bBgKFMSv\n-----END PUBLIC KEY-----",
    "if '-----BEGIN PRIVATE KEY-----' in text: raise ValueError",
    "/usr/lib/node_modules/npm/lib/auth/session.js:42",
    "claude-opus-4-5-20251101",
    "Traceback: KeyError: 'access_token_v2'",
    "--token-file /run/secrets/token --key-path ./certs/key.pem",
    "curl https://example.com/home/about/team",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_code_and_its_surroundings_stay_as_they_are(text: str) -> None:
    assert Redactor().redact_text(text, "s") == text


@pytest.mark.parametrize("marker", ["kingfisher:ignore", "gitleaks:allow", "pragma: allowlist secret", "noqa", "nosec"])
def test_a_marker_inside_a_session_switches_nothing_off(marker: str) -> None:
    text, secret = sample("github_classic", 1)
    for line in (f"{text}  # {marker}", f"# {marker}\n{text}", f"{text}\n# {marker}-next-line"):
        assert secret not in Redactor().redact_text(line, "s")

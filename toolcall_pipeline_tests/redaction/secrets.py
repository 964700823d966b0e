"""Made-up secrets by family, drawn from a seed: nothing here was ever valid, and no rule was written to one of them."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable

ALNUM = string.ascii_letters + string.digits
BASE64 = ALNUM + "+/"
DASHED = ALNUM + "-_"
HEX = "0123456789abcdef"


def drawn(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


def _jwt(rng: random.Random) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    payload = {"sub": drawn(rng, string.digits, 10), "name": drawn(rng, string.ascii_lowercase, 9), "iat": 1516239022}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(payload)}.{drawn(rng, DASHED, 43)}"


def _pem_body(rng: random.Random) -> str:
    return "\n".join(
        ["MIIE" + drawn(rng, BASE64, 60), *(drawn(rng, BASE64, 64) for _ in range(8)), drawn(rng, BASE64, 40)]
    )


def _azure(rng: random.Random) -> str:
    return drawn(rng, ALNUM, 3) + rng.choice(string.digits) + "Q~" + drawn(rng, ALNUM + "_~.", 33) + rng.choice(ALNUM)


def _password(rng: random.Random) -> str:
    """Letters of both cases and digits, as a generator of passwords gives them."""
    return (
        drawn(rng, string.ascii_uppercase, 1)
        + drawn(rng, ALNUM, 11)
        + drawn(rng, string.digits, 2)
        + drawn(rng, string.ascii_lowercase, 2)
    )


# family -> (text with {s}, how its secret is drawn)
FAMILIES: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "env_assignment": ("export PAYMENT_SERVICE_TOKEN={s}\n", lambda r: drawn(r, ALNUM, 32)),
    "env_quoted": ('INTERNAL_API_KEY="{s}"', lambda r: drawn(r, ALNUM, 40)),
    "json_member": ('{{"user": "x", "client_secret": "{s}"}}', lambda r: drawn(r, DASHED, 36)),
    "json_in_json": ('"{{\\"apiToken\\": \\"{s}\\"}}"', lambda r: drawn(r, ALNUM, 30)),
    "yaml": ("db:\n  auth_token: {s}\n", lambda r: drawn(r, HEX, 40)),
    "uuid_token": ("api_token = '{s}'", lambda r: "-".join(drawn(r, HEX, n) for n in (8, 4, 4, 4, 12))),
    "quoted_password": ("password = '{s}'", lambda r: "Tr7!" + drawn(r, ALNUM + "!#%&*", 9)),
    "password_in_csharp": ('string password = @"{s}";', _password),
    "password_in_sql": ("ALTER USER 'app'@'%' IDENTIFIED BY '{s}';", _password),
    "password_in_powershell": ("ConvertTo-SecureString '{s}' -AsPlainText -Force", _password),
    "password_echoed_to_login": ("echo '{s}' | docker login -u ci --password-stdin registry.acme.io", _password),
    "password_echoed_to_sudo": ("echo {s} | sudo -S apt-get update", _password),
    "password_of_openssl": ("openssl enc -aes-256-cbc -in a -out b -pass pass:{s}", _password),
    "passphrase_of_ssh_key": ("ssh-keygen -t ed25519 -f key -N '{s}'", _password),
    "password_of_wifi": ('network={{\n  psk="{s}"\n}}', _password),
    "password_told_by_the_way": ("log in as admin with the password {s} and look", _password),
    "django": (
        "SECRET_KEY = 'django-insecure-{s}'",
        lambda r: drawn(r, string.ascii_lowercase + "0123456789!@#%^&*(-_=+)", 50),
    ),
    "vercel_blob": ("x {s} y", lambda r: "vercel_blob_rw_" + drawn(r, ALNUM, 16) + "_" + drawn(r, ALNUM, 30)),
    "pgpass_in_json": ('{{"content": "db.acme.io:5432:app:app_rw:{s}"}}', _password),
    "pgpass_numbered": ("     1\tdb.acme.io:5432:app:app_rw:{s}\n", _password),
    "kubernetes_commented": (
        "# kind: Secret\n# metadata:\n#   name: db\n# data:\n#   password: {s}\n",
        lambda r: base64.b64encode(_password(r).encode()).decode(),
    ),
    "azure_client_secret": ("the value is {s} they said", _azure),
    "flyio": ("FLY={s}", lambda r: "fo1_" + drawn(r, DASHED, 43)),
    "github_classic": ("git clone with {s}", lambda r: "ghp_" + drawn(r, ALNUM, 36)),
    "github_fine_grained": ("{s}", lambda r: "github_pat_" + drawn(r, ALNUM, 22) + "_" + drawn(r, ALNUM, 59)),
    "gitlab": ("use {s} here", lambda r: "glpat-" + drawn(r, ALNUM, 20)),
    "anthropic": ("key: {s}", lambda r: "sk-ant-api03-" + drawn(r, DASHED, 93) + "AA"),
    "anthropic_oauth": ("x {s} y", lambda r: "sk-ant-oat01-" + drawn(r, DASHED, 80)),
    "openai_project": ("x {s} y", lambda r: "sk-proj-" + drawn(r, DASHED, 74) + "T3BlbkFJ" + drawn(r, DASHED, 74)),
    "openai_legacy": ("{s}", lambda r: "sk-" + drawn(r, ALNUM, 20) + "T3BlbkFJ" + drawn(r, ALNUM, 20)),
    "openrouter": ("x {s}", lambda r: "sk-or-v1-" + drawn(r, HEX, 64)),
    "hugging_face": ("login({s})", lambda r: "hf_" + drawn(r, string.ascii_letters, 34)),
    "slack_bot": (
        "{s}",
        lambda r: f"xoxb-{drawn(r, string.digits, 12)}-{drawn(r, string.digits, 12)}-{drawn(r, ALNUM, 24)}",
    ),
    "slack_webhook": (
        "https://hooks.slack.com/services/{s}",
        lambda r: (
            f"T{drawn(r, string.ascii_uppercase, 8)}/B{drawn(r, string.ascii_uppercase, 8)}/{drawn(r, ALNUM, 24)}"
        ),
    ),
    "discord_webhook": (
        "https://discord.com/api/webhooks/{s}",
        lambda r: drawn(r, string.digits, 18) + "/" + drawn(r, DASHED, 68),
    ),
    "npm": ("//registry.npmjs.org/:_authToken={s}", lambda r: "npm_" + drawn(r, ALNUM, 36)),
    "pypi": ("{s}", lambda r: "pypi-AgEIcHlwaS5vcmc" + drawn(r, DASHED, 150)),
    "google_api_key": ("maps?x={s}", lambda r: "AIza" + drawn(r, ALNUM, 35)),
    "google_oauth": ("{s}", lambda r: "GOCSPX-" + drawn(r, ALNUM, 28)),
    "stripe_live": ("{s}", lambda r: "sk_live_" + drawn(r, ALNUM, 24)),
    "stripe_test": ("{s}", lambda r: "sk_test_51" + drawn(r, ALNUM, 97)),
    "aws_key_id": ("id {s} end", lambda r: "AKIA" + drawn(r, string.ascii_uppercase + "234567", 16)),
    "aws_secret": ("aws_secret_access_key = {s}\n", lambda r: drawn(r, BASE64, 40)),
    "azure_storage": ("AccountName=acc;AccountKey={s};EndpointSuffix=x", lambda r: drawn(r, BASE64, 86) + "=="),
    "azure_sas": ("https://a.blob.core.windows.net/c?sv=2022&sig={s}", lambda r: drawn(r, ALNUM, 42) + "%3D"),
    "connection_password": ("Server=db1;Database=x;User Id=sa;Password={s};Encrypt=yes", lambda r: drawn(r, ALNUM, 14)),
    "postgres_url": ("postgresql://svc:{s}@db.example.com:5432/app", lambda r: drawn(r, ALNUM, 16)),
    "mongo_url": ("mongodb+srv://root:{s}@c0.abcde.mongodb.net/x", lambda r: drawn(r, ALNUM, 18)),
    "redis_url": ("redis://:{s}@cache:6379/0", lambda r: drawn(r, ALNUM, 20)),
    "basic_auth_url": ("https://deploy:{s}@git.example.org/a.git", lambda r: drawn(r, ALNUM, 15)),
    "token_url": ("https://{s}@git.example.org/a.git", lambda r: drawn(r, ALNUM, 32)),
    "bearer": ("curl -H 'Authorization: Bearer {s}' x", lambda r: drawn(r, DASHED, 48)),
    "bearer_in_code": ('headers = {{"Authorization": "Bearer {s}"}}', lambda r: drawn(r, ALNUM, 40)),
    "basic_header": (
        "Authorization: Basic {s}",
        lambda r: base64.b64encode(f"svc:{drawn(r, ALNUM, 18)}".encode()).decode(),
    ),
    "api_key_header": ("X-Api-Key: {s}", lambda r: drawn(r, ALNUM, 32)),
    "cookie": ("Cookie: sessionid={s}; theme=dark", lambda r: drawn(r, HEX, 32)),
    "query_token": ("GET /cb?state=1&access_token={s}&x=2", lambda r: drawn(r, ALNUM, 40)),
    "jwt": ("token {s}.", _jwt),
    "jwt_alone": ("{s}", _jwt),
    "curl_user": ("curl -u admin:{s} https://x.example.com", lambda r: drawn(r, ALNUM, 14)),
    "netrc": ("machine api.example.com login me password {s}\n", lambda r: drawn(r, ALNUM, 16)),
    "htpasswd": ("admin:{s}", lambda r: "$apr1$" + drawn(r, ALNUM, 8) + "$" + drawn(r, ALNUM, 22)),
    "bcrypt": ("hash={s}", lambda r: "$2b$12$" + drawn(r, ALNUM + "./", 53)),
    "command_option": ("mytool --api-token {s} run", lambda r: drawn(r, ALNUM, 30)),
    "pem": ("-----BEGIN RSA PRIVATE KEY-----\n{s}\n-----END RSA PRIVATE KEY-----\n", _pem_body),
    "pem_escaped": (
        '"private_key": "-----BEGIN PRIVATE KEY-----\\n{s}\\n-----END PRIVATE KEY-----\\n"',
        lambda r: _pem_body(r).replace("\n", "\\n"),
    ),
    "pem_escaped_twice": (
        '\\"k\\": \\"-----BEGIN EC PRIVATE KEY-----\\\\n{s}\\\\n-----END EC PRIVATE KEY-----\\"',
        lambda r: _pem_body(r).replace("\n", "\\\\n"),
    ),
    "pem_cut": ("-----BEGIN OPENSSH PRIVATE KEY-----\n{s}\n[output cut]", _pem_body),
    "vault": ("VAULT={s}", lambda r: "hvs." + drawn(r, DASHED, 96)),
    "sendgrid": ("{s}", lambda r: "SG." + drawn(r, DASHED, 22) + "." + drawn(r, DASHED, 43)),
    "telegram": ("bot {s} x", lambda r: drawn(r, string.digits, 10) + ":AA" + drawn(r, DASHED, 33)),
    "xml_element": ("<accessToken>{s}</accessToken>", lambda r: drawn(r, ALNUM, 32)),
    "xml_attribute": ('<add key="ServiceToken" value="{s}" />', lambda r: drawn(r, ALNUM, 32)),
    "go_variable": ('var apiSecret string = "{s}"', lambda r: drawn(r, ALNUM, 32)),
    "function_argument": ('os.getenv("SERVICE_TOKEN", "{s}")', lambda r: drawn(r, HEX, 32)),
}


def sample(family: str, seed: int) -> tuple[str, str]:
    """Give a text of a family and the secret in it."""
    template, draw = FAMILIES[family]
    secret = draw(random.Random(f"{family}/{seed}"))
    return template.format(s=secret), secret

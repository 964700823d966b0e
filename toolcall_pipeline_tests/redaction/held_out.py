"""Secrets and harmless look-alikes that no rule was written to, drawn from a seed by templates of vendors' published forms.

`{A20}` is twenty letters and digits; the other alphabets are below. Nothing here was ever valid, and no file of the
repository holds one of them.
"""

from __future__ import annotations

import base64
import random
import re
import string
from dataclasses import dataclass

_ALNUM = string.ascii_letters + string.digits
_ALPHABETS = {
    "A": _ALNUM,
    "W": _ALNUM + "_-",
    "B": _ALNUM + "+/",
    "H": "0123456789abcdef",
    "D": string.digits,
    "l": string.ascii_lowercase,
    "C": string.ascii_letters,
    "L": string.ascii_lowercase + string.digits,
    "U": string.ascii_uppercase + string.digits,
    "b": string.ascii_uppercase + "234567",
}
_PLACE = re.compile(r"\{([A-Za-z])(\d+)\}")
UUID = "{H8}-{H4}-{H4}-{H4}-{H12}"

# Known by their own form, in any surroundings.
SELF_EVIDENT = {
    "github": ("ghp_{A36}", "gho_{A36}", "ghs_{A36}", "ghr_{A76}", "github_pat_{A22}_{A59}"),
    "gitlab": ("glpat-{W20}", "glpat-{W27}.{H2}.{L9}", "gldt-{A20}", "glrt-{A20}", "glptt-{H40}", "gloas-{A64}"),
    "gitlab_runner": ("GR1348941{A20}", "glsoat-{A20}", "glft-{A20}", "glimt-{A25}"),
    "openai": ("sk-{A20}T3BlbkFJ{A20}", "sk-proj-{W74}T3BlbkFJ{W74}", "sk-svcacct-{W74}T3BlbkFJ{W74}"),
    "anthropic": ("sk-ant-api03-{W93}AA", "sk-ant-oat01-{W93}AA", "sk-ant-admin01-{W93}AA"),
    "openrouter": ("sk-or-v1-{H64}",),
    "deepseek": ("sk-{H32}",),
    "langfuse": (f"sk-lf-{UUID}",),
    "hugging_face": ("hf_{C34}", "api_org_{C34}"),
    "groq": ("gsk_{A52}",),
    "xai": ("xai-{A80}",),
    "replicate": ("r8_{A37}",),
    "perplexity": ("pplx-{A48}",),
    "nvidia": ("nvapi-{W64}",),
    "tavily": ("tvly-dev-{A32}",),
    "langsmith": ("lsv2_pt_{H32}_{H10}",),
    "cerebras": ("csk-{L48}",),
    "fireworks": ("fw_{A24}",),
    "together": ("tgp_v1_{W43}",),
    "firecrawl": ("fc-{H32}",),
    "e2b": ("e2b_{H40}",),
    "pinecone": ("pcsk_{A6}_{A63}",),
    "llama_cloud": ("llx-{A48}",),
    "jina": ("jina_{H32}{A28}",),
    "apify": ("apify_api_{A36}",),
    "elevenlabs": ("sk_{H48}",),
    "aws": ("AKIA{b16}", "ASIA{b16}", "ABSK{B120}"),
    "google": ("GOCSPX-{W28}", "ya29.a0A{W160}", "1//0{W100}"),
    "azure": ("{A3}8Q~{A34}",),
    "slack": ("xoxb-{D12}-{D13}-{A24}", "xoxp-{D12}-{D12}-{D13}-{H32}", "xapp-1-A{U10}-{D13}-{H64}"),
    "slack_webhook": ("https://hooks.slack.com/services/T{U10}/B{U10}/{A24}",),
    "discord_webhook": ("https://discord.com/api/webhooks/{D19}/{W68}",),
    "discord_bot": ("M{A23}.{W6}.{W38}",),
    "telegram": ("7{D9}:AA{W33}",),
    "stripe": ("sk_live_{A24}", "sk_test_51{A97}", "rk_live_{A24}", "whsec_{A32}"),
    "braintree": ("access_token$production${L16}${H32}",),
    "square": ("EAAA{W60}", "sq0csp-{W43}"),
    "shopify": ("shpat_{H32}", "shpss_{H32}"),
    "plaid": (f"access-production-{UUID}",),
    "polar": ("polar_oat_{A43}",),
    "paddle": ("pdl_live_apikey_{L26}_{A22}_{A3}",),
    "sendgrid": ("SG.{W22}.{W43}",),
    "mailchimp": ("{H32}-us12",),
    "brevo": ("xkeysib-{H64}-{A16}",),
    "resend": ("re_{A8}_{A24}",),
    "npm": ("npm_{A36}",),
    "pypi": ("pypi-AgEIcHlwaS5vcmc{W150}",),
    "rubygems": ("rubygems_{H48}",),
    "docker": ("dckr_pat_{A27}", "dckr_oat_{A32}"),
    "jfrog": ("AKCp{A69}",),
    "atlassian": ("ATATT3xFfGF0{W170}={U8}", "ATBB{A32}"),
    "linear": ("lin_api_{A40}",),
    "notion": ("ntn_{D11}{A35}", "secret_{A43}"),
    "airtable": ("pat{A14}.{H64}",),
    "figma": ("figd_{A40}",),
    "hubspot": (f"pat-na1-{UUID}",),
    "postman": ("PMAK-{H24}-{H34}",),
    "sentry": ("sntryu_{H64}", "sntrys_{A150}"),
    "grafana": ("glsa_{A32}_{H8}", "glc_{A120}"),
    "newrelic": ("NRAK-{U27}",),
    "posthog": ("phx_{A43}",),
    "dynatrace": ("dt0c01.{b24}.{b64}",),
    "digitalocean": ("dop_v1_{H64}",),
    "heroku": ("HRKU-AA{A58}",),
    "fly": ("fo1_{W43}",),
    "netlify": ("nfp_{A36}",),
    "supabase": ("sbp_{H40}", "sb_secret_{A31}"),
    "planetscale": ("pscale_tkn_{A43}", "pscale_pw_{A43}"),
    "neon": ("napi_{L64}",),
    "databricks": ("dapi{H32}",),
    "vault": ("hvs.{A96}",),
    "terraform": ("{A14}.atlasv1.{W64}",),
    "tailscale": ("tskey-auth-{A16}-{A32}",),
    "doppler": ("dp.st.prd.{A43}",),
    "alibaba": ("LTAI5t{A18}",),
    "cloudflare": ("cfut_{A48}",),
    "facebook": ("EAA{A180}",),
    "openshift": ("sha256~{A43}",),
    "buildkite": ("bkua_{H40}",),
    "circleci": ("CCIPAT_{A22}_{H40}",),
    "duffel": ("duffel_live_{A43}",),
    "shippo": ("shippo_live_{H40}",),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOi{A60}.{W43}",),
    "a_vendor_of_tomorrow": ("acme_live_{A32}", "zzz_pat_{A40}", "newco-api-{A36}"),
}
ALONE = (
    "{s}", "try with {s} and tell me", 'token "{s}"', "login({s})", "`{s}`", "**{s}**", "→ {s} ←", "line\n{s}\nline",
    '"stdout":"\\n{s}\\n"', '{{\\"x\\":\\"{s}\\"}}', "tool login {s}", '["a","{s}","b"]', "x={s};",
    "echo {s} | docker login -u me --password-stdin", 'curl -H "Authorization: Bearer {s}" https://api.acme.io',
)  # fmt: skip

# Known only by the name they are bound to.
NAMED = {
    "aws_secret_access_key": "{B40}",
    "AZURE_OPENAI_API_KEY": "{H32}",
    "DD_API_KEY": "{H32}",
    "CLOUDFLARE_API_TOKEN": "{W40}",
    "COHERE_API_KEY": "{A40}",
    "MISTRAL_API_KEY": "{A32}",
    "TWILIO_AUTH_TOKEN": "{H32}",
    "HEROKU_API_KEY": UUID,
    "ALGOLIA_ADMIN_KEY": "{H32}",
    "TRAVIS_TOKEN": "{A22}",
    "OKTA_API_TOKEN": "00{W40}",
    "auth0_client_secret": "{A64}",
    "secret_key_base": "{H128}",
    "NEXTAUTH_SECRET": "{B43}=",
    "jwtSecret": "{A48}",
    "WANDB_API_KEY": "{H40}",
    "DEEPGRAM_API_KEY": "{H40}",
    "spotify_client_secret": "{H32}",
    "access_token_secret": "{A45}",
    "binance_secret_key": "{A64}",
    "TRELLO_TOKEN": "{H64}",
    "GITHUB_WEBHOOK_SECRET": "{H40}",
    "SESSION_SECRET": "{A32}",
    "GHOST_ADMIN_API_KEY": "{H24}:{H64}",
    "WALLET_PRIVATE_KEY": "0x{H64}",
    "GITEA_TOKEN": "{H40}",
    "POSTGRES_PASSWORD": "k9!{A14}",
    "SMTP_PASSWORD": "{A18}7",
    "ADMIN_PASSWORD": "Welcome@{D4}{l3}",
}
BOUND = (
    "{k}={s}\n", "export {k}={s}", '{k}="{s}"', '{{"name": "svc", "{k}": "{s}", "port": 8080}}',
    '{{"body":"{{\\"{k}\\":\\"{s}\\"}}"}}', "env:\n  {k}: {s}\n", '- name: {k}\n  value: "{s}"', "{k}: |\n  {s}\n",
    "    environment:\n      - {k}={s}\n", '{k} = "{s}"', "client = Client(region='eu', {k}='{s}')",
    'os.environ["{k}"] = "{s}"', "{k} = os.getenv('{k}', '{s}')", "const {k} = '{s}';", 'process.env.{k} = "{s}";',
    "const x = process.env.{k} ?? '{s}'", '{k} := "{s}"', 'private static final String {k} = "{s}";',
    "define('{k}', '{s}');", "ENV['{k}'] = '{s}'", 'const {k}: &str = "{s}";', 'variable "{k}" {{\n  default = "{s}"\n}}',
    "docker run -e {k}={s} image", "ENV {k}={s}", '$env:{k} = "{s}"', 'gh secret set {k} --body "{s}"',
    "<{k}>{s}</{k}>", '<add key="{k}" value="{s}" />', "Set `{k}` to `{s}`", "| {k} | {s} |", "+{k}={s}",
    "    12→{k}={s}", "A=1\\n{k}={s}\\nB=2", "PATH=/usr/bin\n{k}={s}\nHOME=/root\n", '{k}=SecretStr("{s}")',
)  # fmt: skip

# Surroundings that carry their own secret.
WHOLE = {
    "url_password": ("postgresql://svc:{s}@db.example.com:5432/app", "{A16}"),
    "url_escaped": ('"url":"https:\\/\\/bot:{s}@git.example.com\\/a.git"', "{A20}"),
    "redis_url": ("redis://:{s}@cache:6379/0", "{A20}"),
    "odbc": ("Server=db1;Database=x;User Id=sa;Password={s};Encrypt=yes", "{A14}"),
    "libpq": ("host=db user=app password={s} dbname=x", "k8{A12}"),
    "basic": ("Authorization: Basic {b}", "{l5}:{A18}"),
    "docker_config": ('{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{b}"}}}}}}', "{l6}:{A20}"),
    "npmrc": ("//registry.example.com/:_authToken={s}", UUID),
    "pip": ("index-url = https://ci:{s}@pypi.example.com/simple", "{A24}"),
    "curl_user": ("curl -u admin:{s} https://x.example.com", "{A14}"),
    "docker_login": ("docker login -u me -p {s} registry.example.com", "x7{A14}"),
    "mysql": ("mysql -h db -u root -p{s} app", "x7{A10}"),
    "sshpass": ("sshpass -p '{s}' ssh root@host", "x7!{A10}"),
    "netrc": ("machine api.example.com login me password {s}\n", "{A16}"),
    "pgpass": ("db.example.com:5432:app:svc:{s}\n", "x7{A12}"),
    "cookie": ("Cookie: theme=dark; sessionid={s}; lang=en", "{H32}"),
    "set_cookie": ("Set-Cookie: connect.sid=s%3A{s}; Path=/; HttpOnly", "{A32}.{A40}"),
    "kubeconfig": ("    client-key-data: {s}\n", "LS0tLS1CRUdJTiBS{A200}"),
    "private_key": ("-----BEGIN EC PRIVATE KEY-----\n{s}\n-----END EC PRIVATE KEY-----", "{B64}\n{B64}\n{B40}"),
    "private_key_escaped": (
        '"key": "-----BEGIN PRIVATE KEY-----\\n{s}\\n-----END PRIVATE KEY-----\\n"',
        "{B64}\\n{B64}\\n{B40}",
    ),
    "pgp": ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{s}\n-----END PGP PRIVATE KEY BLOCK-----", "{B64}\n{B64}\n{B40}"),
    "told": ("by the way, my password is {s} if you need it", "{l5}9!{l3}7"),
    "query": ("GET /cb?state=1&access_token={s}&x=2", "{A40}"),
    "option": ("mytool --api-token {s} run", "{A30}"),
}

# What looks like a secret and is none.
HARMLESS = (
    "commit {H40}\nAuthor: Dev <dev@example.com>", "index {H7}..{H7} 100644", f'"id": "{UUID}"', f'"session_id": "{UUID}"',
    f"/api/v1/users/{UUID}/posts", "sha256:{H64}", "image: nginx@sha256:{H64}", '"integrity": "sha512-{B86}=="',
    '<script integrity="sha384-{B64}" crossorigin="anonymous"></script>', 'checksum = "{H64}"',
    "requests==2.31.0 --hash=sha256:{H64}", "golang.org/x/crypto v0.1.0/go.mod h1:{B43}=", '"content-hash": "{H32}"',
    "{H32}  file.bin", 'ETag: "{H32}"', "data:image/png;base64,iVBORw0KGgo{B300}", "url(data:font/woff2;base64,d09GMgAB{B300})",
    "-----BEGIN CERTIFICATE-----\nMIID{B60}\n{B64}\n-----END CERTIFICATE-----", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{B43} host",
    ".card{{color:#{H6};background:#{H8};margin:0 auto}}", "Button_primary__{A5} styles_token__{A6}",
    "dist/assets/index-{A8}.js  {D3}.{D2} kB", "/_next/static/chunks/pages/_app-{H16}.js", '"tool_use_id": "toolu_01{A22}"',
    '"id": "msg_01{A22}"', '"requestId": "req_011C{A20}"', '"call_id": "call_{A24}"', '"id":"chatcmpl-{A29}"',
    "customer: cus_{A14}", "price_1{A23}", '"_id": "{H24}"', "arn:aws:iam::{D12}:role/deploy", "i-0{H16} vpc-0{H16} ami-{H17}",
    "web-{L10}-{L5}   1/1  Running", "https://github.com/a/b/commit/{H40}", "https://www.youtube.com/watch?v={A11}",
    "https://docs.google.com/document/d/{A44}/edit", "https://gist.github.com/me/{H32}", "max_tokens={D4}, temperature=0.7",
    "boundary=----WebKitFormBoundary{A16}", 'If-None-Match: "{H40}"', 'csrf_token = "{A32}"', '"nextPageToken": "{A32}"',
    "public_key = '{B43}='", "00000010: {H4} {H4} {H4} {H4}", "loss: 0.{D16} key: 0.{D12}", "_ZN3tokio7runtime{D2}task{H16}E",
    "target/debug/deps/app-{H16}.rlib", "/tmp/tmp{L8}/key.json", '"contract": "0x{H40}"', "ipfs://Qm{A44}",
    "traceparent: 00-{H32}-{H16}-01", '"trace_id": "{H32}", "span_id": "{H16}"', "uses: actions/checkout@{H40} # v4.1.1",
    "revision = '{H12}'\ndown_revision = '{H12}'", "guid: {H32}", "tokens_used: {D5}", '"token_created_at": "2024-05-12T10:22:00.{D6}Z"',
)  # fmt: skip
CODE = (
    'password = os.environ["DB_PASSWORD"]', 'api_key=os.getenv("OPENAI_API_KEY")', "const apiKey = process.env.API_KEY_V2;",
    'token: process.env.NPM_TOKEN ?? "",', "export TOKEN=$(cat /run/secrets/token1)", 'PASSWORD="${DB_PASSWORD:-}"',
    "API_KEY=${{ secrets.API_KEY_2 }}", "docker login -u $USER -p $PASSWORD1", "password: ${DB_PASSWORD}",
    "token: {{ .Values.token2 }}", "password = var.db_password_v2", 'token := os.Getenv("TOKEN2")',
    'String password = System.getenv("PASSWORD1");', "token: str", "password: Optional[str] = None", "apiKey2?: string;",
    "def login(password: str, token2: str) -> bool:", 'secret_key=get_secret("prod/db2")', "token = generate_token(32)",
    "api_key = self.config.api_key2", 'token = response.json()["access_token"]', "secret = crypto.randomBytes(32).toString('hex')",
    "token2 = tokens[i + 1]", "const hashedPassword = await bcrypt.hash(password, 10);", "API_KEY=<YOUR_KEY>",
    'token: "xxxxxxxxxxxxxxxxxxxxxxxx"', "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "password=changeme",
    "ANTHROPIC_API_KEY=sk-ant-...", 'api_key = "YOUR-API-KEY-1"', 'password: "********"', "Authorization: Bearer YOUR_ACCESS_TOKEN1",
    "postgres://user:password@localhost:5432/db", "mysql://root:root@127.0.0.1/db", "mongodb://<user>:<password>@cluster0.mongodb.net",
    "amqp://guest:guest@rabbit:5672", "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "the password is too short, use at least 12 characters", "my password is not working after the 2.0 upgrade",
    "Reset password for user42", "password must contain 1 digit and 8 characters", "use token-based auth with OAuth2/OIDC",
    "ACCESS_TOKEN_EXPIRE_MINUTES = 60 * 24 * 8", 'passwordField2.setText("")', "re.compile(r'sk-[A-Za-z0-9]{20,}')",
    "INSERT INTO users (email, password_hash2) VALUES ($1, $2)", "o.apiKey=n,o.secretKey=!1,o.token=r(4711)",
    "tokenizer = AutoTokenizer.from_pretrained('Qwen/Qwen2.5-0.5B-Instruct')", "PWD=/home/user/app2", "secretsmanager:GetSecretValue",
)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """A text with a made-up secret in it."""

    kind: str
    text: str
    secret: str


def fill(template: str, rng: random.Random) -> str:
    """Return a template with random characters in its places."""
    return _PLACE.sub(lambda m: "".join(rng.choice(_ALPHABETS[m[1]]) for _ in range(int(m[2]))), template)


def planted(seeds: int = 3) -> list[Planted]:
    """Return secrets of every kind, each in as many of its surroundings as there are seeds."""
    result: list[Planted] = []
    for vendor, forms in SELF_EVIDENT.items():
        for form in forms:
            rng = random.Random(form)
            for around in rng.sample(ALONE, seeds):
                secret = fill(form, rng)
                result.append(Planted(vendor, around.format(s=secret), secret))
    for name, form in NAMED.items():
        rng = random.Random(name)
        for around in rng.sample(BOUND, 2 * seeds):
            secret = fill(form, rng)
            result.append(Planted(name, around.format(k=name, s=secret), secret))
    for kind, (around, form) in WHOLE.items():
        for seed in range(seeds):
            secret = fill(form, random.Random(f"{kind}{seed}"))
            encoded = base64.b64encode(secret.encode()).decode()
            result.append(Planted(kind, around.format(s=secret, b=encoded), encoded if "{b}" in around else secret))
    return result


def harmless(seeds: int = 6) -> list[str]:
    """Return texts without a secret."""
    drawn = [fill(form, random.Random(f"{form}{seed}")) for form in HARMLESS for seed in range(seeds)]
    return [*(text.replace("{{", "{").replace("}}", "}") for text in drawn), *CODE]

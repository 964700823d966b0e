"""Secrets and look-alikes as sessions of agents hold them: commands, files, messages, tables, and lines behind prefixes.

`«…»` marks the secret; `{A20}` is drawn as in `held_out.py`, `{PW}` a password a person or a generator chose, `{SEED}` twelve words.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

from toolcall_pipeline_tests.redaction.held_out import UUID, fill

_SECRET = re.compile("«(.*?)»", re.DOTALL)
_WORDS = ("falcon", "river", "monkey", "coffee", "silver", "orange", "rocket", "castle", "meadow", "tiger", "winter")
_SEED_WORDS = ("abandon", "ability", "absorb", "acid", "camera", "dolphin", "elbow", "fabric", "galaxy", "harvest")
_SEED_WORDS += ("island", "jacket", "ladder", "lemon", "nephew", "ocean", "pumpkin", "quarter", "ribbon", "walnut")


def _password(rng: random.Random) -> str:
    word = rng.choice(_WORDS)
    chosen = (
        f"{word.capitalize()}{rng.choice('!@#')}{{D4}}",
        f"{word}{rng.choice(_WORDS).capitalize()}{{D2}}{rng.choice('!*?')}",
    )
    return fill(rng.choice([*chosen, "{A15}7", "{A6}#{A6}8", "K{l2}7{A10}"]), rng)


COMMANDS = (
    "psql 'host=db.acme.io user=app password=«{PW}» dbname=x'", "mysql -uroot --password='«{PW}»' -e 'show tables'",
    "openssl rsa -in k.pem -passin 'pass:«{PW}»' -out o.pem", "jarsigner -keystore a.jks -storepass «{PW}» a.jar x",
    "gpg --batch --passphrase '«{A14}7»' -d a.gpg", "7z x -p«{A12}9» a.7z", "smbclient //fs/share -U 'anna%«{PW}»'",
    "net use Z: //fs/share /user:anna «{PW}»", "net user anna «{PW}» /add", "xfreerdp /v:host /u:anna /p:«{PW}»",
    "htpasswd -b .htpasswd anna «{PW}»", "security add-generic-password -a anna -s acme -w '«{PW}»'",
    "security unlock-keychain -p «{PW}» login.keychain", "snmpwalk -v3 -u anna -A «{PW}» 10.0.0.1",
    "sqlplus scott/«{A12}7»@//db:1521/ORCL", "mc alias set m https://minio.acme.io admin «{A40}»",
    "ansible all -m ping -e 'ansible_become_pass=«{A14}7»'", "kubectl create secret generic db --from-literal=password=«{A14}7»",
    "helm upgrade app ./chart --set postgresql.auth.password=«{A14}7»", "wrangler secret put X <<< '«{A40}»'",
    "aws ssm put-parameter --name /db --type SecureString --value '«{PW}»'", "rabbitmqctl add_user app «{PW}»",
    "curl -b 'session=«{A60}»' https://x.acme.io", "curl -H 'Authorization: GenieKey «{A30}»' https://x.acme.io",
    "curl -H \"Authorization: Bearer \\\n  «{A40}»\" https://x.acme.io", "mytool \\\n    --api-key \\\n    «{A32}» \\\n    run",
    "export API_TOKEN=\\\n  «{A40}»", "expect -c 'expect \"password:\"; send \"«{PW}»\\r\"'", "passwd anna <<< '«{A12}7»'",
)  # fmt: skip
FILES = (
    "requirepass «{A32}»", "bindpw: «{PW}»", "AZURE_DEVOPS_EXT_PAT=«{L51}7»", "DEPLOYER_PK=«{H64}»", "pw: «{A14}7»",
    "- name: DB_PASSWORD\n  value: \"«{PW}»\"", "machine git.acme.io\n  login anna\n  password «{PW}»",
    "'key' => 'base64:«{B43}=»',", "define('AUTH_KEY', '«{A20}!{A20}#{A20}%»');", "<entry key=\"db.password\">«{PW}»</entry>",
    "<password><![CDATA[«{PW}»]]></password>", "<input type=\"password\" name=\"pw\" value=\"«{PW}»\">",
    "$ENV{API_TOKEN} = '«{A40}»';", "monkeypatch.setenv(\"STRIPE_SECRET\", \"«{A40}»\")", "auth=('anna', '«{PW}»')",
    "requests.get(u, auth=HTTPBasicAuth(\"anna\", \"«{PW}»\"))", "smtp.login(\"anna@acme.test\", \"«{PW}»\")",
    "DriverManager.getConnection(url, \"app\", \"«{PW}»\");", "await page.getByLabel('Password').fill('«{PW}»');",
    "driver.find_element(By.ID, \"password\").send_keys(\"«{PW}»\")", "jwt.sign(payload, '«{A40}»')", "Fernet(b'«{W43}=»')",
    "new ethers.Wallet(\"0x«{H64}»\")", "CREATE LOGIN app WITH PASSWORD = N'«{PW}»';", "ALTER USER app PASSWORD '«{PW}»';",
    "SET PASSWORD FOR 'root'@'localhost' = PASSWORD('«{PW}»');", "PRAGMA key = '«{A12}7»';",
    "INSERT INTO users (email, password) VALUES ('a@b.test', '«{A12}7»');", "cookies = {\"session\": \"«{A60}»\"}",
    "https://mainnet.infura.io/v3/«{H32}»", "https://api.openweathermap.org/data?q=Bern&appid=«{H32}»",
    "-----BEGIN RSA PRIVATE KEY-----\n«MIIE{B60}\n{B64}\n{B64}\n{B40}»\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\n«b3BlbnNzaC1rZXktdjEA{B50}\n{B70}\n{B70}»",
    "x «IQoJb3JpZ2luX2VjE{B300}=» y", "x «{A76}AZDO{A4}» y", "x «AAAA{A7}:APA91b{W134}» y", "x «syt_{A12}_{A20}_{A6}» y",
    "x «dbtc_{A38}» y", "x «crsr_{H64}» y", "x «ATTA{H64}» y", "SECRET='«{A16}#{A12}!{A12}»'",
)  # fmt: skip
MESSAGES = (
    "login: anna password: «{PW}»", "Initial password: «{PW}»", "Your new API key is: «{A40}»", "Passwort: «{PW}»",
    "Das Passwort lautet «{A14}7»", "contraseña: «{PW}»", "wachtwoord: «{PW}»", "credentials: admin / «{A14}7»",
    "A temporary password is generated for root@localhost: «{PW}»", "recovery phrase: «{SEED}»", "12 words: «{SEED}»",
    "user,password,role\nanna,«{PW}»,admin\nbob,«{PW}»,user", "email,name,api_token\na@b.test,Anna,«{A32}»",
    "Access key ID,Secret access key\nx,«{B40}»", "| user | password |\n|---|---|\n| anna | «{PW}» |",
    " id | login | password \n----+-------+----------\n  1 | anna  | «{PW}»", "id\ttoken\n7\t«{A40}»",
)  # fmt: skip

Wrapper = Callable[[str], str]
LINE_PREFIXES = (
    "     7\t",
    "    12→",
    "config/app.env:7:",
    "src/app.py-12-",
    "+",
    "-",
    "        ",
    "> ",
    "# ",
    "web-1  | ",
)
LINE_PREFIXES += ("2026-03-01T10:22:11.123Z INFO  [app] ",)
WRAPPERS: dict[str, Wrapper] = {
    "alone": lambda text: text,
    "json": lambda text: json.dumps({"stdout": f"$ x\n{text}\n", "exit": 0}),
    "json in json": lambda text: json.dumps({"body": json.dumps({"out": text})}),
    "coloured": lambda text: "\n".join(f"\x1b[32m{line}\x1b[0m" for line in text.split("\n")),
    "windows": lambda text: text.replace("\n", "\r\n"),
    "fenced": lambda text: f"Here it is:\n```\n{text}\n```\nDone.",
}
WRAPPERS |= {
    prefix: lambda text, prefix=prefix: "\n".join(prefix + line for line in text.split("\n"))
    for prefix in LINE_PREFIXES
}


def drawn(template: str, seed: int) -> tuple[str, list[str]]:
    """Return a template filled at random, and the secrets in it."""
    rng = random.Random(f"{template}/{seed}")
    text = re.sub(r"\{PW\}", lambda _: _password(rng), template)
    text = text.replace("{SEED}", " ".join(rng.choice(_SEED_WORDS) for _ in range(12)))
    text = fill(text, rng)
    return _SECRET.sub(lambda match: match[1], text), _SECRET.findall(text)


HARMLESS = (
    "--- PASS: TestLogin2 (0.00s)", "    --- PASS: TestParse/Value#01 (0.00s)", "PASS: test_foo1", "pass: 12/13, fail: 0",
    "pass `userId2` to `getUser2()`", "pass to SaveContext2", "Login with Google/GitHub2", "sign in with OAuth2/OIDC",
    "login: user1 | role: admin2", "credentials: arn:aws:iam::{D12}:role/x1", "credentials: ~/.aws/config2",
    f'"session": "{UUID}"', "SESSION_ID=ses_{A24}", '"sessionId":"2026-02-02-session2"', "session: 'express-session-v1.17.3'",
    "INSERT INTO users (name, password) VALUES ('user1', 'password');", "INSERT INTO users (id, password) VALUES (?, ?)",
    'auth=("user", "pass")', 'login("admin", "admin")', 'HTTPBasicAuth("user", "passwd")', 'Client("localhost", "8080")',
    'jq . <<< "$RESPONSE1"', 'base64 -d <<< "aGVsbG8gd29ybGQ="', 'send "exit 0\\r"', "jwt.sign(payload, process.env.JWT_SECRET_2)",
    'jwt.verify(token, "secret")', "createHmac('sha256', secret2)", 'accounts: ["0x{H40}"]', "PRAGMA key = 'table_info'",
    "openssl passwd -1", "net user", "7z a -pdf out.7z docs", "security find-generic-password -s acme", "sqlplus / as sysdba",
    "htpasswd -c .htpasswd user1", "expect(password).toBe('secret')", "await page.fill('#password', 'password')",
    "| Token | Value |\n|---|---|\n| `--color-primary-500` | #{H6} |\n| `spacing-4xl` | 64px |",
    "| Secret | Used by | Rotated |\n|---|---|---|\n| db-password | api-v2 | 2026-01-12 |",
    "key,value,count\nalpha_feature_flag_2,1,20\nbeta_feature_flag_3,0,10", "token,count\nthe,120345\nand,98234",
    "id,key,created_at\n1,user:1234:profile,2026-01-01", "user,password\nanna,********\nbob,<hidden>",
    "const {\n  username,\n  password,\n  otherValue1234567890,\n} = req.body", "def f(\n    user,\n    password,\n    x_30,\n):",
    "-----BEGIN PRIVATE KEY-----\n<your key here>\n-----END PRIVATE KEY-----",
    'assert "-----BEGIN PRIVATE KEY-----"\n2026-01-01 INFO done\nAnotherVeryLongIdentifierNameWithoutAnySpaces',
    "password: !secret db_password_1", "password: <%= ENV[\"DB_PASSWORD_1\"] %>", "type Password1 = string",
    "password = config.get('db', 'password2')", "password=hash_password2(pw)", "password := r.FormValue(\"password2\")",
    "spring.datasource.password=${DB_PASSWORD}", "password: Passwort vergessen?", 'password: "Введите пароль",',
    "define('WP_CACHE_KEY_SALT', 'example.com:');", "COMMIT_HASH={H40}", "PYTHONHASHSEED=0", f"user_pk: {UUID}",
    "12 words: the quick brown fox jumps over the lazy dog and then sleeps", "?code=DISCOUNT2026", "appid=com.acme.app2026",
    "https://mainnet.infura.io/v3/YOUR-PROJECT-ID", "Sec-WebSocket-Key: {B22}==", "AUTH0_DOMAIN=dev-{L8}.eu.auth0.com",
    "Cache restored from key: Linux-node-{H64}", '<input name="csrfmiddlewaretoken" value="{A64}">', "y = q@k.transpose(0, 1)",
    "ubuntu@ec2-3-120-1-2.compute.amazonaws.com", "https://username:token@github.com/owner/repo.git", "password='password123'",
    "Authorization: AWS4-HMAC-SHA256", f"authority: https://login.microsoftonline.com/{UUID}", "BYPASS \"v2.0.1\"",
)  # fmt: skip

"""E-mail addresses.

Not a rule of the scanner: it searches many bytes at once for what every match of a rule holds, if that is two bytes or more.
For the one sign of an address it looked at each byte, and took an eighth of the whole scan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

RULE_ID = "custom.email-address"
_LOCAL_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-"
_MAX_LOCAL_BYTES = 64
# Every label in one way only: where it could be read in two, a long chain of labels that is no address took forever.
_DOMAIN = re.compile(rb"@(?<=[A-Za-z0-9._%+-]@)(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}+\.)+[A-Za-z]{2,24}(?![A-Za-z0-9_(@])")
# What has the form and is none: versions, accounts of services, files at two resolutions, decorators and style rules.
_NO_ADDRESS = re.compile(
    rb"@[0-9.x^~-]+\.[a-z]{1,4}$"
    rb"|(?i:^[+-]{0,3}(?:git|hg|svn|noreply|no-reply|support|security|info|admin|root|dev|ci|bot|ubuntu|ec2-user|debian|"
    rb"vagrant|pi|token|oauth2|x-access-token|user|username|pass|password|test|foo|bar|name|someone|you|your[._-]?\w*|"
    rb"example)@)"
    rb"|(?i:@(?:\w+\.)*(?:test|invalid|localhost|yourdomain|2x|3x)\.?(?:com|org|net|io|co)?$)"
    rb"|(?i:\.(?:png|jpe?g|gif|svg|webp|css|js|ts|tsx|jsx|mjs|cjs|py|rb|go|rs|java|json|ya?ml|toml|md|txt|html?|xml|sh|lock|"
    rb"map|service|target|socket|timer|mount|so|dll|app|framework|sock|git|proto|kt|swift|lib|h|c|cc|cpp)$)"
    rb"|(?i:@(?:media|import|charset|font-face|keyframes|property|param|types?|babel|next|angular|vue|scope|tailwind|layer|"
    rb"apply|pytest|staticmethod|dataclass|app|router|click|override|deprecated)\b)"
)
# What decides what is found, beside this module's few lines.
PATTERNS = _DOMAIN.pattern + _NO_ADDRESS.pattern


def address_spans(text: bytes) -> Iterator[tuple[int, int]]:
    """Give the bytes of every e-mail address in UTF-8 text, in order: start, end (exclusive)."""
    free_from = 0
    sign = text.find(b"@")
    while sign >= 0:
        if domain := _DOMAIN.match(text, sign):
            end = domain.end()
            head = text[max(free_from, sign - _MAX_LOCAL_BYTES) : sign]
            start = sign - len(head) + len(head.rstrip(_LOCAL_BYTES))
            if start < sign and not _NO_ADDRESS.search(text[start:end]):
                yield start, end
                free_from = end
        sign = text.find(b"@", sign + 1)

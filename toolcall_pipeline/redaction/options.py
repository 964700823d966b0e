"""What the user may set: `<home>/redaction.toml`, every field optional.

placeholder_salt = "any text"              # sets this installation's placeholder tags apart
user_names = ["jdoe", "John Doe"]          # replaced wherever they stand as a word, not only in home paths
strings = ["Project Nightingale"]          # replaced wherever they stand, whatever the case
private_hosts = ["corp.example.com"]       # these domains and every host below them
email_addresses = true
home_paths = true
kept_email_domains = ["example.com"]
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from toolcall_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from toolcall_pipeline.settings import Settings

OPTIONS_NAME = "redaction.toml"
_MIN_STRING_CHARACTERS = 3


class RedactionOptions(BaseModel):
    """What is replaced beside known secrets. Frozen, picklable, the same in every process.

    Attributes:
        placeholder_salt: Mixed into every tag; the same secret in the same session has another tag elsewhere.
        user_names: Names replaced by `user` wherever they stand as a whole word.
        strings: Replaced by a placeholder of kind `private`, whatever their case; at least 3 characters each.
        private_hosts: Domains; they and every host below them become a placeholder of kind `private_host`.
        private_host_names: Whether host names that only a private network resolves become a placeholder.
        email_addresses: Whether e-mail addresses are replaced.
        kept_email_domains: Addresses below these domains stay (GitHub's no-reply ones by default).
        home_paths: Whether the user name in home paths becomes `user`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    placeholder_salt: str = ""
    user_names: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    private_host_names: bool = True
    email_addresses: bool = True
    kept_email_domains: tuple[str, ...] = ("users.noreply.github.com", "noreply.github.com")
    home_paths: bool = True

    @field_validator("strings", "user_names", "private_hosts")
    @classmethod
    def _long_enough(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if len(value.strip()) < _MIN_STRING_CHARACTERS:
                raise ValueError(f"an entry has {len(value.strip())} characters, expected at least 3")
        return tuple(value.strip() for value in values)


def load_options(settings: Settings) -> RedactionOptions:
    """Read `<home>/redaction.toml`, or return the defaults where there is none.

    Raises:
        ConfigurationError: The file is no TOML, or holds an unknown or unfitting field. Its values are not repeated in
            the message: they are what the user wants kept private.
    """
    path = settings.home_dir / OPTIONS_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return RedactionOptions()
    try:
        return RedactionOptions.model_validate(tomllib.loads(data.decode("utf-8")))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path} does not fit: {problems}. See docs/reference/redaction.md.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"{path} is no TOML ({type(error).__name__}). See docs/reference/redaction.md."
        ) from None

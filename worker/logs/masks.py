"""The last line of defence: whatever a line says, no secret of the settings is in it."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import SecretStr
from structlog.typing import EventDict, WrappedLogger

from worker.configuration.webhooks import SECRET_PREFIX
from worker.settings import Settings

MASK = "***"

SHORTEST = 6
"""Characters. A shorter secret would blacken half of the words; in a URL or a header it is found by its place."""

SHORTEST_PATH = 16
"""The same for the path of an endpoint's address: `/webhooks` is no secret."""

PLACES = re.compile(
    r"(?P<login>\b[a-z][a-z0-9+.-]*://[^\s/@:]*:)[^\s@/]*(?=@)|(?P<header>\b(?:bearer|basic) )[\w.~+/=-]{6,}",
    re.IGNORECASE,
)
"""Where secrets stand: the password of a URL, and what follows the scheme in an Authorization header."""


class Masks:
    """Replaces secrets in whatever a line is made of."""

    def __init__(self, secrets: Iterator[str] | list[str]) -> None:
        found = {secret for secret in secrets if len(secret) >= SHORTEST}
        # The longest first: one may be a part of another.
        words = "|".join(re.escape(secret) for secret in sorted(found, key=len, reverse=True))
        self._secrets = re.compile(words) if words else None

    @classmethod
    def of(cls, settings: Settings) -> Masks:
        """Make those for a process's settings."""
        return cls(_secrets(settings))

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Mask a line that is about to be rendered (a processor of structlog's)."""
        return {self.text(str(name)): self.clean(value) for name, value in event.items()}

    def clean(self, value: object) -> object:
        """Give a value without secrets; what is no plain value becomes the text that would be written of it."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self.text(str(key)): self.clean(one) for key, one in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.clean(one) for one in value]
        return self.text(str(value))

    def text(self, text: str) -> str:
        """Mask a text."""
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        return PLACES.sub(lambda found: f"{found['login'] or found['header']}{MASK}", text)


def _secrets(settings: Settings) -> Iterator[str]:
    """Give everything that must not be seen, in each of the forms that it is written in."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, SecretStr):
                yield from _forms(one.get_secret_value())
    yield from _password(settings.ledger_url)
    for url in settings.notify_urls:
        yield from _token(url)


def _forms(secret: str) -> Iterator[str]:
    if "://" in secret:
        yield from _password(secret)
        return
    yield secret
    if secret.startswith(SECRET_PREFIX):
        yield secret.removeprefix(SECRET_PREFIX)
    user, colon, password = secret.partition(":")
    if colon and user:
        yield password
        yield b64encode(secret.encode()).decode()


def _password(url: str) -> Iterator[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        yield from {password, unquote(password), quote(unquote(password), safe="")}


def _token(url: str) -> Iterator[str]:
    """Give what of an endpoint's address may be its key: all that follows the host."""
    parts = urlsplit(url)
    if len(parts.path) >= SHORTEST_PATH:
        yield parts.path.strip("/")
    yield parts.query
    yield from (value for _, value in parse_qsl(parts.query))
    yield from _password(url)

"""The door for webhooks, what comes of them, and where the service's own go."""

from __future__ import annotations

import base64
import binascii
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from worker.configuration.part import Part, url_parts

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix that says what follows, not a secret
SECRET_BYTES = range(24, 65)
"""How long a key may be that signs webhooks, by the Standard Webhooks specification."""


class WebhookSettings(Part):
    """Who may knock, how often, and who is told of what was done."""

    step_complete_key: SecretStr | None = Field(
        None,
        alias="STEP_COMPLETE_KEY",
        description="The key that the Letta server sends with its own webhook, named as the server names it. "
        "Its `STEP_COMPLETE_WEBHOOK` is this service's `/webhooks/letta/step-complete`.",
    )
    webhook_secrets: tuple[SecretStr, ...] = Field(
        (),
        alias="COMPACTOR_WEBHOOK_SECRETS",
        description="Standard Webhooks secrets (`whsec_...`) that may sign `/webhooks/compaction`, separated by "
        "spaces: several at once while they are rotated.",
    )
    webhook_host: str = Field(
        "127.0.0.1", alias="COMPACTOR_WEBHOOK_HOST", description="The address that the door listens on."
    )
    webhook_port: int = Field(
        8484, ge=1, le=65535, alias="COMPACTOR_WEBHOOK_PORT", description="The port that the door listens on."
    )
    webhook_open: bool = Field(
        default=False,
        alias="COMPACTOR_WEBHOOK_OPEN",
        description="Take webhooks without a key where none is set. Refused unless the door listens on loopback.",
    )
    webhook_rate: int = Field(
        200,
        ge=1,
        le=1_000_000,
        alias="COMPACTOR_WEBHOOK_RATE",
        description="Requests a second that one door process takes from one source address; the rest get a 429.",
    )
    attend_every: float = Field(
        5,
        ge=1,
        allow_inf_nan=False,
        alias="COMPACTOR_ATTEND_EVERY",
        description="Seconds between two looks for conversations that fell idle after a webhook, and for outgoing "
        "webhooks that are due.",
    )
    keep_events_for: float = Field(
        30,
        ge=1,
        le=3650,
        allow_inf_nan=False,
        alias="COMPACTOR_KEEP_EVENTS_FOR",
        description="Days that webhooks, taken and sent, are kept in the ledger; a repeated `webhook-id` is known "
        "for as long.",
    )
    notify_urls: tuple[str, ...] = Field(
        (),
        # Many services put a token into them.
        repr=False,
        alias="COMPACTOR_NOTIFY_URLS",
        description="Where the service's own webhooks go, separated by spaces. Without one, none are sent.",
    )
    notify_secret: SecretStr | None = Field(
        None, alias="COMPACTOR_NOTIFY_SECRET", description="The Standard Webhooks secret that signs them."
    )
    notify_summary: bool = Field(
        default=False,
        alias="COMPACTOR_NOTIFY_SUMMARY",
        description="Whether they carry the text of the summary.",
    )

    @field_validator("webhook_secrets", "notify_urls", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value

    @field_validator("step_complete_key")
    @classmethod
    def _key_is_one_word(cls, value: SecretStr | None) -> SecretStr | None:
        key = "" if value is None else value.get_secret_value()
        if not key.isprintable() or not key.isascii() or " " in key:
            raise ValueError("has to be one word of printable ASCII: it is sent in a header")
        return value

    @field_validator("webhook_secrets")
    @classmethod
    def _secrets_sign(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, secret in enumerate(value, start=1):
            _check_secret(secret, f"number {number} of its secrets" if len(value) > 1 else "it")
        return value

    @field_validator("notify_secret")
    @classmethod
    def _secret_signs(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _check_secret(value, "it")
        return value

    @field_validator("notify_urls")
    @classmethod
    def _urls_are_http(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, url in enumerate(value, start=1):
            parts = url_parts(url)
            if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"number {number} is no http:// or https:// address")
        return value

    @model_validator(mode="after")
    def _what_is_sent_is_signed(self) -> Self:
        if self.notify_urls and self.notify_secret is None:
            raise ValueError("COMPACTOR_NOTIFY_URLS is set, but COMPACTOR_NOTIFY_SECRET is not: webhooks go out signed")
        return self


def _check_secret(secret: SecretStr, which: str) -> None:
    """Refuse what cannot sign; the message never shows it."""
    form = f"{which} must be {SECRET_PREFIX} and the base64 of {SECRET_BYTES.start} to {SECRET_BYTES.stop - 1} bytes"
    text = secret.get_secret_value()
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(form)
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(form) from None
    if len(key) not in SECRET_BYTES:
        raise ValueError(f"{form}; these are {len(key)}")

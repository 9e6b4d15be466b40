"""Who may come in: the Letta server's key, and the secrets that sign by the Standard Webhooks specification.

What is refused is refused alike, whatever the reason: a stranger learns nothing from it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import NoReturn
from uuid import uuid4

from fastapi import HTTPException, Request
from standardwebhooks import Webhook, WebhookVerificationError

from scheduler.door.ids import WEBHOOK_ID, spelled
from worker.settings import Settings

SCHEME = "bearer "

TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}")
"""Whole seconds, spelled one way: what is signed is the number, so another spelling of it would pass too."""

MOST_SIGNATURES = 16
"""A sender that rotates its secrets signs with two."""

SIGNATURE_BYTES = 32


class Keys:
    """The keys of one door. A page whose key is not set lets nobody in, unless the door is open."""

    def __init__(self, settings: Settings) -> None:
        key = settings.step_complete_key
        secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
        self._step = [] if key is None else [key.get_secret_value().encode()]
        self._any = [*self._step, *(secret.encode() for secret in secrets)]
        self._signers = [Webhook(secret) for secret in secrets]
        self._open = settings.webhook_open

    def admit_server(self, request: Request) -> None:
        """Let the Letta server in, by its key; 401."""
        self._admit_bearer(request, self._step)

    def admit_follower(self, request: Request) -> None:
        """Let anyone in who holds any of the keys; 401."""
        self._admit_bearer(request, self._any)

    def webhook_id(self, request: Request) -> str:
        """Give the id that a signed request names, before its body is read; 401 where it cannot be genuine."""
        given = _only(request, "webhook-id")
        if self._open and not self._signers:
            return given if given and spelled(WEBHOOK_ID, given) else f"unsigned-{uuid4()}"
        if not self._signers or not spelled(WEBHOOK_ID, given) or not TIMESTAMP.fullmatch(_timestamp(request)):
            refuse()
        return given

    def admit_signed(self, request: Request, webhook_id: str, body: bytes) -> None:
        """Let a body in that one of the secrets has signed, with its id and a timestamp of these minutes; 401."""
        if self._open and not self._signers:
            return
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": _timestamp(request),
            "webhook-signature": _signatures(_only(request, "webhook-signature")),
        }
        if not any(_verifies(signer, body, headers) for signer in self._signers):
            refuse()

    def _admit_bearer(self, request: Request, keys: list[bytes]) -> None:
        if self._open and not keys:
            return
        given = _only(request, "authorization")
        # A header is bytes, which the framework gives as Latin-1; a comparison of texts refuses other than ASCII.
        key = given[len(SCHEME) :].strip().encode("latin-1") if given[: len(SCHEME)].lower() == SCHEME else b""
        # Every key is compared, so that the time taken does not tell which one is near.
        matches = [hmac.compare_digest(key, known) for known in keys]
        if not any(matches):
            refuse()


def refuse() -> NoReturn:
    """Refuse a stranger, in the one way there is."""
    raise HTTPException(401, "not authorized", headers={"WWW-Authenticate": "Bearer"})


def _only(request: Request, name: str) -> str:
    """Give a header that must stand there once: of two, a proxy may have looked at the other."""
    values = request.headers.getlist(name)
    return values[0] if len(values) == 1 else ""


def _timestamp(request: Request) -> str:
    return _only(request, "webhook-timestamp")


def _signatures(header: str) -> str:
    """Keep those of a list of signatures that are spelled as a v1 signature is, in the one way base64 has for it."""
    kept = [one for one in header.split(" ") if one.startswith("v1,") and _is_canonical(one.removeprefix("v1,"))]
    return " ".join(kept[:MOST_SIGNATURES])


def _is_canonical(text: str) -> bool:
    try:
        signature = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(signature) == SIGNATURE_BYTES and base64.b64encode(signature).decode() == text


def _verifies(signer: Webhook, body: bytes, headers: dict[str, str]) -> bool:
    try:
        signer.verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True

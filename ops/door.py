"""The door for webhooks as an operator sees it: whether it can open, where it is, and what it says to a knock."""

from __future__ import annotations

import base64
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
from standardwebhooks import Webhook

from ops.listening import base_url, free_port, why_not
from ops.process import Child
from worker.configuration.webhooks import SECRET_PREFIX
from worker.settings import Settings

STEP_COMPLETE = "/webhooks/letta/step-complete"
"""Where a Letta server sends its own webhook: what its STEP_COMPLETE_WEBHOOK has to end with."""

COMPACTION = "/webhooks/compaction"
"""Where anybody who signs asks for a compaction."""

KEY_BYTES = 32
"""The length of the keys that are made here."""

ANSWER_SECONDS = 10.0
"""How long the door may take to answer; it answers at once, or its database is slow."""

READY_SECONDS = 1.0
"""The same for the look at a starting one, which is taken again and again."""


class DoorUnreachable(Exception):
    """Nobody answers where the door should be; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the door said. body: its JSON, None where it was none."""

    status: int
    body: Any


def can_open(settings: Settings) -> bool:
    """Tell whether there is anything that the door could let in; without it refuses to start."""
    return bool(settings.step_complete_key or settings.webhook_secrets or settings.webhook_open)


def address(settings: Settings) -> str:
    """Give the door's base URL as it is reached from this machine."""
    return base_url(settings.webhook_host, settings.webhook_port)


def keys(settings: Settings) -> str:
    """Put into words which keys are set, and how many; never a key."""
    count = len(settings.webhook_secrets)
    told = [
        "STEP_COMPLETE_KEY" if settings.step_complete_key else "",
        f"{count} signing secret{'s' if count > 1 else ''}" if count else "",
        "open to this machine without a key" if settings.webhook_open else "",
    ]
    return ", ".join(word for word in told if word) or "no key"


def new_secret() -> str:
    """Make a secret that signs webhooks, in the form of the Standard Webhooks specification."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def for_a_trial(settings: Settings) -> dict[str, str]:
    """Choose what a door beside a sandbox lacks: its two kinds of key, and a free port where the usual one is taken.

    A port that the settings name is kept: somebody else knows of it.
    """
    chosen = {}
    if settings.step_complete_key is None:
        chosen["STEP_COMPLETE_KEY"] = secrets.token_urlsafe(KEY_BYTES)
    if not settings.webhook_secrets:
        chosen["COMPACTOR_WEBHOOK_SECRETS"] = new_secret()
    if "webhook_port" not in settings.model_fields_set and why_not(settings.webhook_host, settings.webhook_port):
        chosen["COMPACTOR_WEBHOOK_PORT"] = str(free_port())
    return chosen


def child(settings: Settings, environment: Mapping[str, str], *, grace: float) -> Child:
    """Give the door's process. grace: seconds that requests under way get to be answered when it is stopped."""
    argv = [sys.executable, "-m", "scheduler.webhook"]
    return Child("door", argv, environment, ready=partial(_answers, address(settings)), grace=grace)


def ask(where: str, path: str, *, within: float = ANSWER_SECONDS) -> Answer:
    """GET a page of the door at a base URL. Raises DoorUnreachable."""
    return _exchange("GET", f"{where}{path}", {}, None, within)


def send(where: str, body: str, secret: str | None, *, webhook_id: str, at: datetime) -> Answer:
    """POST a signed webhook to the door at a base URL, once. Without a secret it goes unsigned, for an open door.

    Raises DoorUnreachable. No redirect is followed: a signature is meant for one address.
    """
    headers = {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
    }
    if secret is not None:
        headers["webhook-signature"] = Webhook(secret).sign(webhook_id, at.astimezone(UTC), body)
    return _exchange("POST", f"{where}{COMPACTION}", headers, body, ANSWER_SECONDS)


def _exchange(method: str, url: str, headers: Mapping[str, str], body: str | None, within: float) -> Answer:
    try:
        with httpx.Client(timeout=within, trust_env=False, follow_redirects=False) as http:
            response = http.request(method, url, headers=dict(headers), content=body)
    except httpx.TimeoutException:
        raise DoorUnreachable(f"no answer within {within:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise DoorUnreachable(str(error) or type(error).__name__) from None
    try:
        return Answer(response.status_code, response.json())
    except ValueError:
        return Answer(response.status_code, None)


def _answers(where: str) -> bool:
    return ask(where, "/healthz", within=READY_SECONDS).status == httpx.codes.OK

"""Webhooks as their senders sign them, and the keys that the tests' doors know."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from standardwebhooks import Webhook

KEY = "step-key"
"""The Letta server's."""

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""That of the Standard Webhooks specification's own libraries."""

OLD_SECRET = "whsec_" + "b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQt"
STRANGERS_SECRET = "whsec_" + "c3RyYW5nZXItc3RyYW5nZXItc3RyYW5n"

KEYS = {"STEP_COMPLETE_KEY": KEY, "COMPACTOR_WEBHOOK_SECRETS": f"{SECRET} {OLD_SECRET}"}
"""The environment of a door that knows them."""

STEP_COMPLETE, COMPACTION = "/webhooks/letta/step-complete", "/webhooks/compaction"

BEARER = {"Authorization": f"Bearer {KEY}"}
JSON = {"Content-Type": "application/json"}


def new_id(kind: str) -> str:
    """An id as a Letta server makes them: `conv-<uuid4>`."""
    return f"{kind}-{uuid4()}"


def signed(
    body: bytes, *, webhook_id: str | None = None, secret: str = SECRET, at: datetime | None = None
) -> dict[str, str]:
    """The headers of a signed webhook. at: when it was signed; now, if not told. Only text can be signed."""
    when = (at or datetime.now(UTC)).replace(microsecond=0)
    own_id = webhook_id or new_id("msg")
    return JSON | {
        "webhook-id": own_id,
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": Webhook(secret).sign(own_id, when, body.decode(errors="replace")),
    }

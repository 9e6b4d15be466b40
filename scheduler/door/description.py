"""What OpenAPI says of the door, beside what the routes say themselves: headers, bodies, and every answer there is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from scheduler.door.bodies import LONGEST_REASON, PRINTABLE
from scheduler.door.ids import AGENT_ID, CONVERSATION_ID, FOLLOWED_ID, STEP_ID, WEBHOOK_ID
from scheduler.door.reading import LIMIT

ABOUT = """Tell the compactor that something happened: it looks at the conversation, and compacts it if its policy
says so. What is answered 202 is in the ledger, and is looked into whatever happens to any process."""


class Refused(BaseModel):
    """Why a request was refused, in a sentence."""

    detail: str


class Accepted(BaseModel):
    """What was told is in the ledger. follow: the path that shows what becomes of it."""

    event_id: str
    follow: str


class Alive(BaseModel):
    """The process runs."""

    status: str


class Ready(BaseModel):
    """What the door needs: `here` or `away`, each."""

    status: str
    database: str
    broker: str


_LATER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}

_REFUSALS: dict[int, dict[str, Any]] = {
    400: {"description": "The body is not JSON, names something twice, or ended early."},
    401: {"description": "No key, a wrong one, or a signature that does not hold. The answer is always the same."},
    404: {"description": "There is no event and no compaction of this id."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": f"The body is longer than {LIMIT} bytes."},
    415: {"description": "The body does not call itself application/json in UTF-8, or is compressed."},
    422: {"description": "An id, a policy or a field is not what it has to be; the answer says which."},
    429: {"description": "Too many requests from this address.", "headers": _LATER},
    503: {"description": "The database is away or busy. Nothing is lost: send it again.", "headers": _LATER},
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals that an operation may answer with."""
    return {status: {"model": Refused, **_REFUSALS[status]} for status in statuses}


TAKING = refusals(400, 401, 408, 413, 415, 422, 429, 503)
SHOWING = refusals(401, 404, 422, 429, 503)


def _body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _one_string(name: str, pattern: str, where: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": where, "required": True, "schema": schema, "description": description}


_UUID = "3c1b1c8e-6f0e-4b7e-9a55-0d0f0c8f7a11"

STEP_COMPLETE = _body(
    {"type": "object", "required": ["step_id"], "properties": {"step_id": {"type": "string", "pattern": STEP_ID}}},
    {"step_id": f"step-{_UUID}"},
) | {"security": [{"key": []}]}

_NAMED = {"type": "string", "minLength": 1, "maxLength": 80}
_REASON = {"type": "string", "maxLength": LONGEST_REASON, "pattern": PRINTABLE}


def _asked(name: str, pattern: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name],
        "additionalProperties": False,
        "properties": {
            name: {"type": "string", "pattern": pattern},
            "policy": _NAMED | {"description": "A policy of the policy file; its default for webhooks otherwise."},
            "reason": _REASON | {"description": "The sender's own words, kept in the ledger."},
        },
    }


COMPACTION = _body(
    {"oneOf": [_asked("conversation_id", CONVERSATION_ID), _asked("agent_id", AGENT_ID)]},
    {"conversation_id": f"conv-{_UUID}", "reason": "the ticket was closed"},
) | {
    "parameters": [
        _one_string(
            "webhook-id",
            WEBHOOK_ID,
            "header",
            "The sender's own id of this webhook. The same again is answered the same, and does nothing.",
        ),
        _one_string("webhook-timestamp", "^[1-9][0-9]{0,11}$", "header", "Unix seconds, at most five minutes off."),
        _one_string(
            "webhook-signature",
            "^[ -~]+$",
            "header",
            "Standard Webhooks signatures (`v1,...`), separated by spaces: one that holds is enough.",
        ),
    ],
}

FOLLOWED = {
    "parameters": [_one_string("followed_id", FOLLOWED_ID, "path", "What a 202 named, or a compaction's id.")],
    "security": [{"key": []}],
}

SECURITY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "STEP_COMPLETE_KEY; to follow what becomes of an event, a signing secret does as well.",
    }
}

"""Identifiers and timestamps in the shapes that Letta uses: `conv-<uuid4>`, and RFC 3339 in UTC with microseconds."""

from __future__ import annotations

import random
import re
import uuid
from datetime import UTC, datetime

from sandbox.errors import BadRequest

USER_ID = "user-00000000-0000-4000-8000-000000000000"
"""The one user that a server without accounts has."""

ORGANIZATION_ID = "org-00000000-0000-4000-8000-000000000000"
"""The one organization of that user."""

DEFAULT_CONVERSATION = "default"
"""The path id of an agent's own conversation, which the conversation list does not show."""

_UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def id_pattern(prefix: str) -> str:
    """Return the regular expression of one kind of id, for example `^agent-<uuid4>$`."""
    return f"^{prefix}-{_UUID4}$"


AGENT_ID = id_pattern("agent")
CONVERSATION_ID = id_pattern("conv")
STEP_ID = id_pattern("step")
CONVERSATION_OR_DEFAULT = f"^({DEFAULT_CONVERSATION}|conv-{_UUID4}|agent-{_UUID4})$"

_ANY_CONVERSATION = re.compile(f"(conv|agent)-{_UUID4}")


def insist_on_format(kind: str, given: str) -> None:
    """Raise `BadRequest` when an id that is not part of a path has not the form of its kind."""
    if not re.match(id_pattern(kind), given):
        raise BadRequest(f"INVALID_ARGUMENT: Invalid {kind} ID format: {given}. Expected format: '{kind}-<uuid4>'")


def new_id(prefix: str, rng: random.Random | None = None) -> str:
    """Make a fresh id; with `rng` it is the next one of that generator, so that seeding repeats itself."""
    made = uuid.UUID(int=rng.getrandbits(128), version=4) if rng else uuid.uuid4()
    return f"{prefix}-{made}"


def ids_in(text: str) -> set[str]:
    """Find the conversation and agent ids that a path or a query string names."""
    return {found.group(0) for found in _ANY_CONVERSATION.finditer(text)}


def stamp(moment: datetime) -> str:
    """Write a moment so that the order of the texts is the order of the moments; without a zone it is taken as UTC."""
    known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return known.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def shown(kept: str | None) -> str | None:
    """Write a stamp as answers do: a fraction that is nothing is left out."""
    return kept.replace(".000000Z", "Z") if kept else None


def now() -> str:
    """Return the present moment as Letta writes it."""
    return stamp(datetime.now(UTC))


def spoken(when: str) -> str:
    """Write a stamp in the words in which the server tells models the time."""
    return datetime.fromisoformat(when).strftime("%Y-%m-%d %I:%M:%S %p %Z%z")


def offline_id(message_id: str, index: int) -> str:
    """Derive the offline threading id of one part of a message: the last seven bits are the part's index."""
    bits = uuid.UUID(message_id.removeprefix("message-")).int
    return str(uuid.UUID(int=(bits & ~0x7F) | index))

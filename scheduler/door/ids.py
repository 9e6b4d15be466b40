"""The ids that the door lets in, and how each is spelled: checked before one gets anywhere near a URL or a query."""

from __future__ import annotations

import re

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

STEP_ID = f"^step-{_UUID}$"
CONVERSATION_ID = f"^conv-{_UUID}$"
AGENT_ID = f"^agent-{_UUID}$"
FOLLOWED_ID = f"^(cmp|evt)-{_UUID}$"
"""What can be followed: a compaction, or an event that may lead to one."""

WEBHOOK_ID = "^[A-Za-z0-9_:=+/~-]{1,128}$"
"""A webhook's own id, the sender's choice. No dot: dots part what is signed."""

EVENT = "evt-"
"""How an event's id begins."""


def spelled(pattern: str, given: str) -> bool:
    """Tell whether an id is spelled as it has to be, from its first character to its last."""
    # `$` alone would let a line break pass behind the id.
    return re.fullmatch(pattern.removeprefix("^").removesuffix("$"), given) is not None

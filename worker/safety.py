"""Safety copies on the server: made by a fork before a compaction, removed when their time is over."""

from __future__ import annotations

import logging
from functools import partial

from worker.audit.records import Compaction
from worker.letta.client import Letta
from worker.letta.errors import LettaError, NotFound
from worker.loop import Interrupted
from worker.measure import Ref
from worker.policy.rules import Policy
from worker.service import Service

logger = logging.getLogger(__name__)

AT_ONCE = 50
"""Copies that one sweep removes."""


def make(service: Service, row: Compaction, policy: Policy) -> str:
    """Fork a conversation, write the fork down, and give its id. Raises LettaError where it could not be made."""
    ref = Ref(row.agent_id, row.conversation_id)
    copy = service.loop.call(lambda letta: letta.fork_conversation(ref.conversation_id, agent_id=ref.agent_in_request))
    now = service.now()
    service.ledger.safety_copies.made(
        copy.id, agent_id=row.agent_id, compaction_id=row.id, now=now, keep_until=now + policy.keep_safety_copies_for
    )
    return copy.id


async def _remove(conversation_id: str, letta: Letta) -> None:
    await letta.delete_conversation(conversation_id)


def remove_due(service: Service) -> int:
    """Remove the copies whose time is over. Gives how many; one that cannot be removed stays for the next sweep."""
    removed = 0
    for conversation_id in service.ledger.safety_copies.due(now=service.now(), limit=AT_ONCE):
        try:
            service.loop.call(partial(_remove, conversation_id))
        except NotFound:
            logger.info("the safety copy %s was gone already", conversation_id)
        except LettaError as error:
            logger.warning("the safety copy %s could not be removed: %s", conversation_id, error)
            continue
        except Interrupted:
            break
        service.ledger.safety_copies.removed(conversation_id, now=service.now())
        removed += 1
    return removed

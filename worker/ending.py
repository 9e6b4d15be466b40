"""The ways in which a row ends that changed nothing: given back for another attempt, refused, or failed."""

from __future__ import annotations

import random
from datetime import timedelta

from worker.audit.records import Compaction
from worker.handing import hand_out
from worker.policy.delays import after_failure, after_refusal, before_retry
from worker.service import Service
from worker.telemetry.story import tell

MOST_ATTEMPTS = 5
"""Claims of one row before it is closed as failed."""


def give_back(
    service: Service, row: Compaction, error: str, *, retry_after: float | None = None, at_once: bool = False
) -> str:
    """Return a row whose POST had no effect to the planned ones, for a later attempt; close it after the last one.

    retry_after: seconds that the server asks for; at_once: nothing is wrong with it, only its worker has to end.
    """
    if row.attempts >= MOST_ATTEMPTS and not at_once:
        return close_failed(service, row, "retries_spent", f"{row.attempts} attempts, the last one: {error}")
    wait = timedelta() if at_once else before_retry(row.attempts, random.random())  # noqa: S311 - jitter is no secret
    if retry_after is not None:
        wait = max(wait, timedelta(seconds=retry_after))
    service.ledger.compactions.release(row.id, error, owner=service.owner, not_before=service.now() + wait)
    hand_out(service, [row.id], delay=wait.total_seconds())
    return "released"


def refuse(service: Service, row: Compaction, outcome: str, sentence: str, *, put_off: bool = False) -> str:
    """Close a row that the server or the fresh look said no to. put_off: and leave the conversation alone for long."""
    closed = service.ledger.compactions.refuse(
        row,
        outcome,
        sentence,
        owner=service.owner,
        now=service.now(),
        delay=after_refusal if put_off else None,
    )
    tell(closed)
    return outcome


def close_failed(service: Service, row: Compaction, outcome: str, error: str) -> str:
    """Close a row as failed and put the conversation off."""
    compactions, now = service.ledger.compactions, service.now()
    tell(compactions.fail(row, outcome, error, owner=service.owner, now=now, delay=after_failure))
    return outcome

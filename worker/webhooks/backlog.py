"""What the sweep does for webhooks: events whose message was lost are sent again, and what is old is removed."""

from __future__ import annotations

from datetime import timedelta

from worker.service import Service

AT_ONCE, A_MESSAGE = 3000, 100
"""Events that one sweep sends again, and how many go in one message."""

PRUNED_AT_ONCE = 5000
"""Rows of a kind that one sweep removes: a delete of all that is old would hold the database up."""


def resend(service: Service) -> int:
    """Send events again that nobody is at. Gives how many went out; those that the broker did not take stay."""
    ledger, now = service.ledger, service.now()
    patience = timedelta(seconds=service.settings.message_patience)
    waiting = ledger.events.unclaimed(now=now, patience=patience, limit=AT_ONCE)
    for start in range(0, len(waiting), A_MESSAGE):
        message = waiting[start : start + A_MESSAGE]
        # Noted first, sent then: a worker that takes the message may give an event back before this process goes on.
        ledger.events.enqueued(message, now=now)
        if not service.outbox.events(message):
            ledger.events.not_enqueued(message)
            return start
    return len(waiting)


def prune(service: Service) -> int:
    """Remove what ended longer ago than the settings keep it. Gives how many rows."""
    before = service.now() - timedelta(days=service.settings.keep_events_for)
    return service.ledger.events.prune(before=before, limit=PRUNED_AT_ONCE) + service.ledger.deliveries.prune(
        before=before, limit=PRUNED_AT_ONCE
    )

"""What the doctor looks at of webhooks: the door, the events that wait, the deliveries that nobody takes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import httpx

from ops.door import Answer, DoorUnreachable, address, ask, can_open, keys
from ops.findings import Finding, fine, note, wrong
from ops.view import age
from worker.audit.database import LedgerError
from worker.audit.ledger import Ledger
from worker.audit.records import DeliveryState, EventState
from worker.clock import utc_now
from worker.settings import Settings

UNHANDLED = (EventState.RECEIVED, EventState.RUNNING)
"""The states of an event that no worker has looked into yet."""

TOO_LONG = timedelta(hours=1)
"""Retries of an event are over before that: one that still waits is waiting for a worker, not for a server."""


def door(settings: Settings) -> Iterator[Finding]:
    """Look at the door: whether it is to be open, with which keys, and whether it is."""
    if not can_open(settings):
        yield fine("door", "off: STEP_COMPLETE_KEY or COMPACTOR_WEBHOOK_SECRETS would open it")
        return
    where = address(settings)
    try:
        yield _judged(ask(where, "/readyz"), where, keys(settings))
    except DoorUnreachable as error:
        remedy = "start one: `python -m scheduler.webhook`, or `compactor up`"
        yield note("door", f"nobody answers at {where}: {error} (set: {keys(settings)})", remedy)


def _judged(answer: Answer, where: str, told: str) -> Finding:
    parts = answer.body if isinstance(answer.body, dict) else {}
    if not {"database", "broker"} <= set(parts):
        return note("door", f"what answers at {where} is not the door", "COMPACTOR_WEBHOOK_PORT says where it listens")
    if answer.status != httpx.codes.OK:
        return wrong("door", f"{where} answers, but its database does not", "see `ledger` above, and the door's log")
    if parts["broker"] == "away":
        return note("door", f"{where} answers, but its broker does not", "what comes in waits in the ledger")
    return fine("door", f"{where} answers; set: {told}")


def webhooks(settings: Settings) -> Iterator[Finding]:
    """Look at what the ledger has: events that wait for a worker, and webhooks that were given up."""
    try:
        opened = Ledger.open(settings.ledger_url)
    except LedgerError:
        return
    try:
        yield _events(opened)
        yield _deliveries(opened)
    except LedgerError as error:
        yield wrong("webhooks", str(error))
    finally:
        opened.close()


def _events(ledger: Ledger) -> Finding:
    counts, oldest = ledger.events.count_by_state(), ledger.events.oldest(UNHANDLED)
    count, watched = sum(counts.get(state, 0) for state in UNHANDLED), counts.get(EventState.WATCHED, 0)
    if oldest is None:
        return fine("events", f"none waits for a worker, {watched} for their conversations to fall idle")
    sentence = f"{count} wait for a worker, the oldest for {age(oldest)}"
    if oldest >= utc_now() - TOO_LONG:
        return fine("events", sentence)
    return wrong("events", sentence, "is a worker running? why they wait: `compactor webhooks events --state received`")


def _deliveries(ledger: Ledger) -> Finding:
    counts = ledger.deliveries.count_by_state()
    dead, pending = counts.get(DeliveryState.DEAD, 0), counts.get(DeliveryState.PENDING, 0)
    if not dead:
        return fine("deliveries", f"{pending} wait to be sent, none is dead")
    remedy = "see `compactor webhooks deliveries --state dead`, mend the endpoint, `compactor webhooks replay --dead`"
    return note("deliveries", f"{dead} are dead: their endpoint did not take them", remedy)

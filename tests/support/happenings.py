"""Events, watches and deliveries in the ledger, made the way the door and the workers make them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.support.rows import AGENT, LEASE, NOW, OWNER, closed
from worker.audit.announcer import Announcer
from worker.audit.deliveries import Delivery
from worker.audit.events import Arrival, Event, Receipt, Source
from worker.audit.ledger import Ledger
from worker.audit.records import State
from worker.audit.watches import Watch

IDLE_FOR = timedelta(minutes=5)
PATIENCE = timedelta(minutes=10)
POLICY = "default"
ENDPOINTS = ("https://one.example/hook", "https://two.example/hook")


def step(number: int | str, source: Source = Source.LETTA, **fields: Any) -> Arrival:
    """A server's word of a step."""
    return Arrival(source, f"step-{number}", **fields)


def received(ledger: Ledger, *arrivals: Arrival, now: datetime = NOW) -> list[Receipt]:
    """Have the door take arrivals."""
    return ledger.events.receive(arrivals, now=now)


def taken(
    ledger: Ledger, number: int | str = 1, source: Source = Source.LETTA, *, now: datetime = NOW, owner: str = OWNER
) -> Event:
    """A running event, held by its owner."""
    [receipt] = received(ledger, step(number, source), now=now)
    [event] = ledger.events.claim([receipt.event_id], now=now, owner=owner, lease=LEASE)
    return event


def watched(
    ledger: Ledger,
    number: int | str = 1,
    source: Source = Source.LETTA,
    *conversation_ids: str,
    now: datetime = NOW,
    usage: float | None = 0.8,
) -> Event:
    """An event whose conversations, or the one `conv-1`, are watched because of it; a signed one's are due at once."""
    event = taken(ledger, number, source, now=now)
    ledger.watches.watch(
        event,
        [(AGENT, id_) for id_ in conversation_ids or ("conv-1",)],
        policy=POLICY,
        usage=usage,
        due_at=now if source == Source.SIGNED else now + IDLE_FOR,
        owner=OWNER,
        now=now,
    )
    return there(ledger, event.id)


def due(ledger: Ledger, *, now: datetime, owner: str = OWNER, limit: int = 100) -> list[Watch]:
    """The watches that are claimed at a time."""
    return ledger.watches.due(now=now, owner=owner, lease=LEASE, limit=limit)


def finish(ledger: Ledger, watch: Watch, *, now: datetime, owner: str = OWNER) -> None:
    """Close a watch with a compaction that was planned for it."""
    ledger.watches.close(watch, owner=owner, reason="over_trigger", sentence="over it", compaction_id="cmp-1", now=now)


def there(ledger: Ledger, event_id: str) -> Event:
    """An event that is there."""
    event = ledger.events.get(event_id)
    assert event is not None
    return event


def announcing(ledger: Ledger, *endpoints: str, with_summary: bool = False) -> Ledger:
    """The same ledger, which tells endpoints (two, where none is named) of what is closed."""
    return Ledger(ledger.database, Announcer(endpoints or ENDPOINTS, with_summary=with_summary))


def told(ledger: Ledger) -> list[Delivery]:
    """All deliveries, by what they tell and whom."""
    return sorted(ledger.deliveries.recent(1000), key=lambda one: (one.type, one.endpoint))


def sendable(ledger: Ledger, count: int = 1) -> list[Delivery]:
    """Pending deliveries of as many failed compactions to one endpoint."""
    for number in range(count):
        closed(announcing(ledger, ENDPOINTS[0]), State.FAILED, f"conv-{number}", now=NOW + timedelta(seconds=number))
    return sorted(ledger.deliveries.recent(count), key=lambda one: one.created_at)

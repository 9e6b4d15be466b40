"""The ledger's events: what came in by the door, each once, from its receipt to its end.

received -> running (claim) -> done | failed, or -> watched: its conversation waits to fall idle, and the end of its
watch is the event's (see `worker.audit.watches`). What is answered to a sender is committed here first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, TextClause, and_, delete, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.audit.columns import storable
from worker.audit.compactions import LostClaim
from worker.audit.database import Database
from worker.audit.eventtables import RECEIVED, events
from worker.audit.records import EventState, Record

_T = TypeVar("_T")
_Condition = ColumnElement[bool] | TextClause

ROWS_A_QUERY = 500

BY_RECEIVED = "INDEXED BY ix_events_received"

HANDED_ON_WITHIN = timedelta(seconds=15)
"""The time that the door gets to hand a received event to the broker, before somebody else does."""


class Source(StrEnum):
    """Who sends: a Letta server itself, about a step; or anyone who signs, about a conversation."""

    LETTA = "letta"
    SIGNED = "signed"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as the door took it. key: the step's id, or the webhook's; note: the sender's own reason."""

    source: Source
    key: str
    conversation_id: str | None = None
    agent_id: str | None = None
    policy: str | None = None
    note: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The event that an arrival is. is_new: False where the same has come before."""

    event_id: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Event(Record):
    """One event, open or closed. usage: the step's own, tokens over the window."""

    id: str
    source: str
    key: str
    state: str
    conversation_id: str | None
    agent_id: str | None
    policy: str | None
    note: str | None
    usage: float | None
    reason: str | None
    sentence: str | None
    compaction_id: str | None
    attempts: int
    received_at: datetime
    enqueued_at: datetime | None
    not_before: datetime | None
    lease_owner: str | None
    lease_until: datetime | None
    finished_at: datetime | None
    trace: str | None = None


class Events:
    """Receive, claim and close events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def receive(self, arrivals: Sequence[Arrival], *, now: datetime) -> list[Receipt]:
        """Commit a batch of arrivals in one transaction; gives a receipt for each, in their order.

        The same source and key again is the same event, whether in this batch, in an older one, or in one that
        another process commits at this moment: it gets the id that was given first, and nothing is written.
        """
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for arrival in arrivals:
            rows.setdefault((arrival.source, arrival.key), _row(arrival, now))
        known: dict[tuple[str, str], str] = {}
        new: set[str] = set()
        with self._database.write() as connection:
            # What is neither new nor there was removed between the two looks, and is taken in the next round.
            while missing := [key for key in rows if key not in known]:
                new |= insert_events(connection, [rows[key] for key in missing])
                known |= {key: rows[key]["id"] for key in missing if rows[key]["id"] in new}
                known |= _ids(connection, [key for key in missing if key not in known])
        receipts = []
        for arrival in arrivals:
            event_id = known[arrival.source, arrival.key]
            receipts.append(Receipt(event_id, is_new=event_id in new))
            new.discard(event_id)
        return receipts

    def get(self, event_id: str) -> Event | None:
        """Give one event."""
        with self._database.read() as connection:
            row = connection.execute(select(events).where(events.c.id == event_id)).one_or_none()
        return None if row is None else Event.of(row)

    def recent(self, limit: int, *, states: Sequence[EventState] | None = None) -> list[Event]:
        """Give the latest events, the newest first."""
        found: list[Event] = []
        with self._database.read() as connection:
            # State by state, since that is how the index has them.
            for state in states if states is not None else EventState:
                query = select(events).where(events.c.state == state).order_by(events.c.received_at.desc())
                found += [Event.of(row) for row in connection.execute(query.limit(limit))]
        return sorted(found, key=lambda event: (event.received_at, event.id), reverse=True)[:limit]

    def count_by_state(self) -> dict[str, int]:
        """Count the events in each state; a state without any is left out."""
        with self._database.read() as connection:
            rows = connection.execute(select(events.c.state, func.count()).group_by(events.c.state))
            return {row[0]: int(row[1]) for row in rows}

    def oldest(self, states: Sequence[EventState]) -> datetime | None:
        """Tell when the oldest event in one of these states came; None where there is none."""
        with self._database.read() as connection:
            query = select(func.min(events.c.received_at))
            found = [connection.scalar(query.where(events.c.state == state)) for state in states]
        return min((moment for moment in found if moment is not None), default=None)

    def enqueued(self, event_ids: Sequence[str], *, now: datetime) -> None:
        """Note that messages for these events go to the broker."""
        self._note(event_ids, enqueued_at=now)

    def not_enqueued(self, event_ids: Sequence[str]) -> None:
        """Take that note back: the broker did not take their messages."""
        self._note(event_ids, enqueued_at=None)

    def unclaimed(self, *, now: datetime, patience: timedelta, limit: int) -> list[str]:
        """Find events that nobody is at: no message was sent, or none was taken in time, or its worker died."""
        enqueued, not_before, received = events.c.enqueued_at, events.c.not_before, events.c.received_at
        fresh, again = not_before.is_(None), not_before <= now
        ways = (
            (and_(enqueued.is_(None), fresh, received < now - HANDED_ON_WITHIN), received),
            (and_(enqueued.is_(None), again), not_before),
            (and_(enqueued < now - patience, or_(fresh, again)), enqueued),
        )
        # Without statistics SQLite takes the index over all states, and reads every received event at each sweep.
        waiting = select(events.c.id).where(text(RECEIVED)).with_hint(events, BY_RECEIVED, "sqlite")
        died = select(events.c.id).where(_abandoned(now)).order_by(events.c.lease_until)
        found: list[str] = []
        with self._database.read() as connection:
            for query in (*(waiting.where(condition).order_by(order) for condition, order in ways), died):
                found += connection.scalars(query.limit(limit - len(found)))
        return found

    def claim(self, event_ids: Sequence[str], *, now: datetime, owner: str, lease: timedelta) -> list[Event]:
        """Take those of these events that are to be looked at, the oldest first.

        Left out are events that are another's, closed, watched, or not due again yet.
        """
        due = and_(text(RECEIVED), or_(events.c.not_before.is_(None), events.c.not_before <= now))
        values = {
            "state": EventState.RUNNING,
            "attempts": events.c.attempts + 1,
            "lease_owner": owner,
            "lease_until": now + lease,
        }
        claimed: list[Event] = []
        with self._database.write() as connection:
            for ids in _locked(connection, event_ids, or_(due, _abandoned(now))):
                taken = update(events).where(events.c.id.in_(ids)).values(**values).returning(events)
                claimed += [Event.of(row) for row in connection.execute(taken)]
        return sorted(claimed, key=lambda event: (event.received_at, event.id))

    def close(
        self, event_id: str, *, owner: str, reason: str, sentence: str, usage: float | None = None, now: datetime
    ) -> None:
        """Close an event that was looked at and leads no further."""
        self._end(
            EventState.DONE, event_id, owner, reason=reason, sentence=storable(sentence), usage=usage, finished_at=now
        )

    def fail(self, event_id: str, *, owner: str, reason: str, sentence: str, now: datetime) -> None:
        """Close an event that cannot be looked at."""
        self._end(EventState.FAILED, event_id, owner, reason=reason, sentence=storable(sentence), finished_at=now)

    def release(self, event_id: str, *, owner: str, sentence: str, not_before: datetime) -> None:
        """Give an event back as received, for a later attempt."""
        self._end(
            EventState.RECEIVED, event_id, owner, sentence=storable(sentence), not_before=not_before, enqueued_at=None
        )

    def prune(self, *, before: datetime, limit: int) -> int:
        """Remove events that were closed before a time, the oldest first; gives how many."""
        old = select(events.c.id).where(events.c.finished_at < before)
        with self._database.write() as connection:
            oldest = old.order_by(events.c.finished_at).limit(limit)
            return connection.execute(delete(events).where(events.c.id.in_(oldest))).rowcount

    def _note(self, event_ids: Sequence[str], *, enqueued_at: datetime | None) -> None:
        with self._database.write() as connection:
            for ids in _locked(connection, event_ids, text(RECEIVED)):
                connection.execute(update(events).where(events.c.id.in_(ids)).values(enqueued_at=enqueued_at))

    def _end(self, state: EventState, event_id: str, owner: str, **values: Any) -> None:
        with self._database.write() as connection:
            held(connection, event_id, owner)
            connection.execute(
                update(events)
                .where(events.c.id == event_id)
                .values(state=state, lease_owner=None, lease_until=None, **values)
            )


def held(connection: Connection, event_id: str, owner: str) -> None:
    """Lock a running event for its owner; raises LostClaim where it is not held any more."""
    query = select(events.c.id).where(events.c.id == event_id, events.c.lease_owner == owner)
    if connection.execute(query.with_for_update()).one_or_none() is None:
        raise LostClaim(f"event {event_id} is not held by {owner} any more")


def insert_events(connection: Connection, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Write rows whose source and key are not there yet, in one statement; gives the ids that were written.

    Two batches with the same keys would wait for each other in a ring, but for the one order that all take.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(events).on_conflict_do_nothing(index_elements=["key", "source"])
    ordered = sorted(rows, key=lambda row: (row["key"], row["source"]))
    return set(connection.scalars(statement.returning(events.c.id), ordered))


def _row(arrival: Arrival, now: datetime) -> dict[str, Any]:
    return {
        "id": f"evt-{uuid4()}",
        "source": arrival.source,
        "key": arrival.key,
        "state": EventState.RECEIVED,
        "conversation_id": arrival.conversation_id,
        "agent_id": arrival.agent_id,
        "policy": arrival.policy,
        "note": None if arrival.note is None else storable(arrival.note),
        "received_at": now,
        "trace": arrival.trace,
    }


def _ids(connection: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for source in Source:
        for chunk in _chunks([key for of, key in keys if of == source]):
            query = select(events.c.key, events.c.id).where(events.c.source == source, events.c.key.in_(chunk))
            found |= {(source, row.key): row.id for row in connection.execute(query)}
    return found


def _abandoned(now: datetime) -> ColumnElement[bool]:
    """Only a running event has a lease."""
    return events.c.lease_until < now


def _locked(connection: Connection, event_ids: Sequence[str], condition: _Condition) -> Iterator[list[str]]:
    """Lock those events that a condition holds for, all in one order, so that no two wait for each other."""
    for chunk in _chunks(sorted(set(event_ids))):
        query = select(events.c.id).where(events.c.id.in_(chunk), condition).order_by(events.c.id)
        if ids := list(connection.scalars(query.with_for_update())):
            yield ids


def _chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), ROWS_A_QUERY):
        yield values[start : start + ROWS_A_QUERY]

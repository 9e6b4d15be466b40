"""The ledger's watches: a conversation that events drew attention to, until it has been decided about.

One row for a conversation and a policy, however many events there are: each moves the time at which the conversation
is looked at. The end of a watch is the end of the events that its claim has seen; what came later keeps it open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, or_, select, text, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.audit.columns import storable
from worker.audit.compactions import LostClaim
from worker.audit.conversations import Key
from worker.audit.database import Database
from worker.audit.events import Event, Source, held, insert_events
from worker.audit.eventtables import WATCHED, events, watches
from worker.audit.records import EventState, Record

_KEY = (watches.c.agent_id, watches.c.conversation_id, watches.c.policy)


@dataclass(frozen=True, slots=True)
class Watch(Record):
    """One watched conversation. events: those that wait for it; usage: the newest that an event told.

    revision: how many events there were; attempts: how often in a row it was put off for the reason that it has.
    """

    agent_id: str
    conversation_id: str
    policy: str
    due_at: datetime
    first_event_at: datetime
    last_event_at: datetime
    events: int
    usage: float | None
    attempts: int
    reason: str | None
    sentence: str | None
    lease_owner: str | None
    lease_until: datetime | None
    revision: int
    trace: str | None = None


class Watches:
    """Watch conversations, claim those that are due, and put them off or close them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def watch(
        self,
        event: Event,
        refs: Sequence[Key],
        *,
        policy: str,
        usage: float | None,
        due_at: datetime,
        owner: str,
        now: datetime,
    ) -> None:
        """Have conversations watched because of a claimed event, in one transaction; the event is then watched too.

        refs: at least one; of several each further one gets an event of its own beside this one. due_at: a Letta
        server's later event puts the look off, a signed one never does. Raises LostClaim.
        """
        first, *further = dict.fromkeys(refs)
        with self._database.write() as connection:
            held(connection, event.id, owner)
            # All go through the rows in one order, so that no two wait for each other.
            revisions = {
                ref: _upsert(connection, event, ref, policy=policy, usage=usage, due_at=due_at)
                for ref in sorted((first, *further))
            }
            values = {"state": EventState.WATCHED, "policy": policy, "usage": usage, "not_before": None}
            connection.execute(
                update(events)
                .where(events.c.id == event.id)
                .values(**values, **_place(first, revisions), lease_owner=None, lease_until=None)
            )
            if further:
                insert_events(
                    connection, [_sibling(event, ref, now) | values | _place(ref, revisions) for ref in further]
                )

    def due(self, *, now: datetime, owner: str, lease: timedelta, limit: int) -> list[Watch]:
        """Claim the watches whose time has come, the longest due first."""
        free = or_(watches.c.lease_until.is_(None), watches.c.lease_until < now)
        query = select(*_KEY).where(watches.c.due_at <= now, free).order_by(watches.c.due_at, *_KEY)
        with self._database.write() as connection:
            keys = [tuple(row) for row in connection.execute(query.limit(limit).with_for_update(skip_locked=True))]
            rows = connection.execute(
                update(watches)
                .where(tuple_(*_KEY).in_(keys))
                .values(lease_owner=owner, lease_until=now + lease)
                .returning(watches)
            ).all()
        return sorted((Watch.of(row) for row in rows), key=lambda one: (one.due_at, *_key(one)))

    def put_off(self, watch: Watch, *, owner: str, due_at: datetime, reason: str | None, sentence: str | None) -> None:
        """Give a claimed watch back until a time, or until a later one that an event has set meanwhile.

        Raises LostClaim.
        """
        with self._database.write() as connection:
            kept = _held(connection, watch, owner)
            connection.execute(
                update(watches)
                .where(_is(watch))
                .values(
                    due_at=max(due_at, kept.due_at),
                    attempts=kept.attempts + 1 if kept.reason == reason else 1,
                    reason=reason,
                    sentence=None if sentence is None else storable(sentence),
                    lease_owner=None,
                    lease_until=None,
                )
            )

    def close(
        self,
        watch: Watch,
        *,
        owner: str,
        reason: str,
        sentence: str,
        compaction_id: str | None = None,
        now: datetime,
    ) -> None:
        """Close a claimed watch and the events that its claim had seen; it stays, as new, for later ones.

        Raises LostClaim.
        """
        with self._database.write() as connection:
            kept = _held(connection, watch, owner)
            connection.execute(
                update(events)
                .where(_waits_for(watch), events.c.watch_revision <= watch.revision)
                .values(
                    state=EventState.DONE,
                    reason=reason,
                    sentence=storable(sentence),
                    compaction_id=compaction_id,
                    finished_at=now,
                )
            )
            if kept.revision == watch.revision:
                connection.execute(delete(watches).where(_is(watch)))
            else:
                _keep_for_later(connection, watch)

    def waiting(self, limit: int) -> list[Watch]:
        """Give the watched conversations, the soonest due first."""
        query = select(watches).order_by(watches.c.due_at, watches.c.agent_id, watches.c.conversation_id)
        with self._database.read() as connection:
            return [Watch.of(row) for row in connection.execute(query.limit(limit))]


def _upsert(
    connection: Connection, event: Event, ref: Key, *, policy: str, usage: float | None, due_at: datetime
) -> int:
    """Count an event in its conversation's watch, making the watch at the first; gives which change it was."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    at = event.received_at
    statement = dialect.insert(watches).values(
        agent_id=ref[0],
        conversation_id=ref[1],
        policy=policy,
        due_at=due_at,
        first_event_at=at,
        last_event_at=at,
        events=1,
        revision=1,
        usage=usage,
        trace=event.trace,
    )
    there, new = watches.c, statement.excluded
    due = _earlier if event.source == Source.SIGNED else _later
    statement = statement.on_conflict_do_update(
        index_elements=[there.agent_id, there.conversation_id, there.policy],
        set_={
            "due_at": due(there.due_at, new.due_at),
            "first_event_at": _earlier(there.first_event_at, new.first_event_at),
            "last_event_at": _later(there.last_event_at, new.last_event_at),
            "events": there.events + 1,
            "revision": there.revision + 1,
            "usage": func.coalesce(new.usage, there.usage),
            "trace": func.coalesce(new.trace, there.trace),
        },
    )
    return int(connection.execute(statement.returning(watches.c.revision)).scalar_one())


def _place(ref: Key, revisions: dict[Key, int]) -> dict[str, Any]:
    return {"agent_id": ref[0], "conversation_id": ref[1], "watch_revision": revisions[ref]}


def _sibling(event: Event, ref: Key, now: datetime) -> dict[str, Any]:
    """Give an event for one more conversation that a step may have been in."""
    return {
        "id": f"evt-{uuid4()}",
        "source": event.source,
        "key": f"{event.key} {ref[0]}/{ref[1]}",
        "note": event.note,
        "attempts": event.attempts,
        "trace": event.trace,
        "received_at": event.received_at,
        "enqueued_at": event.enqueued_at or now,
    }


def _held(connection: Connection, watch: Watch, owner: str) -> Watch:
    """Lock a watch for the claim that is held; a later claim, even by the same owner, has another lease."""
    ours = and_(_is(watch), watches.c.lease_owner == owner, watches.c.lease_until == watch.lease_until)
    row = connection.execute(select(watches).where(ours).with_for_update()).one_or_none()
    if row is None:
        raise LostClaim(f"the watch on conversation {watch.conversation_id} is not held by {owner} any more")
    return Watch.of(row)


def _keep_for_later(connection: Connection, watch: Watch) -> None:
    """Leave a watch to the events that came after its claim, as if it had begun with them."""
    count, first = connection.execute(
        select(func.count(), func.min(events.c.received_at)).where(_waits_for(watch))
    ).one()
    connection.execute(
        update(watches)
        .where(_is(watch))
        .values(
            events=count,
            first_event_at=first,
            attempts=0,
            reason=None,
            sentence=None,
            lease_owner=None,
            lease_until=None,
        )
    )


def _key(watch: Watch) -> tuple[str, str, str]:
    return watch.agent_id, watch.conversation_id, watch.policy


def _is(row: Watch) -> ColumnElement[bool]:
    return and_(
        watches.c.agent_id == row.agent_id,
        watches.c.conversation_id == row.conversation_id,
        watches.c.policy == row.policy,
    )


def _waits_for(watch: Watch) -> ColumnElement[bool]:
    return and_(
        text(WATCHED),
        events.c.agent_id == watch.agent_id,
        events.c.conversation_id == watch.conversation_id,
        events.c.policy == watch.policy,
    )


def _later(one: ColumnElement[datetime], other: ColumnElement[datetime]) -> ColumnElement[datetime]:
    return case((one < other, other), else_=one)


def _earlier(one: ColumnElement[datetime], other: ColumnElement[datetime]) -> ColumnElement[datetime]:
    return case((one < other, one), else_=other)

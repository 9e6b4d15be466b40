"""The ledger's deliveries: what is to be told to others, one row for each endpoint, until it took it.

A row is written in the transaction that closes what it tells of (see `worker.audit.announcer`), never elsewhere: so
nothing is told that did not happen, and nothing that happened is left untold.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update

from worker.audit.announcer import HEARTBEAT
from worker.audit.columns import storable
from worker.audit.compactions import LostClaim
from worker.audit.database import Database
from worker.audit.eventtables import deliveries
from worker.audit.records import DeliveryState, Record

OVER = (DeliveryState.DELIVERED, DeliveryState.DEAD)


@dataclass(frozen=True, slots=True)
class Delivery(Record):
    """One message to one endpoint. id: sent as `webhook-id`; body: exactly what is signed and sent.

    subject_id: the compaction or scan that it tells of; attempts: sendings begun since it was last made pending.
    """

    id: str
    endpoint: str
    type: str
    subject_id: str
    body: str
    state: str
    attempts: int
    next_at: datetime | None
    last_status: int | None
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None
    lease_owner: str | None
    lease_until: datetime | None


class Deliveries:
    """Claim what is to be sent, and write down how it went."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim_due(
        self, *, now: datetime, owner: str, lease: timedelta, limit: int, apart_from: Collection[str] = ()
    ) -> list[Delivery]:
        """Take pending deliveries whose time has come, the longest due first. apart_from: endpoints left alone."""
        free = or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until < now)
        query = select(deliveries.c.id).where(deliveries.c.next_at <= now, free)
        if apart_from:
            query = query.where(deliveries.c.endpoint.not_in(sorted(apart_from)))
        query = query.order_by(deliveries.c.next_at, deliveries.c.created_at).limit(limit)
        with self._database.write() as connection:
            ids = list(connection.scalars(query.with_for_update(skip_locked=True)))
            rows = connection.execute(
                update(deliveries)
                .where(deliveries.c.id.in_(ids))
                .values(attempts=deliveries.c.attempts + 1, lease_owner=owner, lease_until=now + lease)
                .returning(deliveries)
            ).all()
        return sorted((Delivery.of(row) for row in rows), key=lambda one: (one.next_at or now, one.created_at, one.id))

    def delivered(self, delivery_id: str, *, owner: str, status: int, now: datetime) -> None:
        """Close a delivery that its endpoint took; status: HTTP. Raises LostClaim."""
        self._own(
            delivery_id,
            owner,
            state=DeliveryState.DELIVERED,
            last_status=status,
            last_error=None,
            next_at=None,
            delivered_at=now,
        )

    def failed(
        self,
        delivery_id: str,
        *,
        owner: str,
        status: int | None,
        error: str,
        next_at: datetime | None,
        now: datetime,
    ) -> None:
        """Write down an attempt that failed. next_at: when to try again; None: never, it is dead. Raises LostClaim."""
        del now
        state = DeliveryState.DEAD if next_at is None else DeliveryState.PENDING
        self._own(delivery_id, owner, state=state, last_status=status, last_error=storable(error), next_at=next_at)

    def get(self, delivery_id: str) -> Delivery | None:
        """Give one delivery."""
        with self._database.read() as connection:
            row = connection.execute(select(deliveries).where(deliveries.c.id == delivery_id)).one_or_none()
        return None if row is None else Delivery.of(row)

    def recent(self, limit: int, *, state: str | None = None) -> list[Delivery]:
        """Give the latest deliveries, the newest first."""
        found: list[Delivery] = []
        with self._database.read() as connection:
            # State by state, since that is how the index has them.
            for wanted in DeliveryState if state is None else [state]:
                query = select(deliveries).where(deliveries.c.state == wanted)
                rows = connection.execute(query.order_by(deliveries.c.created_at.desc()).limit(limit))
                found += [Delivery.of(row) for row in rows]
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)[:limit]

    def count_by_state(self) -> dict[str, int]:
        """Count the deliveries in each state; a state without any is left out."""
        with self._database.read() as connection:
            rows = connection.execute(select(deliveries.c.state, func.count()).group_by(deliveries.c.state))
            return {row[0]: int(row[1]) for row in rows}

    def replay(self, delivery_ids: Sequence[str], *, now: datetime) -> int:
        """Have these sent again, dead or delivered, under the ids they had; gives how many."""
        return self._replay(and_(deliveries.c.id.in_(delivery_ids), deliveries.c.state.in_(OVER)), now)

    def replay_dead(self, *, now: datetime) -> int:
        """Have all dead ones sent again; gives how many."""
        return self._replay(deliveries.c.state == DeliveryState.DEAD, now)

    def prune(self, *, before: datetime, limit: int) -> int:
        """Remove deliveries that are over and were made before a time; gives how many."""
        old = select(deliveries.c.id).where(deliveries.c.state.in_(OVER), deliveries.c.created_at < before)
        with self._database.write() as connection:
            return connection.execute(delete(deliveries).where(deliveries.c.id.in_(old.limit(limit)))).rowcount

    def _replay(self, which: ColumnElement[bool], now: datetime) -> int:
        pending = {"state": DeliveryState.PENDING, "next_at": now, "attempts": 0, "delivered_at": None}
        with self._database.write() as connection:
            # A heartbeat that is sent again would say that a scan has finished now.
            query = update(deliveries).where(which, deliveries.c.type != HEARTBEAT)
            return connection.execute(query.values(**pending)).rowcount

    def _own(self, delivery_id: str, owner: str, **values: Any) -> None:
        ours = and_(deliveries.c.id == delivery_id, deliveries.c.lease_owner == owner)
        with self._database.write() as connection:
            done = connection.execute(
                update(deliveries).where(ours).values(**values, lease_owner=None, lease_until=None)
            )
        if done.rowcount == 0:
            raise LostClaim(f"delivery {delivery_id} is not held by {owner} any more")

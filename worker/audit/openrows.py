"""Finding open rows that need somebody: planned ones without a message, running ones without a living owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_, select

from worker.audit.database import Database
from worker.audit.records import State
from worker.audit.tables import compactions


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A running row whose lease ran out. owned: it has an owner, who may only be slow; heartbeats: seen so far."""

    id: str
    owned: bool
    heartbeats: int


class OpenRows:
    """Look through the open rows; there are as many as conversations at work, never more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unclaimed(self, *, now: datetime, patience: timedelta, limit: int) -> list[str]:
        """Find planned rows that are due and whose message seems lost: none was sent, or none was taken in time."""
        silent = or_(compactions.c.enqueued_at.is_(None), compactions.c.enqueued_at < now - patience)
        return self._planned(silent, now, limit)

    def waiting(self, *, now: datetime, limit: int) -> list[str]:
        """Find planned rows that are due and have no message under way, the oldest first."""
        return self._planned(compactions.c.enqueued_at.is_(None), now, limit)

    def abandoned(self, *, now: datetime, limit: int) -> list[Abandoned]:
        """Find running rows whose lease ran out: their worker died, or left them to be looked at."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(compactions.c.id, compactions.c.lease_owner, compactions.c.heartbeats)
                .where(compactions.c.state == State.RUNNING, compactions.c.lease_until < now)
                .order_by(compactions.c.planned_at)
                .limit(limit)
            ).all()
        return [Abandoned(row.id, row.lease_owner is not None, row.heartbeats) for row in rows]

    def _planned(self, condition: ColumnElement[bool], now: datetime, limit: int) -> list[str]:
        due = or_(compactions.c.not_before.is_(None), compactions.c.not_before <= now)
        with self._database.read() as connection:
            return list(
                connection.scalars(
                    select(compactions.c.id)
                    .where(compactions.c.state == State.PLANNED, condition, due)
                    .order_by(compactions.c.planned_at)
                    .limit(limit)
                )
            )

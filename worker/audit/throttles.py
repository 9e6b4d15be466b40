"""The fleet's limits and breakers, where every worker sees them: a row for the fleet, one for each model handle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.audit.database import Database
from worker.audit.records import State
from worker.audit.tables import compactions, throttles
from worker.throttle import Breaker, Throttle

FLEET = "*"
"""The row that counts every compaction, whatever its model."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured limits on compactions under way: of the whole fleet, and of each model handle."""

    fleet: int
    model: int

    def of(self, handle: str) -> int:
        """Give the limit that holds for a row."""
        return self.fleet if handle == FLEET else self.model


class Throttles:
    """Read and change limits; each change is one short transaction with the row locked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def change(self, handle: str, limits: Limits, how: Callable[[Throttle], Throttle]) -> Throttle:
        """Change one row and give what it is now."""
        with self._database.write() as connection:
            before = locked(connection, handle, limits)
            after = how(before)
            if after != before:
                values = {name: value for name, value in asdict(after).items() if name != "most"}
                connection.execute(update(throttles).where(throttles.c.handle == handle).values(**values))
        return after

    def open_handles(self, now: datetime, limits: Limits) -> dict[str, Throttle]:
        """Give the handles whose breaker is open at this time."""
        return {
            handle: throttle for handle, throttle in self.all(limits).items() if throttle.breaker(now) is Breaker.OPEN
        }

    def all(self, limits: Limits) -> dict[str, Throttle]:
        """Give every row by its handle."""
        with self._database.read() as connection:
            rows = connection.execute(select(throttles).order_by(throttles.c.handle)).all()
        return {row.handle: _throttle(row._mapping, limits.of(row.handle)) for row in rows}


def admits(connection: Connection, handle: str, limits: Limits, now: datetime) -> bool:
    """Tell, inside the transaction that would claim, whether the fleet and the model have room for one more.

    The fleet's row is locked first by everybody: claims are short, and go one after the other.
    """
    fleet = locked(connection, FLEET, limits)
    model = locked(connection, handle, limits)
    counts = connection.execute(
        select(compactions.c.model, func.count())
        .where(compactions.c.state == State.RUNNING)
        .group_by(compactions.c.model)
    )
    under_way = {row[0]: int(row[1]) for row in counts}
    return fleet.admits(sum(under_way.values()), now) and model.admits(under_way.get(handle, 0), now)


def locked(connection: Connection, handle: str, limits: Limits) -> Throttle:
    """Read a row for changing it, making it at first sight."""
    query = select(throttles).where(throttles.c.handle == handle).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        fresh = {"handle": handle, "limit": float(limits.of(handle)), "failures_in_row": 0, "openings": 0}
        connection.execute(dialect.insert(throttles).values(**fresh).on_conflict_do_nothing())
        row = connection.execute(query).one()
    return _throttle(row._mapping, limits.of(handle))


def _throttle(row: RowMapping, most: int) -> Throttle:
    return Throttle(
        most=most,
        limit=row["limit"],
        paused_until=row["paused_until"],
        failures_in_row=row["failures_in_row"],
        openings=row["openings"],
        open_until=row["open_until"],
    )

"""What a monitor reads off the ledger: a handful of short queries over sums, open rows and what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from worker.audit.database import Database
from worker.audit.records import DeliveryState, EventState, State
from worker.audit.tables import compactions, deliveries, events, scan_totals, totals, watches, webhook_answers
from worker.audit.totaltables import EVER

KEPT_EVENTS = (EventState.RECEIVED, EventState.RUNNING, EventState.WATCHED, EventState.FAILED)
"""Those that are done are left out: they are many, and pruned, so that a count of them would tell nothing."""
UNHANDLED_EVENTS = (EventState.RECEIVED, EventState.RUNNING)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """The ledger's figures at one moment. compactions, scans: rows of the kept sums, all their days together.

    under_way: running compactions by model; events, deliveries: by state; answers: the door's, by (route, status).
    """

    compactions: list[Row]
    scans: list[Row]
    open_rows: dict[str, int]
    under_way: dict[str, int]
    oldest_planned_at: datetime | None
    events: dict[str, int]
    oldest_event_at: datetime | None
    watches: int
    deliveries: dict[str, int]
    answers: dict[tuple[str, int], int]


class Monitoring:
    """Read every figure at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def figures(self) -> Figures:
        """Give the figures as they stand, of one transaction."""
        with self._database.read() as connection:
            open_rows = _open_rows(connection)
            counts: Counter[str] = Counter()
            under_way: Counter[str] = Counter()
            for state, model, count, _ in open_rows:
                counts[state] += count
                under_way[model] += count if state == State.RUNNING else 0
            return Figures(
                compactions=_compactions(connection),
                scans=[dict(row._mapping) for row in connection.execute(select(scan_totals))],
                open_rows={state: counts[state] for state in (State.PLANNED, State.RUNNING)},
                under_way=dict(under_way),
                oldest_planned_at=min((at for state, *_, at in open_rows if state == State.PLANNED), default=None),
                events={state: _count(connection, events, state) for state in KEPT_EVENTS},
                oldest_event_at=connection.scalar(
                    select(func.min(events.c.received_at)).where(events.c.state.in_(UNHANDLED_EVENTS))
                ),
                watches=connection.execute(select(func.count()).select_from(watches)).scalar_one(),
                deliveries={
                    state: _count(connection, deliveries, state)
                    for state in (DeliveryState.PENDING, DeliveryState.DEAD)
                },
                answers={(row.route, row.status): row.answers for row in connection.execute(select(webhook_answers))},
            )


def _compactions(connection: Connection) -> list[Row]:
    return [dict(row._mapping) for row in connection.execute(select(totals).where(totals.c.day == EVER))]


def _open_rows(connection: Connection) -> list[tuple[str, str, int, datetime]]:
    c = compactions.c
    query = (
        select(c.state, c.model, func.count(), func.min(c.planned_at))
        .where(c.state.in_((State.PLANNED, State.RUNNING)))
        .group_by(c.state, c.model)
    )
    return [(row[0], row[1], row[2], row[3]) for row in connection.execute(query)]


def _count(connection: Connection, table: Any, state: str) -> int:
    return connection.execute(select(func.count()).where(table.c.state == state)).scalar_one()

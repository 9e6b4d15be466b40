"""A month of events is a million rows: what a beat or a door asks every few seconds goes by an index, never by all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from tests.support.happenings import PATIENCE, due, received, step, watched
from tests.support.rows import LEASE, NOW, OWNER
from worker.audit.ledger import Ledger
from worker.audit.records import EventState

Statement = tuple[str, Any]
TABLES = ("events", "deliveries")

ASKED: dict[str, tuple[Callable[[Ledger], object], set[str]]] = {
    "receive": (lambda ledger: received(ledger, step(1)), {"uq_events_key_source"}),
    "unclaimed": (
        lambda ledger: ledger.events.unclaimed(now=NOW, patience=PATIENCE, limit=9),
        {"ix_events_received", "ix_events_running"},
    ),
    "recent": (
        lambda ledger: ledger.events.recent(9, states=[EventState.FAILED]),
        {"ix_events_state_received_at"},
    ),
    "prune": (lambda ledger: ledger.events.prune(before=NOW, limit=9), {"ix_events_closed"}),
    "due": (lambda ledger: due(ledger, now=NOW), {"ix_watches_due_at"}),
    "waiting": (lambda ledger: ledger.watches.waiting(9), {"ix_watches_due_at"}),
    "deliveries due": (
        lambda ledger: ledger.deliveries.claim_due(now=NOW, owner=OWNER, lease=LEASE, limit=9),
        {"ix_deliveries_pending"},
    ),
    "deliveries": (lambda ledger: ledger.deliveries.recent(9, state="dead"), {"ix_deliveries_state_created_at"}),
    "prune deliveries": (
        lambda ledger: ledger.deliveries.prune(before=NOW, limit=9),
        {"ix_deliveries_state_created_at"},
    ),
}
"""What is asked, and the indexes that it must go by."""


@contextmanager
def listening(ledger: Ledger) -> Iterator[list[Statement]]:
    said: list[Statement] = []

    def hear(_connection: object, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
        said.append((statement, parameters))

    event.listen(ledger.database.engine, "before_cursor_execute", hear)
    yield said
    event.remove(ledger.database.engine, "before_cursor_execute", hear)


def plans(ledger: Ledger, said: list[Statement]) -> str:
    """How the database goes about these statements."""
    on_sqlite = ledger.database.engine.dialect.name == "sqlite"
    told = []
    with ledger.database.write() as connection:
        if not on_sqlite:
            # PostgreSQL reads a small table whole, and rightly so; here it is to show how it reads a large one.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        for statement, parameters in said:
            if statement.startswith(("SELECT", "UPDATE", "DELETE")):
                explain = "EXPLAIN QUERY PLAN" if on_sqlite else "EXPLAIN"
                told += connection.exec_driver_sql(f"{explain} {statement}", parameters).scalars(3 if on_sqlite else 0)
    return "\n".join(told)


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_asked_again_and_again_goes_by_its_index(ledger: Ledger, asked: str) -> None:
    ask, indexes = ASKED[asked]
    received(ledger, step(1))
    with listening(ledger) as said:
        ask(ledger)
    plan = plans(ledger, said)
    assert {index for index in indexes if index not in plan} == set(), plan
    assert "Seq Scan on" not in plan, plan
    assert not any(f"SCAN {table}" in plan for table in TABLES), plan


def test_closing_a_watch_finds_its_events_by_their_index(ledger: Ledger) -> None:
    watched(ledger)
    [watch] = due(ledger, now=NOW + timedelta(hours=1))
    with listening(ledger) as said:
        ledger.watches.close(watch, owner=OWNER, reason="x", sentence="x", now=NOW)
    assert "ix_events_watched" in plans(ledger, [one for one in said if one[0].startswith("UPDATE events")])

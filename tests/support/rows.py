"""Ledger rows in every state of their life, made the way the service makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from worker.audit.compactions import Closing, Intent
from worker.audit.conversations import Measurement, Observation
from worker.audit.ledger import Ledger
from worker.audit.planning import Order
from worker.audit.records import CLOSED_STATES, Compaction, Scan, State
from worker.audit.scans import ScanOrder
from worker.audit.tables import metadata

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
LEASE = timedelta(minutes=5)
OWNER, OTHER = "worker-a", "worker-b"
AGENT = "agent-1"

MEASURED = Measurement(window=16_000, tokens=12_000, num_messages=41, source="context_overview", activity=NOW)
MEASURED_AFTER = replace(MEASURED, tokens=6_000, num_messages=19)

SCAN = ScanOrder("schedule", "nightly", "default", "0123456789ab", {"trigger_usage": 0.7})


def later(**span: float) -> datetime:
    """A time after NOW."""
    return NOW + timedelta(**span)


def seen(conversation_id: str = "conv-1", **changes: Any) -> Observation:
    """A conversation as a scan saw it that is to be compacted."""
    first = Observation(AGENT, conversation_id, NOW, "compact", "over_trigger", "over it", measured=MEASURED)
    return replace(first, **changes)


def skipped(conversation_id: str, **changes: Any) -> Observation:
    """A conversation as a scan saw it that is left alone, not measured."""
    return seen(conversation_id, **{"decision": "skip", "reason": "empty", "measured": None, **changes})


def order(conversation_id: str = "conv-1", **changes: Any) -> Order:
    """An order to compact it."""
    asked = Order(
        seen=seen(conversation_id),
        trigger="schedule",
        policy="default",
        policy_version="0123456789ab",
        policy_body={"trigger_usage": 0.7},
        settings={"mode": "sliding_window", "sliding_window_percentage": 0.3},
        usage_expected=0.38,
    )
    return replace(asked, **changes)


def planned(ledger: Ledger, conversation_id: str = "conv-1", *, now: datetime = NOW, **changes: Any) -> str:
    """A planned row's id."""
    planning = ledger.compactions.plan(order(conversation_id, **changes), now=now)
    assert planning.outcome == "planned"
    assert planning.compaction_id is not None
    return planning.compaction_id


def claimed(ledger: Ledger, conversation_id: str = "conv-1", *, now: datetime = NOW, owner: str = OWNER) -> Compaction:
    """A running row, held by its owner."""
    row = ledger.compactions.claim(planned(ledger, conversation_id, now=now), now=now, owner=owner, lease=LEASE)
    assert row is not None
    return row


def closed(ledger: Ledger, state: State, conversation_id: str = "conv-1", *, now: datetime = NOW) -> str:
    """A row in one of its three ends; its id."""
    row = claimed(ledger, conversation_id, now=now)
    ENDINGS[state](ledger, row, OWNER, now)
    return row.id


INTENT = Intent(
    settings={"mode": "sliding_window", "sliding_window_percentage": 0.25},
    measured=replace(MEASURED, tokens=12_500, num_messages=43),
    usage_expected=0.39,
    sentence="usage 0.78 is at or over the trigger of 0.70",
    ids_before=("message-sys", "message-1", "message-2"),
    newest_before=NOW,
)

CLOSING = Closing(
    measured=MEASURED_AFTER,
    num_messages_before=43,
    num_messages_after=19,
    summary="What was said.",
    mode_used="sliding_window",
    flags=("target_missed",),
    ids_after=("message-sys", "message-sum", "message-2"),
    ids_kept=("message-sys", "message-2"),
    ids_lost=("message-1",),
    ids_dropped=(),
)


def hours(in_row: int) -> timedelta:
    """A delay that shows how often it was asked for."""
    return timedelta(hours=in_row)


Step = Callable[[Ledger, Compaction, str, datetime], object]

STEPS: dict[str, Step] = {
    "intend": lambda ledger, row, owner, now: ledger.compactions.intend(
        row.id, INTENT, owner=owner, now=now, lease=LEASE
    ),
    "keep_answer": lambda ledger, row, owner, now: ledger.compactions.keep_answer(
        row.id, '{"summary": "x"}', owner=owner, now=now, lease=LEASE
    ),
    "succeed": lambda ledger, row, owner, now: ledger.compactions.succeed(row, CLOSING, owner=owner, now=now),
    "refuse": lambda ledger, row, owner, now: ledger.compactions.refuse(
        row, "nothing_to_compact", "the server said so", owner=owner, now=now, delay=hours
    ),
    "fail": lambda ledger, row, owner, now: ledger.compactions.fail(
        row, "http_500", "it broke", owner=owner, now=now, delay=hours
    ),
    "release": lambda ledger, row, owner, now: ledger.compactions.release(
        row.id, "not sent", owner=owner, not_before=now
    ),
    "leave": lambda ledger, row, owner, now: ledger.compactions.leave(
        row.id, "the answer was lost", owner=owner, look_at=now
    ),
}
"""Every step that only a running row's owner may take."""

ENDINGS: dict[State, Step] = {
    State.SUCCEEDED: STEPS["succeed"],
    State.REFUSED: STEPS["refuse"],
    State.FAILED: STEPS["fail"],
}
assert set(ENDINGS) == set(CLOSED_STATES)


def unset(*values: object) -> bool:
    """Whether none of these was ever set."""
    return all(value is None for value in values)


def raw(ledger: Ledger, compaction_id: str) -> tuple[Any, ...]:
    """A compaction's row as the database has it, every column, past our own types."""
    with ledger.database.read() as connection:
        found = connection.execute(text("SELECT * FROM compactions WHERE id = :id"), {"id": compaction_id}).one()
    return tuple(found)


def everything(ledger: Ledger) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    with ledger.database.read() as connection:
        return {
            table: sorted((tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))), key=repr)  # noqa: S608
            for table in metadata.tables
        }


def compaction(ledger: Ledger, compaction_id: str) -> Compaction:
    """A row that is there."""
    row = ledger.compactions.get(compaction_id)
    assert row is not None
    return row


def begun(ledger: Ledger, *, owner: str | None = OWNER, now: datetime = NOW, **changes: Any) -> Scan:
    """A scan that was opened."""
    scan, opened = ledger.scans.begin(replace(SCAN, **changes), now=now, owner=owner, lease=LEASE)
    assert opened
    return scan


def scan(ledger: Ledger, scan_id: str) -> Scan:
    """A scan that is there."""
    row = ledger.scans.get(scan_id)
    assert row is not None
    return row


def paged(ledger: Ledger, scan_id: str, *conversation_ids: str, owner: str = OWNER, **reasons: int) -> int | None:
    """Put down a page with these candidates; its number."""
    return ledger.scans.add_page(
        scan_id,
        owner=owner,
        candidates=[{"agent_id": AGENT, "conversation_id": id_} for id_ in conversation_ids],
        listed=len(conversation_ids) + sum(reasons.values()),
        reasons=reasons,
        lease_until=NOW + LEASE,
    )

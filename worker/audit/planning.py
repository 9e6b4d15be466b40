"""Planning a compaction: the decision becomes a row, in one transaction with what was seen, or nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from worker.audit.conversations import Observation, observe
from worker.audit.database import Database
from worker.audit.records import OPEN_STATES, State
from worker.audit.tables import compactions, scans


@dataclass(frozen=True, slots=True)
class Order:
    """A compaction to plan: who asks, under which policy, with which settings, and what was measured."""

    seen: Observation
    trigger: str
    policy: str
    policy_version: str
    policy_body: Mapping[str, Any]
    settings: Mapping[str, Any]
    usage_expected: float
    asked: bool = False
    budget: int | None = None
    """The most compactions that the order's scan may plan."""
    trace: str | None = None
    """The traceparent of what asks for it."""


@dataclass(frozen=True, slots=True)
class Planning:
    """What became of an order. compaction_id: the new row's, or the open row's that stood in the way."""

    outcome: str
    compaction_id: str | None


PLANNED, IN_PROGRESS, OVER_BUDGET = "planned", "in_progress", "over_budget"


def plan(database: Database, order: Order, *, now: datetime) -> Planning:
    """Commit a decision to compact, with the conversation's row, in one transaction.

    Nothing is planned where the conversation has an open compaction already, or where the scan's budget is
    spent; then nothing is written at all: the caller records the observation with what it decides instead.
    """
    compaction_id = f"cmp-{uuid4()}"
    try:
        with database.write() as connection:
            observe(connection, order.seen, now=now)
            if order.budget is not None and not _within_budget(connection, order):
                connection.rollback()
                return Planning(OVER_BUDGET, None)
            connection.execute(insert(compactions).values(**_row(compaction_id, order, now)))
    except IntegrityError as error:
        if not _lost_to_another(error):
            raise
        return Planning(IN_PROGRESS, _open_id(database, order.seen))
    return Planning(PLANNED, compaction_id)


def _open_id(database: Database, seen: Observation) -> str | None:
    with database.read() as connection:
        return connection.scalar(
            select(compactions.c.id).where(
                compactions.c.agent_id == seen.agent_id,
                compactions.c.conversation_id == seen.conversation_id,
                compactions.c.state.in_(OPEN_STATES),
            )
        )


def _lost_to_another(error: IntegrityError) -> bool:
    """Tell the lock's unique index from any other constraint, by either driver's own code."""
    codes = getattr(error.orig, "sqlstate", None), getattr(error.orig, "sqlite_errorname", None)
    return codes in {("23505", None), (None, "SQLITE_CONSTRAINT_UNIQUE")}


def _within_budget(connection: Connection, order: Order) -> bool:
    """Take one from the scan's budget, unless it is spent."""
    taken = connection.execute(
        update(scans)
        .where(scans.c.id == order.seen.scan_id, scans.c.planned < order.budget)
        .values(planned=scans.c.planned + 1)
    )
    return taken.rowcount == 1


def _row(compaction_id: str, order: Order, now: datetime) -> dict[str, Any]:
    seen, measured = order.seen, order.seen.measured
    return {
        "id": compaction_id,
        "agent_id": seen.agent_id,
        "conversation_id": seen.conversation_id,
        "state": State.PLANNED,
        "trigger": order.trigger,
        "scan_id": seen.scan_id,
        "policy": order.policy,
        "policy_version": order.policy_version,
        "policy_body": dict(order.policy_body),
        "asked": order.asked,
        "reason": seen.reason,
        "sentence": seen.sentence,
        "settings": dict(order.settings),
        "usage_expected": order.usage_expected,
        "model": order.settings.get("model") or "",
        "flags": [],
        "planned_at": now,
        "trace": order.trace,
        "window": None if measured is None else measured.window,
        "usage_source": None if measured is None else measured.source,
        "usage_before": None if measured is None else measured.usage,
        "tokens_before": None if measured is None else measured.tokens,
        "num_messages_before": None if measured is None else measured.num_messages,
    }

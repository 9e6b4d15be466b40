"""The ledger's compactions: each step of a row's life is one conditional UPDATE, so that only its owner can take it.

planned -> running (claim) -> intent committed -> answer kept -> succeeded | refused | failed. A closed row never
changes. The partial unique index on open rows is the lock on a conversation; there is no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from worker.audit.announcer import Announcer
from worker.audit.columns import storable
from worker.audit.conversations import Measurement, settle_setback, settle_success
from worker.audit.database import Database
from worker.audit.planning import Order, Planning, plan
from worker.audit.records import Compaction, HandedOut, State
from worker.audit.tables import compactions, scans
from worker.audit.throttles import Limits, admits
from worker.audit.totals import add_compaction


class LostClaim(Exception):
    """The row is not this worker's any more: another one took it over, or closed it."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What stands in the row before the POST: the context as it was, and the settings as they go out."""

    settings: Mapping[str, Any]
    measured: Measurement
    usage_expected: float
    sentence: str
    ids_before: Sequence[str]
    newest_before: datetime | None
    """When the newest message in context was made, by the server's clock; what arrives later is newer."""
    safety_copy_id: str | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """How a compaction that took effect ended; measured is None where the second look failed."""

    measured: Measurement | None
    num_messages_before: int
    num_messages_after: int
    summary: str
    mode_used: str | None
    flags: Sequence[str]
    ids_after: Sequence[str] | None
    ids_kept: Sequence[str] | None
    ids_lost: Sequence[str] | None
    ids_dropped: Sequence[str] | None
    error: str | None = None
    recovered: bool = False


class Compactions:
    """Plan, claim and close compactions."""

    def __init__(self, database: Database, announcer: Announcer | None = None) -> None:
        self._database = database
        self._announcer = announcer or Announcer()

    def plan(self, order: Order, *, now: datetime) -> Planning:
        """Commit a decision to compact; see `worker.audit.planning`."""
        return plan(self._database, order, now=now)

    def get(self, compaction_id: str) -> Compaction | None:
        """Give one compaction."""
        with self._database.read() as connection:
            row = connection.execute(select(compactions).where(compactions.c.id == compaction_id)).one_or_none()
        return None if row is None else Compaction.of(row)

    def claim(
        self, compaction_id: str, *, now: datetime, owner: str, lease: timedelta, limits: Limits | None = None
    ) -> Compaction | None:
        """Take a planned row to run it; None where it is not planned, not due yet, or there is no room for it.

        limits: those on compactions under way; a row that has to wait for room is as if it had never been handed
        out, so that whoever makes room finds it.
        """
        due = or_(compactions.c.not_before.is_(None), compactions.c.not_before <= now)
        planned = and_(compactions.c.id == compaction_id, compactions.c.state == State.PLANNED, due)
        with self._database.write() as connection:
            if limits is not None:
                model = connection.scalar(select(compactions.c.model).where(planned))
                if model is None:
                    return None
                if not admits(connection, model, limits, now):
                    connection.execute(update(compactions).where(planned).values(enqueued_at=None))
                    return None
            row = connection.execute(
                update(compactions)
                .where(planned)
                .values(
                    state=State.RUNNING,
                    attempts=compactions.c.attempts + 1,
                    started_at=now,
                    lease_owner=owner,
                    lease_until=now + lease,
                )
                .returning(compactions)
            ).one_or_none()
        return None if row is None else Compaction.of(row)

    def renew(self, compaction_ids: Sequence[str], *, owner: str, lease_until: datetime) -> None:
        """Show that the owner of these rows lives."""
        with self._database.write() as connection:
            connection.execute(
                update(compactions)
                .where(
                    compactions.c.id.in_(compaction_ids),
                    compactions.c.state == State.RUNNING,
                    compactions.c.lease_owner == owner,
                )
                .values(lease_until=lease_until, heartbeats=compactions.c.heartbeats + 1)
            )

    def take_over(
        self, compaction_id: str, *, now: datetime, owner: str, lease: timedelta, heartbeats: int | None = None
    ) -> Compaction | None:
        """Take a running row whose lease ran out, to find out what became of it; None where its owner lives.

        heartbeats: how many were seen; another one since then is a sign of life.
        """
        dead = and_(
            compactions.c.id == compaction_id, compactions.c.state == State.RUNNING, compactions.c.lease_until < now
        )
        if heartbeats is not None:
            dead = and_(dead, compactions.c.heartbeats == heartbeats)
        with self._database.write() as connection:
            row = connection.execute(
                update(compactions)
                .where(dead)
                .values(lease_owner=owner, lease_until=now + lease, heartbeats=compactions.c.heartbeats + 1)
                .returning(compactions)
            ).one_or_none()
        return None if row is None else Compaction.of(row)

    def intend(self, compaction_id: str, intent: Intent, *, owner: str, now: datetime, lease: timedelta) -> None:
        """Commit what the conversation looks like and what is about to be sent. The POST may follow, not before."""
        self._own(
            compaction_id,
            owner,
            settings=dict(intent.settings),
            sentence=intent.sentence,
            window=intent.measured.window,
            usage_source=intent.measured.source,
            usage_before=intent.measured.usage,
            usage_expected=intent.usage_expected,
            tokens_before=intent.measured.tokens,
            num_messages_before=intent.measured.num_messages,
            ids_before=list(intent.ids_before),
            newest_before=intent.newest_before,
            safety_copy_id=intent.safety_copy_id,
            posted_at=now,
            lease_until=now + lease,
        )

    def keep_answer(self, compaction_id: str, body: str, *, owner: str, now: datetime, lease: timedelta) -> None:
        """Commit the server's answer, verbatim, before anything else is done with it."""
        self._own(compaction_id, owner, response=body, lease_until=now + lease)

    def succeed(self, row: Compaction, closing: Closing, *, owner: str, now: datetime) -> Compaction:
        """Close a compaction that took effect; gives its row as it stands then, as all that close one do."""
        measured = closing.measured
        with self._database.write() as connection:
            _close(
                connection,
                row.id,
                owner,
                state=State.SUCCEEDED,
                outcome="recovered" if closing.recovered else "compacted",
                usage_after=None if measured is None else measured.usage,
                tokens_after=None if measured is None else measured.tokens,
                num_messages_before=closing.num_messages_before,
                num_messages_after=closing.num_messages_after,
                summary=closing.summary,
                mode_used=closing.mode_used,
                flags=list(closing.flags),
                ids_after=_list(closing.ids_after),
                ids_kept=_list(closing.ids_kept),
                ids_lost=_list(closing.ids_lost),
                ids_dropped=_list(closing.ids_dropped),
                error=closing.error,
                recovered=closing.recovered,
                finished_at=now,
            )
            settle_success(connection, _key(row), compaction_id=row.id, measured=measured, now=now)
            return self._tell(connection, row.id, now)

    def refuse(
        self,
        row: Compaction,
        outcome: str,
        error: str,
        *,
        owner: str,
        now: datetime,
        delay: Callable[[int], timedelta] | None,
    ) -> Compaction:
        """Close a compaction that the server or the fresh look said no to.

        delay: where given, the conversation is put off for that long after so many refusals in a row.
        """
        with self._database.write() as connection:
            _close(connection, row.id, owner, state=State.REFUSED, outcome=outcome, error=error, finished_at=now)
            if delay is not None:
                settle_setback(
                    connection, _key(row), compaction_id=row.id, column="refusals_in_row", delay=delay, now=now
                )
            return self._tell(connection, row.id, now)

    def fail(
        self,
        row: Compaction,
        outcome: str,
        error: str,
        *,
        owner: str,
        now: datetime,
        delay: Callable[[int], timedelta],
    ) -> Compaction:
        """Close a compaction that no retry cures, and put the conversation off."""
        with self._database.write() as connection:
            _close(connection, row.id, owner, state=State.FAILED, outcome=outcome, error=error, finished_at=now)
            settle_setback(connection, _key(row), compaction_id=row.id, column="failures_in_row", delay=delay, now=now)
            return self._tell(connection, row.id, now)

    def release(self, compaction_id: str, error: str, *, owner: str, not_before: datetime) -> None:
        """Give a row back as planned: its POST was not sent, or is known to have had no effect."""
        self._own(
            compaction_id,
            owner,
            state=State.PLANNED,
            error=error,
            not_before=not_before,
            posted_at=None,
            enqueued_at=None,
            lease_owner=None,
            lease_until=None,
        )

    def leave(self, compaction_id: str, error: str, *, owner: str, look_at: datetime) -> None:
        """Leave a posted row open: what became of it is unknown, and is to be looked for from look_at on."""
        self._own(compaction_id, owner, error=error, lease_until=look_at, lease_owner=None)

    def enqueued(self, compaction_ids: Sequence[str], *, now: datetime) -> list[HandedOut]:
        """Note that messages for these rows go to the broker. Gives what to tell of those that are still planned."""
        c = compactions.c
        schedule = select(scans.c.schedule).where(scans.c.id == c.scan_id).scalar_subquery().label("schedule")
        with self._database.write() as connection:
            rows = connection.execute(
                update(compactions)
                .where(c.id.in_(compaction_ids), c.state == State.PLANNED)
                .values(enqueued_at=now)
                .returning(c.id, c.agent_id, c.conversation_id, c.trigger, schedule, c.usage_before, c.usage_expected)
            ).all()
        return [HandedOut.of(row) for row in rows]

    def not_enqueued(self, compaction_ids: Sequence[str]) -> None:
        """Take that note back: the broker did not take their messages."""
        with self._database.write() as connection:
            connection.execute(
                update(compactions)
                .where(compactions.c.id.in_(compaction_ids), compactions.c.state == State.PLANNED)
                .values(enqueued_at=None)
            )

    def _tell(self, connection: Connection, compaction_id: str, now: datetime) -> Compaction:
        """Tell others, and the sums, of a row as it stands at its end, in the transaction that closes it."""
        found = connection.execute(select(compactions).where(compactions.c.id == compaction_id)).one()
        row = Compaction.of(found)
        self._announcer.compaction(connection, row, now=now)
        add_compaction(connection, row)
        return row

    def _own(self, compaction_id: str, owner: str, **values: Any) -> None:
        with self._database.write() as connection:
            _update_owned(connection, compaction_id, owner, values)


def _update_owned(connection: Connection, compaction_id: str, owner: str, values: Mapping[str, Any]) -> None:
    # A summarizer may write what no database keeps; a row that could not be closed for it would be worse.
    kept = {name: storable(value) if isinstance(value, str) else value for name, value in values.items()}
    done = connection.execute(
        update(compactions)
        .where(
            and_(
                compactions.c.id == compaction_id,
                compactions.c.state == State.RUNNING,
                compactions.c.lease_owner == owner,
            )
        )
        .values(**kept)
    )
    if done.rowcount == 0:
        raise LostClaim(f"compaction {compaction_id} is not held by {owner} any more")


def _close(connection: Connection, compaction_id: str, owner: str, **values: Any) -> None:
    _update_owned(connection, compaction_id, owner, values | {"lease_owner": None, "lease_until": None})


def _key(row: Compaction) -> tuple[str, str]:
    return row.agent_id, row.conversation_id


def _list(ids: Sequence[str] | None) -> list[str] | None:
    return None if ids is None else list(ids)

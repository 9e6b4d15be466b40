"""The ledger's scans: one row a run, and a row for each page of candidates, so that a lost message loses no page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from worker.audit.announcer import Announcer
from worker.audit.database import Database
from worker.audit.records import PageState, Scan, ScanState
from worker.audit.tables import conversations, scan_pages, scans
from worker.audit.totals import add_scan


@dataclass(frozen=True, slots=True)
class ScanOrder:
    """What a scan is to run with; policy_body is the whole policy, as it stood when the scan began."""

    trigger: str
    schedule: str | None
    policy: str
    policy_version: str
    policy_body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of candidates to measure, each with what the list told of it. attempts: claims, this one included."""

    scan_id: str
    number: int
    candidates: list[dict[str, Any]]
    attempts: int


class LostScan(Exception):
    """Another worker has taken the scan up, or it is closed."""


class Scans:
    """Begin, feed, resume and finish scans."""

    def __init__(self, database: Database, announcer: Announcer | None = None) -> None:
        self._database = database
        self._announcer = announcer or Announcer()

    def begin(
        self, order: ScanOrder, *, now: datetime, owner: str | None = None, lease: timedelta = timedelta()
    ) -> tuple[Scan, bool]:
        """Open a scan, or record a skipped one where the schedule's last scan still runs.

        Gives the row and whether it was opened; the partial unique index decides between two ticks at once. Without
        an owner the scan waits for a worker to take it up.
        """
        values = {
            "id": f"scan-{uuid4()}",
            "trigger": order.trigger,
            "schedule": order.schedule,
            "policy": order.policy,
            "policy_version": order.policy_version,
            "policy_body": dict(order.policy_body),
            "reasons": {},
            "started_at": now,
        }
        until = None if owner is None else now + lease
        running = {"state": ScanState.RUNNING, "lease_owner": owner, "lease_until": until}
        try:
            with self._database.write() as connection:
                row = connection.execute(insert(scans).values(**values, **running).returning(scans)).one()
            return Scan.of(row), True
        except IntegrityError:
            sentence = f"the last scan of schedule {order.schedule} is still running"
            skipped = {"state": ScanState.SKIPPED, "finished_at": now, "sentence": sentence}
            with self._database.write() as connection:
                row = connection.execute(insert(scans).values(**values, **skipped).returning(scans)).one()
                add_scan(connection, Scan.of(row))
            return Scan.of(row), False

    def get(self, scan_id: str) -> Scan | None:
        """Give one scan."""
        with self._database.read() as connection:
            row = connection.execute(select(scans).where(scans.c.id == scan_id)).one_or_none()
        return None if row is None else Scan.of(row)

    def recent(self, limit: int) -> list[Scan]:
        """Give the latest scans, the newest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(scans).order_by(scans.c.started_at.desc(), scans.c.id).limit(limit)).all()
        return [Scan.of(row) for row in rows]

    def take(self, scan_id: str, *, now: datetime, owner: str, lease: timedelta) -> Scan | None:
        """Take up the listing of a running scan that nobody is at; None where there is nothing to take up."""
        with self._database.write() as connection:
            row = connection.execute(
                update(scans)
                .where(scans.c.id == scan_id, scans.c.state == ScanState.RUNNING)
                .where(_nobody_is_at_it(now), scans.c.listing_done.is_(False))
                .values(lease_owner=owner, lease_until=now + lease)
                .returning(scans)
            ).one_or_none()
        return None if row is None else Scan.of(row)

    def listed_already(self, scan_id: str) -> set[tuple[str, str]]:
        """Give the keys of the conversations that this scan has listed before its worker died."""
        with self._database.read() as connection:
            seen = {
                (row.agent_id, row.conversation_id)
                for row in connection.execute(
                    select(conversations.c.agent_id, conversations.c.conversation_id).where(
                        conversations.c.scan_id == scan_id
                    )
                )
            }
            for candidates in connection.scalars(
                select(scan_pages.c.candidates).where(scan_pages.c.scan_id == scan_id)
            ):
                seen |= {(candidate["agent_id"], candidate["conversation_id"]) for candidate in candidates}
        return seen

    def add_page(
        self,
        scan_id: str,
        *,
        owner: str,
        candidates: Sequence[Mapping[str, Any]],
        listed: int,
        reasons: Mapping[str, int],
        lease_until: datetime,
        requests: int = 0,
    ) -> int | None:
        """Put down one listed page: its candidates, how many of it were skipped for which reason, what it cost.

        Gives the page's number, None where no candidate was left to measure. Raises LostScan when another worker has
        taken the scan up.
        """
        with self._database.write() as connection:
            scan = _owned(connection, scan_id, owner)
            number = scan.pages + 1 if candidates else None
            if number is not None:
                connection.execute(
                    insert(scan_pages).values(
                        scan_id=scan_id,
                        number=number,
                        state=PageState.PLANNED,
                        candidates=[dict(candidate) for candidate in candidates],
                        reasons={},
                    )
                )
            connection.execute(
                update(scans)
                .where(scans.c.id == scan_id)
                .values(
                    pages=scan.pages if number is None else number,
                    listed=scans.c.listed + listed,
                    measured=scans.c.measured + len(candidates),
                    requests=scans.c.requests + requests,
                    reasons=add_counts(scan.reasons, reasons),
                    lease_until=lease_until,
                )
            )
        return number

    def end_listing(self, scan_id: str, *, owner: str, requests: int = 0) -> None:
        """Note that every conversation is listed; what is left of the scan are its pages.

        requests: what was asked since the last page was put down.
        """
        with self._database.write() as connection:
            _owned(connection, scan_id, owner)
            done = {"listing_done": True, "requests": scans.c.requests + requests}
            connection.execute(update(scans).where(scans.c.id == scan_id).values(**done))

    def claim_page(self, scan_id: str, number: int, *, now: datetime, owner: str, lease: timedelta) -> Page | None:
        """Take a page to measure; None where it is done, or another worker is at it."""
        free = or_(
            scan_pages.c.state == PageState.PLANNED,
            and_(scan_pages.c.state == PageState.RUNNING, scan_pages.c.lease_until < now),
        )
        with self._database.write() as connection:
            row = connection.execute(
                update(scan_pages)
                .where(scan_pages.c.scan_id == scan_id, scan_pages.c.number == number, free)
                .values(
                    state=PageState.RUNNING,
                    attempts=scan_pages.c.attempts + 1,
                    lease_owner=owner,
                    lease_until=now + lease,
                )
                .returning(scan_pages.c.candidates, scan_pages.c.attempts)
            ).one_or_none()
        return None if row is None else Page(scan_id, number, row.candidates, row.attempts)

    def finish_page(
        self,
        scan_id: str,
        number: int,
        *,
        owner: str,
        reasons: Mapping[str, int],
        now: datetime,
        lease: timedelta,
        requests: int = 0,
    ) -> bool:
        """Close a page and add its counts to the scan's, once; False where the page was another's by now."""
        with self._database.write() as connection:
            closed = connection.execute(
                update(scan_pages)
                .where(
                    scan_pages.c.scan_id == scan_id,
                    scan_pages.c.number == number,
                    scan_pages.c.state == PageState.RUNNING,
                    scan_pages.c.lease_owner == owner,
                )
                .values(state=PageState.DONE, reasons=dict(reasons), candidates=[], finished_at=now)
            )
            if closed.rowcount == 0:
                return False
            scan = _locked(connection, scan_id)
            if scan is not None:
                total = add_counts(scan.reasons, reasons)
                counts = {"reasons": total, "requests": scans.c.requests + requests}
                connection.execute(update(scans).where(scans.c.id == scan_id).values(**counts, lease_until=now + lease))
        return True

    def let_go(self, scan_id: str, *, owner: str, number: int | None = None) -> None:
        """Give a scan's listing, or one of its pages, back at once: its worker has to end."""
        with self._database.write() as connection:
            if number is not None:
                connection.execute(
                    update(scan_pages)
                    .where(
                        scan_pages.c.scan_id == scan_id,
                        scan_pages.c.number == number,
                        scan_pages.c.state == PageState.RUNNING,
                        scan_pages.c.lease_owner == owner,
                    )
                    .values(state=PageState.PLANNED, lease_owner=None, lease_until=None)
                )
            # While another worker lists, its lease is none of ours.
            ours = or_(scans.c.lease_owner == owner, scans.c.listing_done.is_(True))
            connection.execute(
                update(scans)
                .where(scans.c.id == scan_id, scans.c.state == ScanState.RUNNING, ours)
                .values(lease_owner=None, lease_until=None)
            )

    def finish(self, scan_id: str, *, now: datetime) -> Scan | None:
        """Close a scan whose listing and pages are all done; None while something is left, or when it is closed."""
        left = exists().where(scan_pages.c.scan_id == scans.c.id, scan_pages.c.state != PageState.DONE)
        with self._database.write() as connection:
            row = connection.execute(
                update(scans)
                .where(scans.c.id == scan_id, scans.c.state == ScanState.RUNNING)
                .where(scans.c.listing_done.is_(True), ~left)
                .values(state=ScanState.FINISHED, finished_at=now, lease_owner=None, lease_until=None)
                .returning(scans)
            ).one_or_none()
            if row is None:
                return None
            finished = Scan.of(row)
            self._announcer.scan(connection, finished, now=now)
            add_scan(connection, finished)
        return finished

    def fail(self, scan_id: str, sentence: str, *, now: datetime) -> None:
        """Close a scan that could not list; what it planned already stays planned."""
        with self._database.write() as connection:
            row = connection.execute(
                update(scans)
                .where(scans.c.id == scan_id, scans.c.state == ScanState.RUNNING)
                .values(state=ScanState.FAILED, finished_at=now, sentence=sentence, lease_owner=None, lease_until=None)
                .returning(scans)
            ).one_or_none()
            if row is not None:
                self._announcer.scan(connection, Scan.of(row), now=now)
                add_scan(connection, Scan.of(row))

    def overdue(self, *, begun_before: datetime) -> list[str]:
        """Find running scans that began too long ago to end any more by themselves."""
        with self._database.read() as connection:
            query = select(scans.c.id).where(scans.c.state == ScanState.RUNNING, scans.c.started_at < begun_before)
            return list(connection.scalars(query))

    def stuck(self, *, now: datetime) -> list[str]:
        """Find running scans that nobody is at: their worker died, or their message was lost."""
        with self._database.read() as connection:
            return list(
                connection.scalars(select(scans.c.id).where(scans.c.state == ScanState.RUNNING, _nobody_is_at_it(now)))
            )

    def open_pages(self, scan_id: str, *, now: datetime) -> list[int]:
        """Give the numbers of a scan's pages that nobody is measuring."""
        waiting = or_(
            scan_pages.c.state == PageState.PLANNED,
            and_(scan_pages.c.state == PageState.RUNNING, scan_pages.c.lease_until < now),
        )
        with self._database.read() as connection:
            return list(
                connection.scalars(
                    select(scan_pages.c.number)
                    .where(scan_pages.c.scan_id == scan_id, waiting)
                    .order_by(scan_pages.c.number)
                )
            )

    def pages_left(self, scan_id: str) -> int:
        """Count the pages of a scan that are not measured yet."""
        with self._database.read() as connection:
            return connection.execute(
                select(func.count()).where(scan_pages.c.scan_id == scan_id, scan_pages.c.state != PageState.DONE)
            ).scalar_one()


def _nobody_is_at_it(now: datetime) -> ColumnElement[bool]:
    return or_(scans.c.lease_until.is_(None), scans.c.lease_until <= now)


def _owned(connection: Connection, scan_id: str, owner: str) -> Scan:
    scan = _locked(connection, scan_id)
    if scan is None or scan.state != ScanState.RUNNING or scan.lease_owner != owner:
        raise LostScan(f"scan {scan_id} is not held by {owner} any more")
    return scan


def _locked(connection: Connection, scan_id: str) -> Scan | None:
    """Read a scan's row for changing it; PostgreSQL locks it, SQLite has locked the file already."""
    row = connection.execute(select(scans).where(scans.c.id == scan_id).with_for_update()).one_or_none()
    return None if row is None else Scan.of(row)


def add_counts(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Add two tables of counts."""
    total = dict(counts)
    for key, count in more.items():
        total[key] = total.get(key, 0) + count
    return total

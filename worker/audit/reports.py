"""What operators ask the ledger: lists, one row whole, an export, and sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, String, cast, func, select

from worker.audit.database import Database
from worker.audit.records import OPEN_STATES, Compaction, State
from worker.audit.tables import compactions

ROWS_A_FETCH = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which compactions: all that are set must hold. since: planned at or after it."""

    state: str | None = None
    conversation_id: str | None = None
    agent_id: str | None = None
    scan_id: str | None = None
    flag: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan's compactions are."""

    planned: int
    closed: int


@dataclass(frozen=True, slots=True)
class Stats:
    """Sums over compactions. usages are means of those that succeeded and were measured, None without any."""

    by_state: dict[str, int]
    by_outcome: dict[str, int]
    by_trigger: dict[str, int]
    by_flag: dict[str, int]
    tokens_freed: int
    messages_evicted: int
    usage_before: float | None
    usage_after: float | None
    first_planned_at: datetime | None
    last_finished_at: datetime | None


class Reports:
    """Read the ledger for people."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def compactions(self, wanted: Wanted, *, limit: int | None, oldest_first: bool = False) -> Iterator[Compaction]:
        """Give compactions, the latest planned first unless said otherwise, read as they are asked for."""
        at = compactions.c.planned_at
        query = _matching(select(compactions), wanted).order_by(
            at.asc() if oldest_first else at.desc(), compactions.c.id
        )
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=ROWS_A_FETCH).execute(query.limit(limit)):
                yield Compaction.of(row)

    def ids_like(self, prefix: str, *, limit: int = 5) -> list[str]:
        """Give the ids of compactions that begin with a prefix: people copy half of one."""
        query = select(compactions.c.id).where(compactions.c.id.startswith(prefix, autoescape=True))
        with self._database.read() as connection:
            return list(connection.scalars(query.order_by(compactions.c.id).limit(limit)))

    def progress(self, scan_id: str) -> Progress:
        """Tell how many of a scan's compactions are closed."""
        query = (
            select(compactions.c.state, func.count())
            .where(compactions.c.scan_id == scan_id)
            .group_by(compactions.c.state)
        )
        with self._database.read() as connection:
            counts = {row[0]: row[1] for row in connection.execute(query)}
        still_open = sum(counts.get(state, 0) for state in OPEN_STATES)
        total = sum(counts.values())
        return Progress(total, total - still_open)

    def stats(self, wanted: Wanted, flags: list[str]) -> Stats:
        """Sum up; flags: the words to count."""
        done = compactions.c.state == State.SUCCEEDED
        c = compactions.c
        sums = _matching(
            select(
                func.coalesce(func.sum(c.tokens_before - c.tokens_after).filter(done), 0),
                func.coalesce(func.sum(c.num_messages_before - c.num_messages_after + 1).filter(done), 0),
                func.avg(c.usage_before).filter(done, c.usage_after.is_not(None)),
                func.avg(c.usage_after).filter(done),
                func.min(c.planned_at),
                func.max(c.finished_at),
            ),
            wanted,
        )
        with self._database.read() as connection:
            freed, evicted, before, after, first, last = connection.execute(sums).one()

            def counted(column: Any) -> dict[str, int]:
                query = _matching(select(column, func.count()), wanted).where(column.is_not(None))
                return {row[0]: row[1] for row in connection.execute(query.group_by(column).order_by(column))}

            by_flag = {
                flag: connection.execute(_matching(select(func.count()), wanted).where(_has(flag))).scalar_one()
                for flag in flags
            }
            return Stats(
                by_state=counted(c.state),
                by_outcome=counted(c.outcome),
                by_trigger=counted(c.trigger),
                by_flag=by_flag,
                tokens_freed=freed,
                messages_evicted=evicted,
                usage_before=before,
                usage_after=after,
                first_planned_at=first,
                last_finished_at=last,
            )


def _has(flag: str) -> Any:
    """Flags stand in a JSON list of a few fixed words, so that looking for the quoted word is exact."""
    return cast(compactions.c.flags, String).contains(f'"{flag}"', autoescape=True)


def _matching(query: Select[Any], wanted: Wanted) -> Select[Any]:
    for column, value in (
        (compactions.c.state, wanted.state),
        (compactions.c.conversation_id, wanted.conversation_id),
        (compactions.c.agent_id, wanted.agent_id),
        (compactions.c.scan_id, wanted.scan_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(compactions.c.planned_at >= wanted.since)
    if wanted.flag is not None:
        query = query.where(_has(wanted.flag))
    return query

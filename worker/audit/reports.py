"""What operators ask the ledger: lists, one row whole, an export, and sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, exists, func, literal, select

from worker.audit.database import Database
from worker.audit.records import OPEN_STATES, Compaction, State
from worker.audit.stats import Stats, sum_up
from worker.audit.tables import compactions, flagged

ROWS_A_FETCH = 500

AFTER_IDS = "z"
"""Sorts behind all that may follow in an id, which is made of dashes, digits and the letters of `cmp` and of hex."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which compactions: all that are set must hold. since: planned at or after it."""

    state: str | None = None
    conversation_id: str | None = None
    agent_id: str | None = None
    scan_id: str | None = None
    flag: str | None = None
    since: datetime | None = None

    @property
    def leads_to_few(self) -> bool:
        """Whether one conversation's or one scan's are wanted: few of all there are."""
        return self.conversation_id is not None or self.scan_id is not None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan's compactions are."""

    planned: int
    closed: int


class Reports:
    """Read the ledger for people."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def compactions(self, wanted: Wanted, *, limit: int | None, oldest_first: bool = False) -> Iterator[Compaction]:
        """Give compactions, the latest planned first unless said otherwise, read as they are asked for."""
        # Of the same time in both tables, the one that the rows can be read by in order.
        by_flag = wanted.flag is not None and not wanted.leads_to_few
        at = flagged.c.planned_at if by_flag else compactions.c.planned_at
        query = _matching(select(compactions), wanted).order_by(
            at.asc() if oldest_first else at.desc(), compactions.c.id
        )
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=ROWS_A_FETCH).execute(query.limit(limit)):
                yield Compaction.of(row)

    def ids_like(self, prefix: str, *, limit: int = 5) -> list[str]:
        """Give the ids of compactions that begin with a prefix: people copy half of one."""
        id_ = compactions.c.id
        # The range can be read off the index under any collation; LIKE alone only under some.
        near = id_.between(prefix, prefix + AFTER_IDS)
        query = select(id_).where(near, id_.startswith(prefix, autoescape=True))
        with self._database.read() as connection:
            return list(connection.scalars(query.order_by(compactions.c.id).limit(limit)))

    def errors(self, compaction_ids: Sequence[str]) -> dict[str, str | None]:
        """Give what went wrong in each of these compactions."""
        query = select(compactions.c.id, compactions.c.error).where(compactions.c.id.in_(compaction_ids))
        with self._database.read() as connection:
            return {row.id: row.error for row in connection.execute(query)}

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

    def stats(self, *, since: datetime | None, flags: Sequence[str]) -> Stats:
        """Sum up what was planned at or after a time, or ever. flags: the words to count."""
        with self._database.read() as connection:
            return sum_up(connection, since, flags)


def _matching(query: Select[Any], wanted: Wanted) -> Select[Any]:
    c = compactions.c
    state = wanted.state
    if wanted.flag is not None:
        query = _with_flag(query, wanted, wanted.flag)
        # Only a success has flags: looking through all that have one for another state would take long, for nothing.
        query, state = query.where(literal(state in {None, State.SUCCEEDED})), None
    for column, value in (
        (c.state, state),
        (c.conversation_id, wanted.conversation_id),
        (c.agent_id, wanted.agent_id),
        (c.scan_id, wanted.scan_id),
    ):
        if value is not None:
            query = query.where(column == value)
    return query if wanted.since is None else query.where(c.planned_at >= wanted.since)


def _with_flag(query: Select[Any], wanted: Wanted, flag: str) -> Select[Any]:
    """Narrow to a flag: each of few rows is looked up in the index of flagged ones; else that index leads to them."""
    f = flagged.c
    same = (f.compaction_id == compactions.c.id) & (f.planned_at == compactions.c.planned_at) & (f.flag == flag)
    if wanted.leads_to_few:
        return query.where(exists().where(same))
    query = query.join(flagged, same)
    if wanted.agent_id is not None:
        query = query.where(f.agent_id == wanted.agent_id)
    return query if wanted.since is None else query.where(f.planned_at >= wanted.since)

"""What was done, summed up: whole days from the sums that are kept, the part of a day from its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, case, func, select

from worker.audit.records import CLOSED_STATES, OPEN_STATES, State
from worker.audit.tables import compactions, flagged, totals
from worker.audit.totals import MILLION
from worker.audit.totaltables import EVER


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


@dataclass
class _Sum:
    """What is added up so far; the usages are sums over those measured."""

    state: Counter[str] = field(default_factory=Counter)
    outcome: Counter[str] = field(default_factory=Counter)
    trigger: Counter[str] = field(default_factory=Counter)
    flag: Counter[str] = field(default_factory=Counter)
    measured: int = 0
    usage_before: float = 0.0
    usage_after: float = 0.0
    tokens_freed: int = 0
    messages_evicted: int = 0
    first: list[datetime] = field(default_factory=list)
    last: list[datetime] = field(default_factory=list)

    def mean(self, usage: float) -> float | None:
        return usage / self.measured if self.measured else None


def sum_up(connection: Connection, since: datetime | None, flags: Sequence[str]) -> Stats:
    """Sum up what was planned at or after a time, or ever. flags: the words to count."""
    found = _Sum()
    if since is None:
        _add_days(connection, found, None)
    else:
        midnight = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        _add_days(connection, found, midnight)
        _add_rows(connection, found, since, midnight)
    _add_open(connection, found, since)
    return Stats(
        by_state=dict(sorted(found.state.items())),
        by_outcome=dict(sorted(found.outcome.items())),
        by_trigger=dict(sorted(found.trigger.items())),
        by_flag={flag: found.flag[flag] for flag in flags},
        tokens_freed=found.tokens_freed,
        messages_evicted=found.messages_evicted,
        usage_before=found.mean(found.usage_before),
        usage_after=found.mean(found.usage_after),
        first_planned_at=min(found.first, default=None),
        last_finished_at=max(found.last, default=None),
    )


def _add_days(connection: Connection, found: _Sum, first_day: datetime | None) -> None:
    c = totals.c
    query = select(
        c.state,
        c.outcome,
        c.trigger,
        c.flags,
        func.sum(c.compactions),
        func.sum(c.measured),
        func.sum(c.usage_before_millionths),
        func.sum(c.usage_after_millionths),
        func.sum(c.tokens_before) - func.sum(c.tokens_after),
        func.sum(c.messages_evicted),
        func.min(c.first_planned_at),
        func.max(c.last_finished_at),
    ).group_by(c.state, c.outcome, c.trigger, c.flags)
    query = query.where(c.day == EVER) if first_day is None else query.where(c.day >= first_day.date())
    for state, outcome, trigger, flags, count, measured, before, after, freed, evicted, *times in connection.execute(
        query
    ):
        found.state[state] += int(count)
        found.outcome[outcome] += int(count)
        found.trigger[trigger] += int(count)
        found.flag.update(dict.fromkeys(flags.split(), int(count)))
        found.measured += int(measured)
        found.usage_before += int(before) / MILLION
        found.usage_after += int(after) / MILLION
        found.tokens_freed += int(freed)
        found.messages_evicted += int(evicted)
        found.first.append(times[0])
        found.last.append(times[1])


def _add_rows(connection: Connection, found: _Sum, since: datetime, until: datetime) -> None:
    """Add the closed rows that were planned in a part of a day, by what `worker.audit.totals` adds for each."""
    c = compactions.c
    planned = (c.planned_at >= since) & (c.planned_at < until)
    seen = (c.state == State.SUCCEEDED) & c.usage_before.is_not(None) & c.usage_after.is_not(None)
    measured = seen & c.tokens_before.is_not(None) & c.tokens_after.is_not(None)
    evicted = c.num_messages_before - c.num_messages_after + 1
    query = (
        select(
            c.state,
            c.outcome,
            c.trigger,
            func.count(),
            func.count().filter(measured),
            _amount(c.usage_before, measured),
            _amount(c.usage_after, measured),
            _amount(c.tokens_before - c.tokens_after, measured),
            _amount(case((evicted > 0, evicted), else_=0), c.state == State.SUCCEEDED),
            func.min(c.planned_at),
            func.max(c.finished_at),
        )
        .where(planned, c.state.in_(CLOSED_STATES))
        .group_by(c.state, c.outcome, c.trigger)
    )
    for state, outcome, trigger, count, seen_after, before, after, freed, left, *times in connection.execute(query):
        found.state[state] += count
        found.outcome[outcome] += count
        found.trigger[trigger] += count
        found.measured += seen_after
        found.usage_before += before
        found.usage_after += after
        found.tokens_freed += freed
        found.messages_evicted += left
        found.first.append(times[0])
        found.last.append(times[1])
    marks = select(flagged.c.flag, func.count()).where(flagged.c.planned_at >= since, flagged.c.planned_at < until)
    for flag, count in connection.execute(marks.group_by(flagged.c.flag)):
        found.flag[flag] += count


def _add_open(connection: Connection, found: _Sum, since: datetime | None) -> None:
    c = compactions.c
    query = select(c.state, c.trigger, func.count(), func.min(c.planned_at)).where(c.state.in_(OPEN_STATES))
    if since is not None:
        query = query.where(c.planned_at >= since)
    for state, trigger, count, first in connection.execute(query.group_by(c.state, c.trigger)):
        found.state[state] += count
        found.trigger[trigger] += count
        found.first.append(first)


def _amount(amount: ColumnElement[float], condition: ColumnElement[bool]) -> ColumnElement[float]:
    return func.coalesce(func.sum(amount).filter(condition), 0)

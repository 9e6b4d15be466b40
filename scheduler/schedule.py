"""Settings and a policy file made into beat entries: plain values, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from worker.names import ATTEND, NOTIFY, RECONCILE, TICK
from worker.policy.rules import PolicyBook
from worker.settings import Settings

SHORTEST_EXPIRY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One beat entry: a task, its arguments, when it is due, and after how many seconds nobody wants it any more.

    Exactly one of cron and every is set.
    """

    name: str
    task: str
    kwargs: dict[str, str]
    cron: str | None
    every: timedelta | None
    expires: float


def entries(book: PolicyBook, settings: Settings) -> list[Entry]:
    """Give what beat is to send: a tick for each schedule of the file, the sweep, and what webhooks ask for.

    A tick expires after its schedule's own interval, so that a worker that was away for five ticks runs one.
    """
    ticks = [
        Entry(
            name=f"schedule:{name}",
            task=TICK,
            kwargs={"schedule": name},
            cron=schedule.cron,
            every=schedule.every,
            expires=max(schedule.interval, SHORTEST_EXPIRY).total_seconds(),
        )
        for name, schedule in book.schedules.items()
    ]
    return [
        *ticks,
        _regular("sweep", RECONCILE, settings.reconcile_every),
        _regular("attend", ATTEND, settings.attend_every),
        _regular("notify", NOTIFY, settings.attend_every),
    ]


def _regular(name: str, task: str, seconds: float) -> Entry:
    return Entry(name, task, {}, cron=None, every=timedelta(seconds=seconds), expires=seconds)

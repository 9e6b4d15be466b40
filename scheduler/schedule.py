"""Settings and a policy file made into beat entries: plain values, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from worker.names import RECONCILE, TICK
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
    """Give what beat is to send: a tick for each schedule of the file, and the sweep.

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
    every = timedelta(seconds=settings.reconcile_every)
    sweep = Entry("sweep", RECONCILE, {}, cron=None, every=every, expires=every.total_seconds())
    return [*ticks, sweep]

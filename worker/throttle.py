"""How many compactions may be under way at once, and when to stop asking a summarizer model that keeps failing.

Pure arithmetic on a small state; the ledger keeps one for the whole fleet and one for each model handle, so that it
holds however many workers there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

FAILURES_TO_OPEN = 5
"""Failures in a row after which a model's breaker opens."""

FIRST_OPEN = timedelta(minutes=1)
LONGEST_OPEN = timedelta(hours=1)
"""How long a breaker stays open: doubled at each probe that fails."""

DEFAULT_PAUSE = timedelta(seconds=10)
"""How long nothing is sent after a 429 or 503 that does not say."""

LOWEST = 1.0


class Breaker(StrEnum):
    """closed: works; open: nothing is sent; half_open: the time is over, one probe may go."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Throttle:
    """One limit on compactions under way. limit: as it stands, between 1 and most, the configured one.

    paused_until: the server asked to wait. failures_in_row, openings and open_until are the breaker's; openings
    counts how often in a row it opened.
    """

    most: int
    limit: float
    paused_until: datetime | None = None
    failures_in_row: int = 0
    openings: int = 0
    open_until: datetime | None = None

    def breaker(self, now: datetime) -> Breaker:
        """Tell how the breaker stands."""
        if self.open_until is None:
            return Breaker.CLOSED
        return Breaker.OPEN if now < self.open_until else Breaker.HALF_OPEN

    def admits(self, under_way: int, now: datetime) -> bool:
        """Tell whether one more may begin while so many are under way."""
        if self.paused_until is not None and now < self.paused_until:
            return False
        match self.breaker(now):
            case Breaker.OPEN:
                return False
            case Breaker.HALF_OPEN:
                return under_way == 0
            case _:
                return under_way < int(min(self.limit, self.most))

    def pushed_back(self, now: datetime, retry_after: float | None) -> Throttle:
        """Lower the limit at once, to half, and pause for as long as the server said. retry_after: seconds."""
        pause = DEFAULT_PAUSE if retry_after is None else timedelta(seconds=retry_after)
        until = max(now + pause, self.paused_until or now)
        return replace(self, limit=max(min(self.limit, self.most) / 2, LOWEST), paused_until=until)

    def succeeded(self) -> Throttle:
        """Raise the limit slowly, by one for each full limit's worth of successes, and close the breaker."""
        limit = min(self.limit, self.most)
        raised = min(limit + 1 / max(limit, LOWEST), float(self.most))
        return replace(self, limit=raised, failures_in_row=0, openings=0, open_until=None)

    def failed(self, now: datetime) -> Throttle:
        """Count a failure; open the breaker after some in a row, and for longer each time a probe fails."""
        failures = self.failures_in_row + 1
        probe_failed = self.breaker(now) is Breaker.HALF_OPEN
        if not probe_failed and (failures < FAILURES_TO_OPEN or self.breaker(now) is Breaker.OPEN):
            return replace(self, failures_in_row=failures)
        span = min(FIRST_OPEN * (1 << min(self.openings, 10)), LONGEST_OPEN)
        return replace(self, failures_in_row=failures, openings=self.openings + 1, open_until=now + span)

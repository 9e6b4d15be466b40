"""How long to leave a conversation alone after something went wrong with it, and to wait before a retry."""

from __future__ import annotations

from datetime import timedelta

LONGEST = timedelta(days=7)


def after_refusal(in_row: int) -> timedelta:
    """Delay after the in_row-th "nothing to compact" in a row: 6 h, 12 h, 1 d ... 7 d.

    Hours from the first one on: the server calls, and pays, its summarizer before it says so.
    """
    return _doubled(timedelta(hours=6), in_row - 1, LONGEST)


def after_failure(in_row: int) -> timedelta:
    """Delay after the in_row-th failure in a row: 15 min, 1 h, then days: 1 d, 2 d, 4 d, 7 d."""
    steps = (timedelta(minutes=15), timedelta(hours=1))
    if in_row <= len(steps):
        return steps[in_row - 1]
    return _doubled(timedelta(days=1), in_row - len(steps) - 1, LONGEST)


def before_retry(attempt: int, chance: float) -> timedelta:
    """Delay before the attempt after the attempt-th one, with full jitter. chance: drawn from 0..1 by the caller."""
    return _doubled(timedelta(seconds=5), attempt, timedelta(minutes=10)) * chance


def _doubled(base: timedelta, times: int, longest: timedelta) -> timedelta:
    factor: int = 1 << min(times, 16)
    return min(base * factor, longest)

"""How long to leave a conversation alone after something went wrong with it, and to wait before a retry."""

from __future__ import annotations

from datetime import timedelta

LONGEST = timedelta(days=7)

REDELIVERIES = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)
"""The waits that the Standard Webhooks specification suggests between two attempts at one delivery."""

JITTER = 0.2
"""How much longer than that a wait may be, so that what failed together does not come back together."""


LONGEST_BETWEEN_LOOKS = timedelta(hours=1)


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


def before_redelivery(attempts: int, chance: float) -> timedelta | None:
    """Delay before the next attempt at a webhook that was tried so often; None after the last. chance: from 0..1."""
    if attempts > len(REDELIVERIES):
        return None
    return REDELIVERIES[attempts - 1] * (1 + JITTER * chance)


def before_next_look(looks: int) -> timedelta:
    """Delay before a conversation that could not be read so many times in a row is looked at again: 1, 2, 4 min ..."""
    return _doubled(timedelta(minutes=1), looks, LONGEST_BETWEEN_LOOKS)


def _doubled(base: timedelta, times: int, longest: timedelta) -> timedelta:
    factor: int = 1 << min(times, 16)
    return min(base * factor, longest)

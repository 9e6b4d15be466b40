"""Conversations that an event has drawn attention to: which events need none, and when to look again."""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.policy.decide import Reason, Skip
from worker.policy.delays import before_next_look
from worker.policy.rules import Policy
from worker.policy.snapshot import Sighting

TRIGGER = "webhook"
"""What the ledger names as the cause of a compaction that an event led to."""

FAR = 0.10
"""How far under the trigger a step's usage puts its conversation out of the question: what the step itself answered,
what its tools returned, and the next question are not in its prompt yet, and servers count a little differently."""

SOONEST, LATEST = timedelta(seconds=5), timedelta(minutes=30)
"""The least time before a conversation that was held back is looked at again, and the most before one whose run is
under way: nobody tells when it ends."""

APPROVAL_EVERY = timedelta(hours=1)
"""How often to look whether somebody has approved by now: people take their time."""

MOST_UNREADABLE = 5
"""Looks in a row that could not be taken before a watch ends; the next scan looks anyway."""


def is_far_below(usage: float | None, policy: Policy) -> bool:
    """Tell whether a step of this usage needs no look at its conversation; one without a figure does need it."""
    return usage is not None and usage < policy.trigger_usage - FAR


def held_until(
    skip: Skip, seen: Sighting, policy: Policy, now: datetime, *, looks: int, breaker_until: datetime | None = None
) -> datetime | None:
    """Tell when what holds a conversation back can be over; None where the decision stands and the watch ends.

    looks: how often in a row it has been held back for this reason, this time left out; breaker_until: when the
    summarizer's breaker lets a probe through.
    """
    match skip.reason:
        case Reason.NOT_IDLE:
            until = (seen.last_message_at or now) + policy.idle_for
        case Reason.ACTIVE_RUN:
            until = now + min(policy.idle_for, LATEST)
        case Reason.COOLDOWN:
            until = (seen.last_compacted_at or now) + policy.cooldown
        case Reason.PUT_OFF:
            until = seen.not_before or now
        case Reason.BREAKER_OPEN:
            until = breaker_until or now
        case Reason.PENDING_APPROVAL:
            until = now + APPROVAL_EVERY
        case Reason.UNREADABLE if looks + 1 < MOST_UNREADABLE:
            until = now + before_next_look(looks)
        case _:
            return None
    return max(until, now + SOONEST)

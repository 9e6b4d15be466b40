"""Which events need no look at their conversation, and when one that was held back is looked at again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.rows import NOW
from worker.policy.decide import Reason, Skip
from worker.policy.delays import REDELIVERIES, before_redelivery
from worker.policy.rules import Policy
from worker.policy.snapshot import Sighting
from worker.policy.watch import APPROVAL_EVERY, LATEST, MOST_UNREADABLE, SOONEST, held_until, is_far_below

POLICY = Policy(trigger_usage=0.70, idle_for=timedelta(minutes=10), cooldown=timedelta(hours=6))
SEEN = Sighting(
    last_message_at=NOW - timedelta(minutes=4),
    last_compacted_at=NOW - timedelta(hours=2),
    not_before=NOW + timedelta(minutes=7),
)
BREAKER = NOW + timedelta(minutes=3)


def until(reason: Reason, seen: Sighting = SEEN, *, looks: int = 0, policy: Policy = POLICY) -> timedelta | None:
    """How long from now a conversation is held back."""
    at = held_until(Skip(reason, "because"), seen, policy, NOW, looks=looks, breaker_until=BREAKER)
    return None if at is None else at - NOW


@pytest.mark.parametrize(("usage", "far"), [(0.599, True), (0.61, False), (0.95, False), (None, False)])
def test_a_step_far_under_the_trigger_is_out_of_the_question_and_one_without_a_figure_is_not(
    usage: float | None,
    far: object,
) -> None:
    assert is_far_below(usage, POLICY) is far


@pytest.mark.parametrize(
    ("reason", "wait"),
    [
        (Reason.NOT_IDLE, timedelta(minutes=6)),
        (Reason.ACTIVE_RUN, timedelta(minutes=10)),
        (Reason.COOLDOWN, timedelta(hours=4)),
        (Reason.PUT_OFF, timedelta(minutes=7)),
        (Reason.BREAKER_OPEN, timedelta(minutes=3)),
        (Reason.PENDING_APPROVAL, APPROVAL_EVERY),
        (Reason.UNREADABLE, timedelta(minutes=1)),
    ],
)
def test_what_holds_a_conversation_back_says_when_it_can_be_over(reason: Reason, wait: timedelta) -> None:
    assert until(reason) == wait


HOLDING = {
    Reason.NOT_IDLE,
    Reason.ACTIVE_RUN,
    Reason.COOLDOWN,
    Reason.PUT_OFF,
    Reason.BREAKER_OPEN,
    Reason.PENDING_APPROVAL,
    Reason.UNREADABLE,
}


@pytest.mark.parametrize("reason", sorted(set(Reason) - HOLDING))
def test_every_other_reason_ends_the_watch(reason: Reason) -> None:
    assert until(reason) is None


@pytest.mark.parametrize("reason", sorted(HOLDING))
def test_nothing_is_looked_at_again_at_once_even_where_nothing_is_known(reason: Reason) -> None:
    wait = until(reason, Sighting(), policy=Policy(idle_for=timedelta(0)))
    assert wait is not None
    assert wait >= SOONEST


def test_a_run_under_way_is_looked_at_again_within_half_an_hour_however_long_the_policy_waits() -> None:
    assert until(Reason.ACTIVE_RUN, policy=Policy(idle_for=timedelta(days=2))) == LATEST


def test_a_conversation_that_stays_unreadable_is_given_up_after_ever_longer_waits() -> None:
    waits = [until(Reason.UNREADABLE, looks=looks) for looks in range(MOST_UNREADABLE)]
    assert waits == [*(timedelta(minutes=minutes) for minutes in (1, 2, 4, 8)), None]


def test_the_waits_of_a_webhook_are_those_of_the_specification_with_at_most_a_fifth_more() -> None:
    for attempts, wait in enumerate(REDELIVERIES, start=1):
        assert before_redelivery(attempts, 0.0) == wait
        assert before_redelivery(attempts, 1.0) == wait * 1.2
    assert before_redelivery(len(REDELIVERIES) + 1, 0.5) is None
    assert REDELIVERIES[0] == timedelta(seconds=5)
    assert REDELIVERIES[-1] == timedelta(hours=24)

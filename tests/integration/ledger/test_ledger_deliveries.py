"""Deliveries: what is to be told is sent until it was taken, by one sender at a time, and the dead stay visible."""

from collections import Counter
from datetime import timedelta

import pytest

from tests.support.happenings import ENDPOINTS, sendable
from tests.support.race import race
from tests.support.rows import LEASE, NOW, OTHER, OWNER, everything, later, unset
from worker.audit.compactions import LostClaim
from worker.audit.deliveries import Delivery
from worker.audit.ledger import Ledger
from worker.audit.records import DeliveryState


def claim(ledger: Ledger, *, owner: str = OWNER, limit: int = 100, **span: float) -> list[Delivery]:
    return ledger.deliveries.claim_due(now=later(**span), owner=owner, lease=LEASE, limit=limit)


def there(ledger: Ledger, delivery_id: str) -> Delivery:
    delivery = ledger.deliveries.get(delivery_id)
    assert delivery is not None
    return delivery


def dead(ledger: Ledger, count: int = 1) -> list[str]:
    ids = [delivery.id for delivery in sendable(ledger, count)]
    for delivery in claim(ledger, minutes=1):
        ledger.deliveries.failed(delivery.id, owner=OWNER, status=410, error="gone", next_at=None, now=NOW)
    return ids


def test_a_delivery_is_claimed_for_one_attempt_and_closed_when_it_was_taken(ledger: Ledger) -> None:
    [pending] = sendable(ledger)
    assert (pending.state, pending.attempts, pending.next_at, pending.endpoint) == ("pending", 0, NOW, ENDPOINTS[0])
    [delivery] = claim(ledger, seconds=1)
    assert (delivery.id, delivery.attempts, delivery.lease_owner) == (pending.id, 1, OWNER)
    assert delivery.lease_until == later(seconds=1) + LEASE
    ledger.deliveries.delivered(delivery.id, owner=OWNER, status=204, now=later(seconds=2))
    told = there(ledger, delivery.id)
    assert (told.state, told.last_status, told.delivered_at) == (DeliveryState.DELIVERED, 204, later(seconds=2))
    assert unset(told.next_at, told.last_error, told.lease_owner, told.lease_until)
    assert told.body == pending.body
    assert claim(ledger, days=9) == []


def test_a_failed_attempt_is_told_and_tried_again_in_its_time(ledger: Ledger) -> None:
    sendable(ledger)
    [delivery] = claim(ledger)
    ledger.deliveries.failed(
        delivery.id, owner=OWNER, status=None, error="no answer\x00", next_at=later(minutes=5), now=NOW
    )
    waiting = there(ledger, delivery.id)
    assert (waiting.state, waiting.last_status, waiting.last_error) == (DeliveryState.PENDING, None, "no answer?")
    assert claim(ledger, minutes=4) == []
    [again] = claim(ledger, minutes=5)
    assert again.attempts == 2
    ledger.deliveries.failed(again.id, owner=OWNER, status=500, error="HTTP 500", next_at=None, now=later(minutes=5))
    assert (there(ledger, again.id).state, there(ledger, again.id).last_status) == (DeliveryState.DEAD, 500)
    assert claim(ledger, days=9) == []


def test_a_dead_senders_delivery_is_sent_again_and_its_own_word_counts_no_more(ledger: Ledger) -> None:
    sendable(ledger)
    [delivery] = claim(ledger)
    assert claim(ledger, seconds=LEASE.total_seconds(), owner=OTHER) == []
    [taken_over] = claim(ledger, seconds=LEASE.total_seconds() + 1, owner=OTHER)
    assert taken_over.attempts == 2
    before = everything(ledger)
    with pytest.raises(LostClaim, match=f"delivery {delivery.id} is not held by {OWNER} any more"):
        ledger.deliveries.delivered(delivery.id, owner=OWNER, status=200, now=NOW)
    with pytest.raises(LostClaim):
        ledger.deliveries.failed(delivery.id, owner=OWNER, status=500, error="x", next_at=None, now=NOW)
    assert everything(ledger) == before


def test_two_senders_never_hold_the_same_delivery(ledger: Ledger) -> None:
    ids = {delivery.id for delivery in sendable(ledger, 20)}
    claims = race(lambda number: claim(ledger, owner=f"sender-{number}", minutes=1, limit=5))
    held = Counter(delivery.id for batch in claims for delivery in batch)
    assert set(held) <= ids
    assert set(held.values()) == {1}
    assert len(held) + len(claim(ledger, minutes=1)) == 20


def test_the_longest_due_are_sent_first(ledger: Ledger) -> None:
    ids = [delivery.id for delivery in sendable(ledger, 3)]
    assert [delivery.id for delivery in claim(ledger, minutes=1, limit=2)] == ids[:2]
    assert [delivery.id for delivery in claim(ledger, minutes=1)] == ids[2:]


def test_dead_deliveries_are_replayed_under_the_ids_they_had(ledger: Ledger) -> None:
    one, other, third = dead(ledger, 3)
    assert ledger.deliveries.replay([one, "msg-unknown"], now=later(hours=1)) == 1
    [again] = claim(ledger, hours=1)
    assert (again.id, again.attempts, again.last_error) == (one, 1, "gone")
    assert ledger.deliveries.replay_dead(now=later(hours=1)) == 2
    assert {delivery.id for delivery in claim(ledger, hours=1)} == {other, third}
    assert ledger.deliveries.replay_dead(now=later(hours=1)) == 0


def test_a_delivered_one_can_be_sent_once_more_and_a_pending_one_is_left_alone(ledger: Ledger) -> None:
    delivered, pending = (delivery.id for delivery in sendable(ledger, 2))
    [held] = claim(ledger, limit=1)
    ledger.deliveries.delivered(delivered, owner=OWNER, status=200, now=NOW)
    assert held.id == delivered
    assert ledger.deliveries.replay([delivered, pending], now=later(hours=1)) == 1
    again = there(ledger, delivered)
    assert (again.state, again.next_at, again.delivered_at) == (DeliveryState.PENDING, later(hours=1), None)
    assert there(ledger, pending).next_at == later(seconds=1)


def test_the_latest_come_first_of_the_state_that_is_asked_for(ledger: Ledger) -> None:
    ids = [delivery.id for delivery in sendable(ledger, 3)]
    claim(ledger, limit=1)
    ledger.deliveries.failed(ids[0], owner=OWNER, status=410, error="gone", next_at=None, now=NOW)
    assert [delivery.id for delivery in ledger.deliveries.recent(9)] == ids[::-1]
    assert [delivery.id for delivery in ledger.deliveries.recent(1)] == ids[2:]
    assert [delivery.id for delivery in ledger.deliveries.recent(9, state="dead")] == ids[:1]
    assert ledger.deliveries.count_by_state() == {"pending": 2, "dead": 1}
    assert ledger.deliveries.get("msg-unknown") is None


def test_only_what_is_over_is_pruned(ledger: Ledger) -> None:
    ids = [delivery.id for delivery in sendable(ledger, 4)]
    for delivery in claim(ledger, minutes=1, limit=3):
        if delivery.id == ids[0]:
            ledger.deliveries.delivered(delivery.id, owner=OWNER, status=200, now=later(days=9))
        else:
            ledger.deliveries.failed(delivery.id, owner=OWNER, status=410, error="x", next_at=None, now=NOW)
    before = NOW + timedelta(seconds=1.5)
    assert ledger.deliveries.prune(before=before, limit=1) == 1
    assert ledger.deliveries.prune(before=before, limit=9) == 1
    assert ledger.deliveries.prune(before=before, limit=9) == 0
    assert {delivery.id for delivery in ledger.deliveries.recent(9)} == set(ids[2:])

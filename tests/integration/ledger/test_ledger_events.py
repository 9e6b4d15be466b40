"""Events: what was answered to a sender is there, once, until somebody has brought it to its end."""

from collections import Counter
from datetime import timedelta

import pytest

from tests.support.happenings import PATIENCE, received, step, taken, there, watched
from tests.support.race import RACERS, race
from tests.support.rows import LEASE, NOW, OTHER, OWNER, everything, later, unset
from worker.audit.compactions import LostClaim
from worker.audit.events import HANDED_ON_WITHIN, Arrival, Source
from worker.audit.ledger import Ledger
from worker.audit.records import EventState

LONG_AFTER = timedelta(days=9)


def unclaimed(ledger: Ledger, **span: float) -> list[str]:
    return ledger.events.unclaimed(now=later(**span), patience=PATIENCE, limit=100)


def test_an_arrival_is_kept_with_all_that_its_sender_said(ledger: Ledger) -> None:
    arrival = Arrival(Source.SIGNED, "hook-1", "conv-1", "agent-1", "eager", "a long chat, 你好")
    [receipt] = received(ledger, arrival)
    event = there(ledger, receipt.event_id)
    assert receipt.is_new
    assert event.id.startswith("evt-")
    assert (event.source, event.key, event.state) == ("signed", "hook-1", EventState.RECEIVED)
    assert (event.conversation_id, event.agent_id, event.policy) == ("conv-1", "agent-1", "eager")
    assert (event.note, event.attempts, event.received_at) == ("a long chat, 你好", 0, NOW)
    assert unset(event.enqueued_at, event.lease_owner, event.finished_at, event.reason, event.usage)


def test_the_same_again_is_the_same_event_and_writes_nothing(ledger: Ledger) -> None:
    [first] = received(ledger, step(1))
    before = everything(ledger)
    [again] = received(ledger, step(1, note="another word"), now=later(hours=1))
    assert (again.event_id, again.is_new) == (first.event_id, False)
    assert everything(ledger) == before


def test_the_same_twice_in_one_batch_is_new_once_and_the_order_is_kept(ledger: Ledger) -> None:
    [old] = received(ledger, step(2))
    receipts = received(ledger, step(9), step(2), step(9), step(1), step(2))
    assert [receipt.is_new for receipt in receipts] == [True, False, False, True, False]
    assert [there(ledger, receipt.event_id).key for receipt in receipts] == [
        "step-9",
        "step-2",
        "step-9",
        "step-1",
        "step-2",
    ]
    assert receipts[1].event_id == receipts[4].event_id == old.event_id


def test_the_same_key_of_another_source_is_another_event(ledger: Ledger) -> None:
    one, other = received(ledger, step(1), step(1, Source.SIGNED))
    assert one.event_id != other.event_id
    assert (one.is_new, other.is_new) == (True, True)


def test_an_empty_batch_is_no_error(ledger: Ledger) -> None:
    assert received(ledger) == []
    assert ledger.events.claim([], now=NOW, owner=OWNER, lease=LEASE) == []


def test_a_batch_larger_than_a_query_is_taken_whole_and_known_again(ledger: Ledger) -> None:
    batch = [step(number) for number in range(1203)]
    first, again = received(ledger, *batch), received(ledger, *batch)
    assert all(receipt.is_new for receipt in first)
    assert [receipt.event_id for receipt in again] == [receipt.event_id for receipt in first]
    assert not any(receipt.is_new for receipt in again)
    claimed = ledger.events.claim([one.event_id for one in first], now=NOW, owner=OWNER, lease=LEASE)
    assert {event.id for event in claimed} == {receipt.event_id for receipt in first}


def test_batches_that_overlap_at_the_same_moment_make_each_event_once(ledger: Ledger) -> None:
    def attempt(number: int) -> list[tuple[str, str, bool]]:
        batch = [step(key) for key in range(60)]
        mine = batch if number % 2 else batch[::-1]
        receipts = ledger.events.receive(mine, now=NOW)
        return [(one.key, receipt.event_id, receipt.is_new) for one, receipt in zip(mine, receipts, strict=True)]

    answers = [answer for batch in race(attempt) for answer in batch]
    assert len({(key, event_id) for key, event_id, _ in answers}) == 60
    assert Counter(key for key, _, is_new in answers if is_new) == Counter({f"step-{key}": 1 for key in range(60)})
    assert ledger.events.count_by_state() == {"received": 60}


def test_a_batch_that_fails_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(UnicodeEncodeError):
        received(ledger, *(step(number) for number in range(1100)), step("zz \ud800"))
    assert ledger.events.count_by_state() == {}


def test_words_that_a_database_would_refuse_do_not_spoil_the_batch(ledger: Ledger) -> None:
    receipts = received(ledger, step(1, note="half a pair \ud800 and a \x00"), step(2))
    assert there(ledger, receipts[0].event_id).note == "half a pair ? and a ?"
    assert there(ledger, receipts[1].event_id).state == EventState.RECEIVED


def test_two_owners_never_hold_the_same_event(ledger: Ledger) -> None:
    ids = [receipt.event_id for receipt in received(ledger, *(step(number) for number in range(40)))]

    def attempt(number: int) -> list[str]:
        mine = ids if number % 2 else ids[::-1]
        return [one.id for one in ledger.events.claim(mine, now=NOW, owner=f"worker-{number}", lease=LEASE)]

    claims = race(attempt)
    assert sorted(id_ for claim in claims for id_ in claim) == sorted(ids)
    for number, claim in enumerate(claims):
        assert {there(ledger, id_).lease_owner for id_ in claim} <= {f"worker-{number}"}
    assert len(claims) == RACERS


def test_noting_and_claiming_at_the_same_moment_wait_for_each_other_in_no_ring(ledger: Ledger) -> None:
    ids = [receipt.event_id for receipt in received(ledger, *(step(number) for number in range(200)))]

    def attempt(number: int) -> int:
        mine = ids if number % 2 else ids[::-1]
        if number < RACERS // 2:
            ledger.events.enqueued(mine, now=NOW)
            return 0
        return len(ledger.events.claim(mine, now=NOW, owner=f"worker-{number}", lease=LEASE))

    assert sum(race(attempt)) == 200


def test_a_claim_tells_the_oldest_first_and_counts_the_attempt(ledger: Ledger) -> None:
    ids = [received(ledger, step(n), now=later(seconds=-n))[0].event_id for n in range(3)]
    claimed = ledger.events.claim(ids, now=NOW, owner=OWNER, lease=LEASE)
    assert [event.id for event in claimed] == ids[::-1]
    assert {(event.state, event.attempts, event.lease_owner, event.lease_until) for event in claimed} == {
        (EventState.RUNNING, 1, OWNER, NOW + LEASE)
    }


def test_an_event_is_taken_over_when_its_owners_lease_is_over_and_not_before(ledger: Ledger) -> None:
    event = taken(ledger)
    assert ledger.events.claim([event.id], now=NOW + LEASE, owner=OTHER, lease=LEASE) == []
    assert unclaimed(ledger, seconds=LEASE.total_seconds()) == []
    after = NOW + LEASE + timedelta(seconds=1)
    assert ledger.events.unclaimed(now=after, patience=PATIENCE, limit=9) == [event.id]
    [taken_over] = ledger.events.claim([event.id], now=after, owner=OTHER, lease=LEASE)
    assert (taken_over.lease_owner, taken_over.attempts) == (OTHER, 2)
    with pytest.raises(LostClaim, match=f"event {event.id} is not held by {OWNER} any more"):
        ledger.events.close(event.id, owner=OWNER, reason="below_trigger", sentence="small", now=after)
    assert there(ledger, event.id) == taken_over


def test_an_event_that_the_door_could_not_hand_on_is_found_after_its_time(ledger: Ledger) -> None:
    [receipt] = received(ledger, step(1))
    assert unclaimed(ledger, seconds=HANDED_ON_WITHIN.total_seconds()) == []
    assert unclaimed(ledger, seconds=HANDED_ON_WITHIN.total_seconds() + 1) == [receipt.event_id]


def test_an_event_whose_message_was_lost_is_found_once_patience_is_over(ledger: Ledger) -> None:
    [receipt] = received(ledger, step(1))
    ledger.events.enqueued([receipt.event_id, "evt-unknown"], now=NOW)
    assert unclaimed(ledger, minutes=10) == []
    assert unclaimed(ledger, minutes=10.1) == [receipt.event_id]
    ledger.events.not_enqueued([receipt.event_id])
    assert unclaimed(ledger, minutes=1) == [receipt.event_id]


def test_a_released_event_waits_for_its_time_and_keeps_the_reason(ledger: Ledger) -> None:
    event = taken(ledger)
    ledger.events.release(event.id, owner=OWNER, sentence="503, try later", not_before=later(minutes=5))
    released = there(ledger, event.id)
    assert (released.state, released.sentence, released.attempts) == (EventState.RECEIVED, "503, try later", 1)
    assert unset(released.enqueued_at, released.lease_owner, released.lease_until)
    assert ledger.events.claim([event.id], now=later(minutes=4), owner=OTHER, lease=LEASE) == []
    assert unclaimed(ledger, minutes=4) == []
    assert unclaimed(ledger, minutes=5) == [event.id]
    ledger.events.enqueued([event.id], now=later(minutes=5))
    assert unclaimed(ledger, minutes=6) == []
    assert unclaimed(ledger, minutes=16) == [event.id]
    [again] = ledger.events.claim([event.id], now=later(minutes=5), owner=OTHER, lease=LEASE)
    assert again.attempts == 2


def test_no_more_is_found_than_asked_for_whatever_the_reason(ledger: Ledger) -> None:
    lost = [receipt.event_id for receipt in received(ledger, *(step(number) for number in range(4)))]
    ledger.events.enqueued(lost, now=NOW)
    received(ledger, *(step(f"unsent-{number}") for number in range(4)))
    died = taken(ledger, "died")
    everyone = unclaimed(ledger, hours=1)
    assert len(everyone) == len(set(everyone)) == 9
    assert {died.id, *lost} < set(everyone)
    for limit in (0, 3, 6):
        assert ledger.events.unclaimed(now=later(hours=1), patience=PATIENCE, limit=limit) == everyone[:limit]


def test_a_closed_event_tells_why_and_is_never_taken_up_again(ledger: Ledger) -> None:
    done, failed = taken(ledger, 1), taken(ledger, 2)
    ledger.events.close(
        done.id, owner=OWNER, reason="below_trigger", sentence="small", usage=0.12, now=later(seconds=3)
    )
    ledger.events.fail(failed.id, owner=OWNER, reason="not_found", sentence="no such step", now=later(seconds=4))
    one, other = there(ledger, done.id), there(ledger, failed.id)
    assert (one.state, one.reason, one.sentence, one.usage) == (EventState.DONE, "below_trigger", "small", 0.12)
    assert (other.state, other.reason, other.sentence) == (EventState.FAILED, "not_found", "no such step")
    assert (one.finished_at, other.finished_at) == (later(seconds=3), later(seconds=4))
    assert unset(one.lease_owner, one.lease_until, other.lease_owner, other.lease_until)
    ids = [done.id, failed.id]
    before = everything(ledger)
    ledger.events.enqueued(ids, now=NOW + LONG_AFTER)
    ledger.events.not_enqueued(ids)
    assert ledger.events.claim(ids, now=NOW + LONG_AFTER, owner=OTHER, lease=LEASE) == []
    assert unclaimed(ledger, days=9) == []
    for id_ in ids:
        with pytest.raises(LostClaim):
            ledger.events.release(id_, owner=OWNER, sentence="again", not_before=NOW)
    assert everything(ledger) == before
    assert [receipt.event_id for receipt in received(ledger, step(1), step(2))] == ids


def test_the_latest_events_come_first_of_the_states_that_are_asked_for(ledger: Ledger) -> None:
    closed, waiting, running = (
        taken(ledger, 1),
        watched(ledger, 2, now=later(seconds=1)),
        taken(ledger, 3, now=later(seconds=2)),
    )
    ledger.events.close(closed.id, owner=OWNER, reason="x", sentence="x", now=later(seconds=9))
    assert [event.id for event in ledger.events.recent(9)] == [running.id, waiting.id, closed.id]
    assert [event.id for event in ledger.events.recent(1)] == [running.id]
    some = ledger.events.recent(9, states=[EventState.DONE, EventState.WATCHED])
    assert [event.id for event in some] == [waiting.id, closed.id]
    assert ledger.events.count_by_state() == {"done": 1, "watched": 1, "running": 1}


def test_only_closed_events_are_pruned_the_oldest_first(ledger: Ledger) -> None:
    received(ledger, step("received"))
    taken(ledger, "running")
    watched(ledger, "watched")
    old, older, young = taken(ledger, 1), taken(ledger, 2), taken(ledger, 3)
    for number, event in enumerate((older, old, young)):
        ledger.events.close(event.id, owner=OWNER, reason="x", sentence="x", now=later(hours=number))
    assert ledger.events.prune(before=later(hours=1.5), limit=1) == 1
    assert ledger.events.get(older.id) is None
    assert ledger.events.prune(before=later(hours=1.5), limit=9) == 1
    assert ledger.events.prune(before=later(hours=1.5), limit=9) == 0
    assert ledger.events.count_by_state() == {"received": 1, "running": 1, "watched": 1, "done": 1}
    assert there(ledger, young.id).state == EventState.DONE

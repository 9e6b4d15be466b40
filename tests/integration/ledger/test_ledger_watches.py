"""Watches: many events of one conversation are one look at it, and each of them comes to the end of that look."""

from collections import Counter
from datetime import timedelta

import pytest

from tests.support.happenings import IDLE_FOR, POLICY, due, finish, received, step, taken, there, watched
from tests.support.race import race
from tests.support.rows import AGENT, LEASE, NOW, OTHER, OWNER, everything, later, unset
from worker.audit.compactions import LostClaim
from worker.audit.events import Source
from worker.audit.ledger import Ledger
from worker.audit.records import EventState
from worker.audit.watches import Watch

LATE = {"hours": 1}


def only(ledger: Ledger) -> Watch:
    [watch] = ledger.watches.waiting(10)
    return watch


def test_an_event_has_its_conversation_watched(ledger: Ledger) -> None:
    event = watched(ledger, usage=0.83)
    watch = only(ledger)
    assert (event.state, event.agent_id, event.conversation_id) == (EventState.WATCHED, AGENT, "conv-1")
    assert (event.policy, event.usage) == (POLICY, 0.83)
    assert unset(event.lease_owner, event.lease_until, event.finished_at)
    assert (watch.agent_id, watch.conversation_id, watch.policy) == (AGENT, "conv-1", POLICY)
    assert (watch.due_at, watch.first_event_at, watch.last_event_at) == (NOW + IDLE_FOR, NOW, NOW)
    assert (watch.events, watch.revision, watch.usage, watch.attempts) == (1, 1, 0.83, 0)
    assert unset(watch.reason, watch.sentence, watch.lease_owner, watch.lease_until)


def test_fifty_events_of_one_conversation_are_one_watch_that_is_due_after_the_last(ledger: Ledger) -> None:
    events = [watched(ledger, number, now=later(seconds=number), usage=number / 100) for number in range(50)]
    watch = only(ledger)
    assert (watch.events, watch.revision, watch.usage) == (50, 50, 0.49)
    assert (watch.first_event_at, watch.last_event_at) == (NOW, later(seconds=49))
    assert watch.due_at == later(seconds=49) + IDLE_FOR
    assert due(ledger, now=later(seconds=48) + IDLE_FOR) == []
    [claimed] = due(ledger, now=watch.due_at)
    finish(ledger, claimed, now=later(**LATE))
    ended = [there(ledger, event.id) for event in events]
    assert {(one.state, one.reason, one.compaction_id) for one in ended} == {(EventState.DONE, "over_trigger", "cmp-1")}
    assert {(one.sentence, one.finished_at) for one in ended} == {("over it", later(**LATE))}
    assert ledger.watches.waiting(10) == []


def test_an_older_event_that_is_looked_into_later_moves_nothing_back(ledger: Ledger) -> None:
    watched(ledger, 2, now=later(minutes=1))
    watched(ledger, 1, now=NOW)
    watch = only(ledger)
    assert (watch.first_event_at, watch.last_event_at) == (NOW, later(minutes=1))
    assert watch.due_at == later(minutes=1) + IDLE_FOR


def test_a_signed_event_brings_the_look_forward_and_never_puts_it_off(ledger: Ledger) -> None:
    watched(ledger, 1)
    watched(ledger, 2, Source.SIGNED, now=later(seconds=9), usage=None)
    watch = only(ledger)
    assert (watch.due_at, watch.usage, watch.events) == (later(seconds=9), 0.8, 2)
    watched(ledger, 3, Source.SIGNED, now=later(seconds=20))
    assert only(ledger).due_at == later(seconds=9)


def test_each_conversation_that_a_step_may_have_been_in_has_an_event_and_a_watch(ledger: Ledger) -> None:
    event = watched(ledger, 1, Source.LETTA, "conv-2", "conv-1", "conv-3", "conv-2")
    assert (event.conversation_id, event.key) == ("conv-2", "step-1")
    events = {one.conversation_id: one for one in ledger.events.recent(10)}
    assert {id_: one.key for id_, one in events.items()} == {
        "conv-2": "step-1",
        "conv-1": f"step-1 {AGENT}/conv-1",
        "conv-3": f"step-1 {AGENT}/conv-3",
    }
    assert {(one.state, one.policy, one.usage, one.received_at) for one in events.values()} == {
        (EventState.WATCHED, POLICY, 0.8, NOW)
    }
    claimed = {watch.conversation_id: watch for watch in due(ledger, now=later(**LATE))}
    assert {watch.events for watch in claimed.values()} == {1}
    finish(ledger, claimed["conv-1"], now=later(**LATE))
    states = {one.conversation_id: one.state for one in ledger.events.recent(10)}
    assert states == {"conv-1": EventState.DONE, "conv-2": EventState.WATCHED, "conv-3": EventState.WATCHED}


def test_the_same_conversation_is_watched_for_each_policy_by_itself(ledger: Ledger) -> None:
    watched(ledger, 1)
    other = taken(ledger, 2)
    ledger.watches.watch(
        other, [(AGENT, "conv-1")], policy="eager", usage=0.5, due_at=later(days=1), owner=OWNER, now=NOW
    )
    [watch] = due(ledger, now=later(**LATE))
    finish(ledger, watch, now=later(**LATE))
    assert only(ledger).policy == "eager"
    assert there(ledger, other.id).state == EventState.WATCHED


def test_an_event_that_is_held_no_more_has_nothing_watched(ledger: Ledger) -> None:
    event = taken(ledger)
    before = everything(ledger)
    with pytest.raises(LostClaim):
        ledger.watches.watch(event, [(AGENT, "conv-1")], policy=POLICY, usage=0.8, due_at=NOW, owner=OTHER, now=NOW)
    assert everything(ledger) == before


def test_watching_happens_whole_or_not_at_all(ledger: Ledger) -> None:
    event = taken(ledger)
    before = everything(ledger)
    with pytest.raises(UnicodeEncodeError):
        ledger.watches.watch(
            event, [(AGENT, "a"), (AGENT, "\ud800")], policy=POLICY, usage=0.8, due_at=NOW, owner=OWNER, now=NOW
        )
    assert everything(ledger) == before


def test_events_of_the_same_conversations_at_the_same_moment_all_count(ledger: Ledger) -> None:
    conversations = [f"conv-{number}" for number in range(6)]

    def attempt(number: int) -> None:
        order = conversations if number % 2 else conversations[::-1]
        watched(ledger, number, Source.LETTA, *order, now=later(seconds=number))

    race(attempt, 6)
    watches = ledger.watches.waiting(100)
    assert sorted(watch.conversation_id for watch in watches) == conversations
    assert {(watch.events, watch.revision, watch.due_at) for watch in watches} == {(6, 6, later(seconds=5) + IDLE_FOR)}


def test_two_owners_never_hold_the_same_watch(ledger: Ledger) -> None:
    for number in range(30):
        watched(ledger, number, Source.LETTA, f"conv-{number}")
    claims = race(lambda number: due(ledger, now=later(**LATE), owner=f"worker-{number}", limit=8))
    held = Counter(watch.conversation_id for claim in claims for watch in claim)
    assert set(held.values()) == {1}
    left = due(ledger, now=later(**LATE))
    assert len(held) + len(left) == 30


def test_the_longest_due_are_claimed_first(ledger: Ledger) -> None:
    for number in (2, 0, 1):
        watched(ledger, number, Source.LETTA, f"conv-{number}", now=later(seconds=number))
    first = due(ledger, now=later(**LATE), limit=2)
    assert [watch.conversation_id for watch in first] == ["conv-0", "conv-1"]
    assert [watch.conversation_id for watch in ledger.watches.waiting(2)] == ["conv-0", "conv-1"]
    assert {(watch.lease_owner, watch.lease_until) for watch in first} == {(OWNER, later(**LATE) + LEASE)}


def test_a_dead_owners_watch_is_due_again_and_its_old_claim_counts_no_more(ledger: Ledger) -> None:
    watched(ledger)
    [old] = due(ledger, now=later(**LATE))
    assert due(ledger, now=later(**LATE) + LEASE) == []
    [new] = due(ledger, now=later(**LATE) + LEASE + timedelta(seconds=1))
    before = everything(ledger)
    # The same worker, even: what it began before its lease ran out is not what it holds now.
    with pytest.raises(LostClaim, match=f"the watch on conversation conv-1 is not held by {OWNER} any more"):
        finish(ledger, old, now=later(**LATE))
    with pytest.raises(LostClaim):
        ledger.watches.put_off(old, owner=OWNER, due_at=later(days=1), reason="x", sentence="x")
    assert everything(ledger) == before
    finish(ledger, new, now=later(**LATE))
    with pytest.raises(LostClaim):
        finish(ledger, new, now=later(**LATE))


def test_a_watch_that_is_put_off_tells_why_and_comes_again(ledger: Ledger) -> None:
    event = watched(ledger)
    [watch] = due(ledger, now=later(**LATE))
    ledger.watches.put_off(watch, owner=OWNER, due_at=later(hours=2), reason="cooldown", sentence="it rests")
    put_off = only(ledger)
    assert (put_off.due_at, put_off.reason, put_off.sentence) == (later(hours=2), "cooldown", "it rests")
    assert (put_off.attempts, put_off.events, put_off.revision) == (1, 1, 1)
    assert unset(put_off.lease_owner, put_off.lease_until)
    assert there(ledger, event.id).state == EventState.WATCHED
    assert due(ledger, now=later(hours=1.9)) == []
    [again] = due(ledger, now=later(hours=2), owner=OTHER)
    assert again.attempts == 1


def test_putting_off_keeps_the_later_time_that_a_newer_event_has_set(ledger: Ledger) -> None:
    watched(ledger, 1)
    [watch] = due(ledger, now=later(minutes=6))
    watched(ledger, 2, now=later(minutes=6))
    ledger.watches.put_off(watch, owner=OWNER, due_at=later(minutes=7), reason="not_idle", sentence="busy")
    assert (only(ledger).due_at, only(ledger).events) == (later(minutes=6) + IDLE_FOR, 2)
    [watch] = due(ledger, now=later(hours=1))
    watched(ledger, 3, now=later(hours=1))
    ledger.watches.put_off(watch, owner=OWNER, due_at=later(hours=9), reason="cooldown", sentence="it rests")
    assert only(ledger).due_at == later(hours=9)


def test_closing_leaves_the_watch_to_the_events_that_came_since_its_claim(ledger: Ledger) -> None:
    seen = [watched(ledger, number) for number in range(3)]
    [put_off] = due(ledger, now=later(minutes=6))
    ledger.watches.put_off(put_off, owner=OWNER, due_at=later(minutes=7), reason="not_idle", sentence="busy")
    [watch] = due(ledger, now=later(minutes=7))
    # One is older than the claim by its time of receipt, and was looked into after it.
    unseen = [watched(ledger, 8, now=later(minutes=2)), watched(ledger, 9, now=later(minutes=8))]
    finish(ledger, watch, now=later(minutes=9))
    assert {there(ledger, event.id).state for event in seen} == {EventState.DONE}
    assert {there(ledger, event.id).state for event in unseen} == {EventState.WATCHED}
    kept = only(ledger)
    assert (kept.events, kept.first_event_at, kept.last_event_at) == (2, later(minutes=2), later(minutes=8))
    assert (kept.due_at, kept.attempts, kept.revision) == (later(minutes=8) + IDLE_FOR, 0, 5)
    assert unset(kept.reason, kept.sentence, kept.lease_owner, kept.lease_until)
    [again] = due(ledger, now=kept.due_at, owner=OTHER)
    finish(ledger, again, now=later(hours=1), owner=OTHER)
    assert {there(ledger, event.id).finished_at for event in unseen} == {later(hours=1)}
    assert ledger.watches.waiting(9) == []


def test_a_conversation_that_was_closed_is_watched_anew(ledger: Ledger) -> None:
    first = watched(ledger, 1)
    [watch] = due(ledger, now=later(**LATE))
    finish(ledger, watch, now=later(**LATE))
    second = watched(ledger, 2, now=later(hours=2))
    assert (only(ledger).revision, only(ledger).events) == (1, 1)
    [watch] = due(ledger, now=later(hours=3))
    finish(ledger, watch, now=later(hours=3))
    assert there(ledger, first.id).finished_at == later(**LATE)
    assert there(ledger, second.id).finished_at == later(hours=3)


def test_events_that_come_while_watches_are_closed_are_closed_or_watched_never_lost(ledger: Ledger) -> None:
    def attempt(number: int) -> None:
        for turn in range(8):
            if number % 2:
                watched(ledger, f"{number}-{turn}")
                continue
            for watch in due(ledger, now=later(**LATE), owner=f"worker-{number}"):
                finish(ledger, watch, now=later(**LATE), owner=f"worker-{number}")

    race(attempt, 4)
    for watch in due(ledger, now=later(days=1)):
        finish(ledger, watch, now=later(days=1))
    assert ledger.events.count_by_state() == {"done": 16}
    assert ledger.watches.waiting(9) == []


def test_the_same_step_again_does_not_touch_its_watch(ledger: Ledger) -> None:
    watched(ledger, 1)
    before = everything(ledger)
    [receipt] = received(ledger, step(1), now=later(minutes=1))
    assert ledger.events.claim([receipt.event_id], now=later(days=1), owner=OTHER, lease=LEASE) == []
    assert everything(ledger) == before

"""Claims: one worker holds a row at a time, and nobody writes into a row that is not his."""

import pytest

from tests.support.race import RACERS, race
from tests.support.rows import (
    AGENT,
    INTENT,
    LEASE,
    NOW,
    OTHER,
    OWNER,
    STEPS,
    Step,
    begun,
    claimed,
    compaction,
    later,
    planned,
    raw,
    seen,
    unset,
)
from worker.audit.compactions import LostClaim
from worker.audit.ledger import Ledger
from worker.audit.openrows import Abandoned
from worker.audit.records import State

every_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())


def test_a_claim_takes_the_row_for_its_lease(ledger: Ledger) -> None:
    row = ledger.compactions.claim(planned(ledger), now=NOW, owner=OWNER, lease=LEASE)
    assert row is not None
    assert (row.state, row.lease_owner, row.lease_until) == (State.RUNNING, OWNER, NOW + LEASE)
    assert (row.attempts, row.started_at) == (1, NOW)
    assert row == compaction(ledger, row.id)


def test_of_eight_workers_at_once_exactly_one_gets_the_row(ledger: Ledger) -> None:
    id_ = planned(ledger)
    rows = race(lambda number: ledger.compactions.claim(id_, now=NOW, owner=f"worker-{number}", lease=LEASE))
    winners = [row for row in rows if row is not None]
    assert len(winners) == 1
    assert compaction(ledger, id_).lease_owner == winners[0].lease_owner
    assert compaction(ledger, id_).attempts == 1


def test_each_of_eight_rows_is_claimed_once_by_eight_workers_that_want_them_all(ledger: Ledger) -> None:
    ids = [planned(ledger, f"conv-{number}") for number in range(RACERS)]

    def claim_all(number: int) -> list[str]:
        mine = [ledger.compactions.claim(id_, now=NOW, owner=f"worker-{number}", lease=LEASE) for id_ in ids]
        return [row.id for row in mine if row is not None]

    assert sorted(id_ for got in race(claim_all) for id_ in got) == sorted(ids)


def test_a_running_row_cannot_be_claimed_not_even_after_its_lease(ledger: Ledger) -> None:
    row = claimed(ledger)
    assert ledger.compactions.claim(row.id, now=later(days=1), owner=OTHER, lease=LEASE) is None


def test_a_row_that_is_not_due_cannot_be_claimed(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.release(row.id, "busy", owner=OWNER, not_before=later(hours=1))
    assert ledger.compactions.claim(row.id, now=later(minutes=59), owner=OTHER, lease=LEASE) is None
    again = ledger.compactions.claim(row.id, now=later(hours=1), owner=OTHER, lease=LEASE)
    assert again is not None
    assert (again.attempts, again.error) == (2, "busy")


def test_a_row_that_is_not_there_is_nobodys(ledger: Ledger) -> None:
    assert ledger.compactions.claim("cmp-unknown", now=NOW, owner=OWNER, lease=LEASE) is None
    assert ledger.compactions.take_over("cmp-unknown", now=NOW, owner=OWNER, lease=LEASE) is None
    assert ledger.compactions.get("cmp-unknown") is None


def test_a_living_workers_row_cannot_be_taken_over(ledger: Ledger) -> None:
    row = claimed(ledger)
    assert ledger.compactions.take_over(row.id, now=NOW + LEASE, owner=OTHER, lease=LEASE) is None


def test_a_planned_row_is_claimed_and_never_taken_over(ledger: Ledger) -> None:
    assert ledger.compactions.take_over(planned(ledger), now=later(days=1), owner=OTHER, lease=LEASE) is None


def test_of_eight_sweeps_at_once_exactly_one_takes_a_dead_workers_row_over(ledger: Ledger) -> None:
    row = claimed(ledger)
    now = later(minutes=6)
    rows = race(lambda number: ledger.compactions.take_over(row.id, now=now, owner=f"sweep-{number}", lease=LEASE))
    winners = [taken for taken in rows if taken is not None]
    assert len(winners) == 1
    assert winners[0].lease_until == now + LEASE
    assert winners[0].attempts == 1


@every_step
def test_a_worker_whose_row_was_taken_over_can_do_nothing_with_it_any_more(ledger: Ledger, step: Step) -> None:
    row = claimed(ledger)
    assert ledger.compactions.take_over(row.id, now=later(minutes=6), owner=OTHER, lease=LEASE) is not None
    before = raw(ledger, row.id)
    with pytest.raises(LostClaim, match=row.id):
        step(ledger, row, OWNER, later(minutes=7))
    assert raw(ledger, row.id) == before


@every_step
def test_a_planned_row_must_be_claimed_before_anything_else(ledger: Ledger, step: Step) -> None:
    row = compaction(ledger, planned(ledger))
    before = raw(ledger, row.id)
    with pytest.raises(LostClaim):
        step(ledger, row, OWNER, NOW)
    assert raw(ledger, row.id) == before


def test_a_lost_closing_does_not_put_the_conversation_off(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.take_over(row.id, now=later(minutes=6), owner=OTHER, lease=LEASE)
    for name in ("succeed", "refuse", "fail"):
        with pytest.raises(LostClaim):
            STEPS[name](ledger, row, OWNER, later(minutes=7))
    known = ledger.conversations.known([(row.agent_id, row.conversation_id)])
    conversation = known[row.agent_id, row.conversation_id].conversation
    assert (conversation.refusals_in_row, conversation.failures_in_row, conversation.not_before) == (0, 0, None)
    assert conversation.last_compacted_at is None


def test_an_intent_is_committed_with_what_was_seen_and_what_will_be_sent(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.intend(row.id, INTENT, owner=OWNER, now=later(seconds=2), lease=LEASE)
    told = compaction(ledger, row.id)
    assert told.settings == {"mode": "sliding_window", "sliding_window_percentage": 0.25}
    assert (told.tokens_before, told.usage_before, told.num_messages_before) == (12_500, 0.78125, 43)
    assert told.ids_before == ["message-sys", "message-1", "message-2"]
    assert (told.newest_before, told.usage_expected, told.sentence) == (NOW, 0.39, INTENT.sentence)
    assert (told.posted_at, told.lease_until) == (later(seconds=2), later(seconds=2) + LEASE)
    assert told.state == State.RUNNING


def test_an_answer_is_kept_verbatim(ledger: Ledger) -> None:
    row = claimed(ledger)
    body = '{"summary": "Grüße, 你好 \\u0041 👋",  "num_messages_after":19 ,"x":[1e2]}\n'
    ledger.compactions.keep_answer(row.id, body, owner=OWNER, now=later(minutes=3), lease=LEASE)
    told = compaction(ledger, row.id)
    assert told.response == body
    assert told.lease_until == later(minutes=3) + LEASE


def test_a_released_row_is_as_planned_as_before_and_keeps_the_reason(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.enqueued([row.id], now=NOW)
    ledger.compactions.intend(row.id, INTENT, owner=OWNER, now=NOW, lease=LEASE)
    ledger.compactions.release(row.id, "503, try later", owner=OWNER, not_before=later(minutes=1))
    told = compaction(ledger, row.id)
    assert (told.state, told.error, told.not_before) == (State.PLANNED, "503, try later", later(minutes=1))
    assert unset(told.posted_at, told.enqueued_at, told.lease_owner, told.lease_until)
    assert told.attempts == 1


def test_a_row_that_is_left_open_is_found_from_its_time_on(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.leave(row.id, "the answer was lost", owner=OWNER, look_at=later(seconds=30))
    assert ledger.open_rows.abandoned(now=later(seconds=30), limit=10) == []
    assert ledger.open_rows.abandoned(now=later(seconds=31), limit=10) == [Abandoned(row.id, owned=False, heartbeats=0)]
    told = compaction(ledger, row.id)
    assert (told.state, told.error, told.lease_owner) == (State.RUNNING, "the answer was lost", None)


def test_dead_workers_rows_are_found_oldest_first_and_no_others(ledger: Ledger) -> None:
    old = claimed(ledger, "conv-1")
    new = claimed(ledger, "conv-2", now=later(seconds=1))
    alive = claimed(ledger, "conv-3", now=later(minutes=4))
    planned(ledger, "conv-4")
    STEPS["succeed"](ledger, claimed(ledger, "conv-5"), OWNER, NOW)
    dead = [Abandoned(row.id, owned=True, heartbeats=0) for row in (old, new)]
    assert ledger.open_rows.abandoned(now=later(minutes=6), limit=10) == dead
    assert ledger.open_rows.abandoned(now=later(minutes=6), limit=1) == dead[:1]
    assert alive.id in {row.id for row in ledger.open_rows.abandoned(now=later(minutes=10), limit=10)}


def test_a_heartbeat_renews_the_leases_of_its_owners_rows_alone(ledger: Ledger) -> None:
    mine, also_mine = claimed(ledger, "conv-1"), claimed(ledger, "conv-2")
    others, waiting = claimed(ledger, "conv-3", owner=OTHER), planned(ledger, "conv-4")
    rows = [mine.id, also_mine.id, others.id, waiting, "cmp-unknown"]
    ledger.compactions.renew(rows, owner=OWNER, lease_until=later(hours=1))
    for row in (mine, also_mine):
        assert (compaction(ledger, row.id).lease_until, compaction(ledger, row.id).heartbeats) == (later(hours=1), 1)
    assert compaction(ledger, others.id) == others
    assert compaction(ledger, waiting).lease_until is None


def test_a_heartbeat_seen_meanwhile_is_a_sign_of_life(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.renew([row.id], owner=OWNER, lease_until=later(seconds=1))
    late = {"now": later(minutes=6), "owner": OTHER, "lease": LEASE}
    assert ledger.compactions.take_over(row.id, **late, heartbeats=0) is None  # type: ignore[arg-type]
    taken = ledger.compactions.take_over(row.id, **late, heartbeats=1)  # type: ignore[arg-type]
    assert taken is not None
    assert (taken.lease_owner, taken.heartbeats) == (OTHER, 2)


def test_a_heartbeat_after_the_end_changes_nothing(ledger: Ledger) -> None:
    row = claimed(ledger)
    STEPS["succeed"](ledger, row, OWNER, NOW)
    before = raw(ledger, row.id)
    ledger.compactions.renew([row.id], owner=OWNER, lease_until=later(hours=1))
    assert raw(ledger, row.id) == before


def test_what_is_enqueued_is_told_with_its_scans_schedule(ledger: Ledger) -> None:
    began = begun(ledger)
    by_scan, by_hand = planned(ledger, seen=seen(scan_id=began.id)), planned(ledger, "conv-2", trigger="cli")
    row = compaction(ledger, by_scan)
    handed = {told.id: told for told in ledger.compactions.enqueued([by_scan, by_hand, "cmp-unknown"], now=NOW)}
    assert set(handed) == {by_scan, by_hand}
    told = handed[by_scan]
    assert (told.agent_id, told.conversation_id, told.trigger) == (AGENT, "conv-1", "schedule")
    assert (told.schedule, told.usage_before, told.usage_expected) == (
        began.schedule,
        row.usage_before,
        row.usage_expected,
    )
    assert (handed[by_hand].schedule, handed[by_hand].trigger) == (None, "cli")


def test_only_planned_rows_are_noted_as_enqueued(ledger: Ledger) -> None:
    waiting, running = planned(ledger, "conv-1"), claimed(ledger, "conv-2")
    ledger.compactions.enqueued([waiting, running.id, "cmp-unknown"], now=later(seconds=1))
    assert compaction(ledger, waiting).enqueued_at == later(seconds=1)
    assert compaction(ledger, running.id).enqueued_at is None


def test_enqueueing_nothing_is_no_error(ledger: Ledger) -> None:
    ledger.compactions.enqueued([], now=NOW)
    assert ledger.open_rows.unclaimed(now=NOW, patience=LEASE, limit=10) == []

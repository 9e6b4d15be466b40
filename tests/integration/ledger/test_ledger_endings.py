"""The ends of a compaction, and what they mean for its conversation."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.support.rows import (
    AGENT,
    CLOSING,
    LEASE,
    MEASURED_AFTER,
    NOW,
    OTHER,
    OWNER,
    STEPS,
    Step,
    claimed,
    closed,
    compaction,
    everything,
    hours,
    later,
    raw,
    unset,
)
from worker.audit.compactions import LostClaim
from worker.audit.ledger import Ledger
from worker.audit.records import CLOSED_STATES, Conversation, State


def conversation(ledger: Ledger, conversation_id: str = "conv-1") -> Conversation:
    return ledger.conversations.known([(AGENT, conversation_id)])[AGENT, conversation_id].conversation


def test_a_success_keeps_the_whole_proof(ledger: Ledger) -> None:
    row = compaction(ledger, closed(ledger, State.SUCCEEDED))
    assert (row.state, row.outcome, row.recovered) == (State.SUCCEEDED, "compacted", False)
    assert (row.tokens_after, row.usage_after) == (6_000, 0.375)
    assert (row.num_messages_before, row.num_messages_after, row.summary) == (43, 19, "What was said.")
    assert (row.mode_used, row.flags) == ("sliding_window", ["target_missed"])
    assert row.ids_after == ["message-sys", "message-sum", "message-2"]
    assert (row.ids_kept, row.ids_lost, row.ids_dropped) == (["message-sys", "message-2"], ["message-1"], [])
    assert row.finished_at == NOW
    assert unset(row.lease_owner, row.lease_until, row.error)


def test_a_success_starts_the_cooldown_and_is_the_conversations_new_measure(ledger: Ledger) -> None:
    id_ = closed(ledger, State.SUCCEEDED, now=later(minutes=1))
    known = conversation(ledger)
    assert (known.last_compacted_at, known.last_compaction_id) == (later(minutes=1), id_)
    assert (known.usage, known.tokens, known.num_messages) == (0.375, 6_000, 19)
    assert (known.measured_at, known.measured_activity) == (later(minutes=1), MEASURED_AFTER.activity)


def test_a_success_that_could_not_be_verified_says_so_and_leaves_the_old_measure(ledger: Ledger) -> None:
    row = claimed(ledger)
    unproven = replace(
        CLOSING,
        measured=None,
        mode_used=None,
        flags=(),
        ids_after=None,
        ids_kept=None,
        ids_lost=None,
        ids_dropped=None,
        error="took effect, but could not be verified",
    )
    ledger.compactions.succeed(row, unproven, owner=OWNER, now=NOW)
    told = compaction(ledger, row.id)
    assert (told.state, told.error) == (State.SUCCEEDED, "took effect, but could not be verified")
    assert unset(told.usage_after, told.tokens_after, told.mode_used, told.ids_after, told.ids_dropped)
    assert conversation(ledger).usage == 0.75
    assert conversation(ledger).last_compacted_at == NOW


def test_a_success_whose_answer_was_lost_is_told_apart(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.succeed(row, replace(CLOSING, recovered=True), owner=OWNER, now=NOW)
    told = compaction(ledger, row.id)
    assert (told.outcome, told.recovered) == ("recovered", True)


@pytest.mark.parametrize(("state", "counter"), [(State.REFUSED, "refusals_in_row"), (State.FAILED, "failures_in_row")])
def test_setbacks_in_a_row_put_the_conversation_off_for_longer_and_longer(
    ledger: Ledger, state: State, counter: str
) -> None:
    for times in (1, 2, 3):
        now = later(days=times)
        id_ = closed(ledger, state, now=now)
        known = conversation(ledger)
        assert getattr(known, counter) == times
        assert known.not_before == now + timedelta(hours=times)
        assert known.last_compaction_id == id_
        assert known.last_compacted_at is None


def test_refusals_and_failures_are_counted_apart(ledger: Ledger) -> None:
    closed(ledger, State.REFUSED)
    closed(ledger, State.FAILED, now=later(hours=2))
    known = conversation(ledger)
    assert (known.refusals_in_row, known.failures_in_row) == (1, 1)
    assert known.not_before == later(hours=3)


def test_a_success_forgives_what_went_before(ledger: Ledger) -> None:
    closed(ledger, State.REFUSED)
    closed(ledger, State.FAILED)
    closed(ledger, State.SUCCEEDED)
    known = conversation(ledger)
    assert (known.refusals_in_row, known.failures_in_row, known.not_before) == (0, 0, None)


def test_a_refusal_by_the_fresh_look_puts_nothing_off(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.refuse(row, "not_idle", "idle for 2m only", owner=OWNER, now=NOW, delay=None)
    known = conversation(ledger)
    assert (known.refusals_in_row, known.not_before) == (0, None)
    told = compaction(ledger, row.id)
    assert (told.state, told.outcome, told.error) == (State.REFUSED, "not_idle", "idle for 2m only")


def test_a_failure_keeps_its_error_and_its_end(ledger: Ledger) -> None:
    told = compaction(ledger, closed(ledger, State.FAILED))
    assert (told.state, told.outcome, told.error, told.finished_at) == (State.FAILED, "http_500", "it broke", NOW)
    assert unset(told.lease_owner, told.lease_until)


def test_setbacks_of_one_conversation_are_not_anothers(ledger: Ledger) -> None:
    closed(ledger, State.FAILED, "conv-1")
    closed(ledger, State.SUCCEEDED, "conv-2")
    assert conversation(ledger, "conv-2").failures_in_row == 0
    assert conversation(ledger, "conv-1").last_compacted_at is None


AFTER_THE_END: dict[str, Callable[[Ledger, str], object]] = {
    "claim": lambda ledger, id_: ledger.compactions.claim(id_, now=later(days=9), owner=OTHER, lease=LEASE),
    "take_over": lambda ledger, id_: ledger.compactions.take_over(id_, now=later(days=9), owner=OTHER, lease=LEASE),
    "enqueued": lambda ledger, id_: ledger.compactions.enqueued([id_], now=later(days=9)),
}


@pytest.mark.parametrize("state", CLOSED_STATES)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_closed_row_takes_no_step_more_and_stays_as_it_is(ledger: Ledger, state: State, step: Step) -> None:
    id_ = closed(ledger, state)
    before, all_before = raw(ledger, id_), everything(ledger)
    for owner in (OWNER, OTHER):
        with pytest.raises(LostClaim):
            step(ledger, compaction(ledger, id_), owner, later(hours=1))
    assert raw(ledger, id_) == before
    assert everything(ledger) == all_before


@pytest.mark.parametrize("state", CLOSED_STATES)
@pytest.mark.parametrize("attempt", AFTER_THE_END.values(), ids=AFTER_THE_END.keys())
def test_a_closed_row_cannot_be_taken_up_again(
    ledger: Ledger, state: State, attempt: Callable[[Ledger, str], object]
) -> None:
    id_ = closed(ledger, state)
    before = raw(ledger, id_)
    assert not attempt(ledger, id_)
    assert raw(ledger, id_) == before
    assert ledger.open_rows.abandoned(now=later(days=9), limit=10) == []
    assert ledger.open_rows.unclaimed(now=later(days=9), patience=LEASE, limit=10) == []


def test_a_closing_happens_whole_or_not_at_all(ledger: Ledger) -> None:
    row = claimed(ledger)
    before = everything(ledger)

    def broken(in_row: int) -> timedelta:
        raise ArithmeticError(f"no delay for {in_row}")

    with pytest.raises(ArithmeticError):
        ledger.compactions.fail(row, "http_500", "it broke", owner=OWNER, now=NOW, delay=broken)
    assert everything(ledger) == before


def test_an_end_is_told_in_utc_whatever_zone_it_was_given_in(ledger: Ledger) -> None:
    row = claimed(ledger)
    berlin = datetime.fromisoformat("2026-11-23T05:00:00+01:00")
    ledger.compactions.fail(row, "http_500", "it broke", owner=OWNER, now=berlin, delay=hours)
    finished = compaction(ledger, row.id).finished_at
    assert finished is not None
    assert finished.isoformat() == "2026-11-23T04:00:00+00:00"


def test_a_summary_with_characters_that_no_database_keeps_closes_its_row_all_the_same(ledger: Ledger) -> None:
    row = claimed(ledger)
    ledger.compactions.keep_answer(row.id, '{"summary": "a\x00b"}', owner=OWNER, now=NOW, lease=LEASE)
    ledger.compactions.succeed(row, replace(CLOSING, summary="half \ud800 of it,\x00 nothing"), owner=OWNER, now=NOW)
    after = compaction(ledger, row.id)
    assert (after.state, after.summary) == (State.SUCCEEDED, "half ? of it,? nothing")
    assert after.response == '{"summary": "a?b"}'

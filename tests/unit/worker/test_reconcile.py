"""The sweep brings each open row to the end that the server's own state tells of, and never guesses."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from tests.support.bench import SUMMARY, Bench, bench
from tests.support.rows import OTHER, OWNER
from worker import compaction
from worker.audit.compactions import LostClaim
from worker.audit.records import State
from worker.ending import MOST_ATTEMPTS
from worker.look import Look
from worker.policy.decide import Decision
from worker.reconcile import FAULT_PATIENCE, sweep
from worker.vigil import POST_WITHIN

LIMIT = 100.0
LEASE = 10.0


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, LETTA_SERVER_LIMIT=str(LIMIT), COMPACTOR_LEASE=str(LEASE)) as service:
        yield service


def watch(at: Bench, seconds: float, step: float = 31) -> None:
    """Let time go by as a worker sees it: with a sweep every now and then."""
    while seconds > 0:
        at.time.passes(min(step, seconds))
        seconds -= step
        sweep(at.service)


def unavailable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody there", request=request)


def test_a_planned_row_without_a_message_is_handed_out(at: Bench) -> None:
    id_ = at.plan()
    assert sweep(at.service) == {"unclaimed": 1}
    assert at.outbox.sent == [(id_, 0)]
    assert sweep(at.service) == {}


def test_a_message_that_was_not_taken_in_time_is_sent_again(at: Bench) -> None:
    id_ = at.plan()
    sweep(at.service)
    at.time.passes(601)
    sweep(at.service)
    assert [sent for sent, _ in at.outbox.sent] == [id_, id_]


def test_a_row_whose_worker_died_before_anything_was_sent_is_planned_again(at: Bench) -> None:
    row = at.claimed()
    watch(at, 3 * LEASE + 1, step=LEASE + 1)
    assert at.row(row.id).state == State.PLANNED
    assert "died before anything was sent" in str(at.row(row.id).error)
    assert at.letta.posts == []


def test_a_row_that_kills_every_worker_ends_as_failed(at: Bench) -> None:
    row = at.claimed()
    for _ in range(40):
        watch(at, 700, step=350)
        again = at.service.ledger.compactions.claim(
            row.id, now=at.time.now(), owner=OWNER, lease=timedelta(seconds=LEASE)
        )
        if again is None and at.row(row.id).state == State.FAILED:
            break
    assert (at.row(row.id).outcome, at.row(row.id).attempts) == ("retries_spent", MOST_ATTEMPTS)


def test_a_post_without_an_effect_is_not_repeated_before_the_servers_limit_is_over(at: Bench) -> None:
    row = at.left()
    sweep(at.service)
    watch(at, LIMIT)
    assert at.row(row.id).state == State.RUNNING
    watch(at, POST_WITHIN + 31)
    assert at.row(row.id).state == State.PLANNED
    assert "no effect within 100 s: the answer was lost" in str(at.row(row.id).error)


def test_the_limit_counts_from_the_last_moment_at_which_the_worker_might_have_posted(at: Bench) -> None:
    row = at.left()
    sweep(at.service)
    at.time.passes(LIMIT + POST_WITHIN - 1)
    assert sweep(at.service) == {"left": 1}
    at.time.passes(31)
    assert sweep(at.service) == {"released": 1}
    assert at.row(row.id).posted_at is None


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)], ids=["forward", "back"])
def test_a_clock_that_jumps_does_not_end_the_wait_for_an_effect(at: Bench, jump: timedelta) -> None:
    row = at.left()
    sweep(at.service)
    jumped = replace(at.service, now=lambda: at.time.now() + jump)
    at.time.passes(31)
    sweep(jumped)
    assert at.row(row.id).state == State.RUNNING
    assert at.letta.posts == []


def test_an_effect_between_the_look_and_the_end_of_the_wait_is_not_taken_for_none(at: Bench) -> None:
    row = at.left()
    sweep(at.service)
    at.time.passes(LIMIT)

    def look_then_stand_still(_: httpx.Request) -> httpx.Response:
        del at.letta.answers["conversation"]
        seen = {"id": "conv-1", "agent_id": "agent-1", "in_context_message_ids": list(at.letta.ids)}
        at.letta.compact()
        at.time.passes(POST_WITHIN + 10)
        return httpx.Response(200, json=seen)

    at.letta.answers["conversation"] = look_then_stand_still
    assert sweep(at.service) == {"left": 1}
    at.time.passes(31)
    assert sweep(at.service) == {"recovered": 1}
    assert at.row(row.id).state == State.SUCCEEDED


@pytest.mark.parametrize("form", ["summary_message", "system_alert"])
def test_what_took_effect_is_rebuilt_from_the_conversation_in_either_form_of_summary(at: Bench, form: str) -> None:
    at.letta.summary_form = form
    row = at.left()
    before = list(at.letta.ids)
    at.letta.compact()
    assert sweep(at.service) == {"recovered": 1}
    closed = at.row(row.id)
    assert (closed.state, closed.outcome, closed.recovered, closed.response) == ("succeeded", "recovered", True, None)
    assert closed.summary == SUMMARY
    assert (closed.num_messages_before, closed.num_messages_after) == (21, 13)
    assert (closed.ids_before, closed.ids_after) == (before, at.letta.ids)
    assert closed.ids_lost == before[1:10]
    assert closed.ids_dropped == []
    assert closed.usage_after == pytest.approx(0.49)


def test_a_message_that_fell_out_with_a_lost_answer_is_told_of_loudly(
    at: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    row = at.left()
    at.letta.compact()
    listed = [*at.letta.ids, "message-99"]
    at.letta.arrivals.append("message-99")
    rows = [at.letta.listed(id_) for id_ in listed]
    at.letta.answers["messages"] = lambda _: httpx.Response(200, json=rows)
    sweep(at.service)
    assert (at.row(row.id).ids_dropped, at.row(row.id).flags) == (["message-99"], ["target_missed", "messages_dropped"])
    assert [record.levelno for record in caplog.records if "dropped messages" in record.message] == [logging.ERROR]


def test_messages_that_left_without_a_summary_close_the_row_as_failed_with_the_evidence(at: Bench) -> None:
    row = at.left()
    at.letta.ids = [at.letta.ids[0], *at.letta.ids[5:]]
    assert sweep(at.service) == {"undecided": 1}
    closed = at.row(row.id)
    assert closed.state == State.FAILED
    assert "4 messages left the context, but no summary took their place" in str(closed.error)
    assert at.letta.ids[1] in str(closed.error)
    assert closed.ids_before is not None


def test_an_ordinary_message_in_the_summarys_place_is_not_taken_for_one(at: Bench) -> None:
    row = at.left()
    at.letta.ids = [at.letta.ids[0], "message-99", *at.letta.ids[5:]]
    assert sweep(at.service) == {"undecided": 1}
    assert at.row(row.id).state == State.FAILED


def test_a_message_that_came_meanwhile_is_no_effect(at: Bench) -> None:
    row = at.left()
    at.letta.ids.append("message-99")
    assert sweep(at.service) == {"left": 1}
    assert at.row(row.id).state == State.RUNNING


def test_a_conversation_that_is_gone_closes_the_row_as_failed(at: Bench) -> None:
    row = at.left()
    at.letta.answers["conversation"] = lambda _: httpx.Response(404, json={"detail": "not found"})
    assert sweep(at.service) == {"not_found": 1}
    assert "its POST was sent, then the conversation was gone" in str(at.row(row.id).error)


@pytest.mark.parametrize("status", [500, 401])
def test_a_look_that_fails_is_repeated_until_the_server_answers(at: Bench, status: int) -> None:
    row = at.left()
    at.letta.compact()
    at.letta.answers["conversation"] = lambda _: httpx.Response(status, json={"detail": "trouble"})
    assert sweep(at.service) == {"left": 1}
    assert "could not be looked at" in str(at.row(row.id).error)
    assert sweep(at.service) == {}
    at.letta.answers.clear()
    at.time.passes(31)
    assert sweep(at.service) == {"recovered": 1}


def test_an_effect_seen_once_is_not_closed_before_it_was_proved(at: Bench) -> None:
    row = at.left()
    at.letta.compact()
    at.letta.answers["context"] = unavailable
    assert sweep(at.service) == {"left": 1}
    assert at.row(row.id).state == State.RUNNING
    at.letta.answers.clear()
    at.time.passes(31)
    assert sweep(at.service) == {"recovered": 1}


def test_a_kept_answer_is_proved_by_the_sweep_and_is_not_called_recovered(at: Bench) -> None:
    row = at.posted()
    body = at.letta.compact().text
    at.service.ledger.compactions.keep_answer(
        row.id, body, owner=OWNER, now=at.time.now(), lease=timedelta(seconds=LEASE)
    )
    sweep(at.service)
    watch(at, 3 * LEASE + 1, step=LEASE + 1)
    closed = at.row(row.id)
    assert (closed.state, closed.outcome, closed.recovered) == ("succeeded", "compacted", False)
    assert (json.loads(str(closed.response)), closed.summary) == (json.loads(body), SUMMARY)
    assert closed.num_messages_after == len(at.letta.ids)


def test_a_second_look_that_fails_for_an_hour_closes_the_row_with_what_the_server_said(at: Bench) -> None:
    id_ = at.plan()
    compact = at.letta.compact

    def then_away(_: httpx.Request) -> httpx.Response:
        at.letta.answers["conversation"] = unavailable
        return compact()

    at.letta.answers["compact"] = then_away
    assert compaction.run(at.service, id_) == "left"
    assert "not verified yet" in str(at.row(id_).error)
    watch(at, 3500, step=500)
    assert at.row(id_).state == State.RUNNING
    watch(at, 200, step=100)
    closed = at.row(id_)
    assert (closed.state, closed.usage_after, closed.ids_after) == (State.SUCCEEDED, None, None)
    assert (closed.num_messages_before, closed.num_messages_after, closed.summary) == (21, 13, SUMMARY)
    assert "took effect, but could not be verified" in str(closed.error)
    assert len(at.letta.posts) == 1


def test_a_slow_worker_whose_heart_beats_is_never_taken_for_dead(at: Bench) -> None:
    row = at.posted()
    for _ in range(20):
        at.time.passes(LEASE + 1)
        at.service.ledger.compactions.renew([row.id], owner=OWNER, lease_until=at.time.now() - timedelta(seconds=1))
        assert sweep(at.service) == {}
    assert at.row(row.id).lease_owner == OWNER


def test_a_lease_that_is_over_by_the_clock_alone_is_not_taken_over(at: Bench) -> None:
    row = at.posted()
    at.time.wall += timedelta(days=1)
    assert sweep(at.service) == {}
    at.time.passes(LEASE - 1)
    assert sweep(at.service) == {}
    at.time.passes(2)
    assert sweep(at.service) == {"left": 1}
    assert at.row(row.id).lease_owner is None


def test_a_heart_that_is_silent_by_the_vigil_alone_is_not_taken_over(at: Bench) -> None:
    row = at.posted()
    at.time.wall += timedelta(seconds=LEASE + 1)
    sweep(at.service)
    at.time.wall -= timedelta(seconds=LEASE + 1)
    at.time.steady += 100 * LEASE
    assert sweep(at.service) == {}
    assert at.row(row.id).lease_owner == OWNER


def test_a_process_does_not_take_over_what_its_own_thread_is_still_at(at: Bench) -> None:
    row = at.claimed(owner=at.service.owner)
    with at.service.heart.over(row.id) as alone:
        assert alone
        watch(at, 4 * LEASE, step=LEASE + 1)
        assert at.row(row.id).lease_owner == at.service.owner
    watch(at, 3 * LEASE, step=LEASE + 1)
    assert at.row(row.id).state == State.PLANNED


def test_a_row_left_behind_by_a_thread_that_broke_off_is_found_by_its_own_process(at: Bench) -> None:
    row = at.posted(owner=at.service.owner)
    watch(at, 3 * LEASE, step=LEASE + 1)
    assert at.row(row.id).lease_owner is None
    assert at.row(row.id).state == State.RUNNING


def test_a_thread_that_stood_still_does_not_take_its_processs_next_claim_for_its_own(
    at: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_, words = at.plan(), list[str]()
    decide = compaction._Run._decide

    def stand_still(run: compaction._Run) -> tuple[Look, Decision]:
        monkeypatch.undo()
        other = at.in_another_process()
        for _ in range(3):
            at.time.passes(LEASE + 1)
            words.extend(sweep(other))
        other.heart.close()
        at.time.passes(600)
        words.append(compaction.run(at.service, id_))
        return decide(run)

    monkeypatch.setattr(compaction._Run, "_decide", stand_still)
    assert [compaction.run(at.service, id_), *words] == ["taken_over", "released", "not_due"]
    assert at.letta.posts == []
    assert at.row(id_).state == State.PLANNED


def test_a_worker_that_comes_back_after_it_was_taken_over_changes_nothing(at: Bench) -> None:
    row = at.posted(owner=OTHER)
    at.letta.compact()
    watch(at, 3 * LEASE, step=LEASE + 1)
    closed = at.row(row.id)
    assert closed.outcome == "recovered"
    with pytest.raises(LostClaim):
        at.service.ledger.compactions.keep_answer(
            row.id, "{}", owner=OTHER, now=at.time.now(), lease=timedelta(seconds=LEASE)
        )
    assert at.row(row.id) == closed


def test_a_row_that_trips_over_a_fault_of_ours_does_not_keep_the_others_from_their_end(at: Bench) -> None:
    broken = at.left()
    with at.service.ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE compactions SET response = '{}'")
    other = at.plan(conversation_id="conv-2")
    lease = timedelta(seconds=LEASE)
    assert at.service.ledger.compactions.claim(other, now=at.time.now(), owner=OWNER, lease=lease)
    at.service.ledger.compactions.leave(other, "left", owner=OWNER, look_at=at.time.now())
    at.time.passes(1)
    assert sweep(at.service) == {"left": 1, "released": 1}
    assert "a fault of the service itself" in str(at.row(broken.id).error)
    assert at.row(other).state == State.PLANNED
    at.time.passes(FAULT_PATIENCE.total_seconds())
    assert sweep(at.service)["internal_error"] == 1
    assert at.row(broken.id).state == State.FAILED

"""A watched conversation is compacted once when it is idle, and looked at again when what holds it back can be over."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bench import CONVERSATION, Bench, bench
from tests.support.rows import AGENT, NOW, OWNER
from tests.support.steps import Steps, due_in, event, signed, told
from worker import compaction, judgement
from worker.audit.records import EventState, State
from worker.policy.decide import Decision
from worker.policy.rules import Policy
from worker.policy.snapshot import Snapshot
from worker.policy.watch import APPROVAL_EVERY, LATEST, MOST_UNREADABLE
from worker.webhooks import watching
from worker.webhooks.events import handle
from worker.webhooks.watching import attend

IDLE, COOLDOWN = Policy().idle_for, Policy().cooldown


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, COMPACTOR_SCAN_LEASE="100") as service:
        yield service


def watched(at: Bench, key: str = "hook-1", **fields: Any) -> str:
    """A signed event whose conversation is watched, due at once."""
    id_ = signed(at, key, **{"conversation_id": CONVERSATION, **fields})
    assert handle(at.service, [id_]) == {"watched": 1}
    return id_


def planned(at: Bench) -> str:
    """The one compaction that was handed out."""
    [(id_, _)] = at.outbox.sent
    return id_


def asked_for(at: Bench) -> list[str]:
    """Have the server note what it is asked for from now on, by endpoint."""
    asked: list[str] = []
    honest = at.letta.handle

    def noting(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return honest(request)

    at.letta.handle = noting  # type: ignore[method-assign]
    return asked


def test_a_full_quiet_conversation_is_planned_with_the_webhook_as_its_trigger(at: Bench) -> None:
    id_ = watched(at)
    assert attend(at.service) == {"over_trigger": 1}
    row = at.row(planned(at))
    assert (row.trigger, row.policy, row.scan_id, row.asked) == ("webhook", "default", None, False)
    done = event(at, id_)
    assert (done.state, done.reason, done.compaction_id) == (EventState.DONE, "over_trigger", row.id)
    assert due_in(at) == {}
    assert compaction.run(at.service, row.id) == "compacted"
    assert attend(at.service) == {}


def test_a_conversation_below_the_trigger_ends_its_watch_with_the_reason_also_when_somebody_asked(at: Bench) -> None:
    at.letta.tokens_a_message = 100
    id_ = watched(at)
    assert attend(at.service) == {"below_trigger": 1}
    assert event(at, id_).sentence == "usage 0.21 is below the trigger of 0.70"
    assert at.outbox.sent == []
    known = at.service.ledger.conversations.known([(AGENT, CONVERSATION)])[AGENT, CONVERSATION].conversation
    assert (known.reason, known.usage, known.scan_id) == ("below_trigger", 0.21, None)


def test_nothing_is_asked_before_a_watch_is_due(at: Bench) -> None:
    steps = Steps(at)
    steps.run()
    handle(at.service, told(at, steps.step("step-1")))
    asked = asked_for(at)
    at.time.wall = IDLE - timedelta(seconds=1)
    assert attend(at.service) == {}
    assert asked == []
    at.time.passes(1)
    assert attend(at.service) == {"over_trigger": 1}


def test_a_burst_of_events_is_measured_once(at: Bench) -> None:
    steps = Steps(at)
    steps.run()
    ids = told(at, *(steps.step(f"step-{number}") for number in range(30)))
    handle(at.service, ids)
    asked = asked_for(at)
    at.time.wall = IDLE
    assert attend(at.service) == {"over_trigger": 1}
    assert sum(path.endswith("/context") for path in asked) == 1
    assert {event(at, id_).compaction_id for id_ in ids} == {planned(at)}


def test_a_conversation_in_use_is_looked_at_again_when_it_can_be_idle(at: Bench) -> None:
    at.letta.last_message_at = NOW - timedelta(minutes=10)
    id_ = watched(at)
    assert attend(at.service) == {"not_idle": 1}
    assert due_in(at) == {CONVERSATION: IDLE - timedelta(minutes=10)}
    assert event(at, id_).state == EventState.WATCHED
    at.time.wall = IDLE - timedelta(minutes=10)
    assert attend(at.service) == {"over_trigger": 1}


def test_a_conversation_that_is_in_use_for_days_stays_watched(at: Bench) -> None:
    watched(at)
    for hour in range(72):
        at.time.wall = timedelta(hours=hour)
        at.letta.last_message_at = at.time.now()
        assert attend(at.service) == {"not_idle": 1}
    at.time.passes(IDLE.total_seconds())
    assert attend(at.service) == {"over_trigger": 1}


def test_a_run_under_way_puts_the_conversation_off_before_anything_is_planned(at: Bench) -> None:
    run = {"id": "run-1", "status": "running", "conversation_id": CONVERSATION, "created_at": NOW.isoformat()}
    at.letta.answers["runs"] = lambda _: httpx.Response(200, json=[run])
    watched(at)
    assert attend(at.service) == {"active_run": 1}
    assert due_in(at) == {CONVERSATION: LATEST}
    assert at.outbox.sent == []


def test_a_pending_approval_is_looked_at_every_hour(at: Bench) -> None:
    def overview(request: httpx.Request) -> httpx.Response:
        shown = at.letta._overview()
        shown["messages"][-1] |= {"role": "approval", "tool_calls": [{"id": "call-1"}]}
        return httpx.Response(200, json=shown)

    at.letta.answers["context"] = overview
    watched(at)
    for hour in range(3):
        at.time.wall = hour * APPROVAL_EVERY
        assert attend(at.service) == {"pending_approval": 1}
    assert due_in(at) == {CONVERSATION: 3 * APPROVAL_EVERY}


def test_what_the_ledger_holds_against_a_conversation_costs_no_request(at: Bench) -> None:
    watched(at)
    attend(at.service)
    compaction.run(at.service, planned(at))
    watched(at, "hook-2")
    asked = asked_for(at)
    assert attend(at.service) == {"cooldown": 1}
    assert asked == []
    assert due_in(at) == {CONVERSATION: COOLDOWN}


def test_a_conversation_that_was_put_off_is_looked_at_when_that_is_over(at: Bench) -> None:
    row = at.claimed(owner=OWNER)
    at.service.ledger.compactions.fail(
        row, "http_500", "it broke", owner=OWNER, now=NOW, delay=lambda _: timedelta(minutes=15)
    )
    watched(at)
    assert attend(at.service) == {"put_off": 1}
    assert due_in(at) == {CONVERSATION: timedelta(minutes=15)}


def test_a_summarizer_that_keeps_failing_puts_the_conversation_off_until_its_breaker_lets_a_probe_through(
    at: Bench,
) -> None:
    for _ in range(5):
        broken = at.service.ledger.throttles.change("", at.service.limits, lambda throttle: throttle.failed(NOW))
    assert broken.open_until is not None
    watched(at)
    assert attend(at.service) == {"breaker_open": 1}
    assert due_in(at) == {CONVERSATION: broken.open_until - NOW}


def test_an_open_compaction_ends_the_watch_with_its_id(at: Bench) -> None:
    open_id = at.plan()
    id_ = watched(at)
    assert attend(at.service) == {"in_progress": 1}
    assert (event(at, id_).reason, event(at, id_).compaction_id) == ("in_progress", open_id)


def test_two_policies_for_one_conversation_plan_it_once(at: Bench) -> None:
    at.service.settings.policy_file.write_text("[policies.default]\n[policies.eager]\nidle_for = '1s'\n")
    ids = [watched(at, "hook-1"), watched(at, "hook-2", policy="eager")]
    assert attend(at.service) == {"over_trigger": 1, "in_progress": 1}
    assert {event(at, id_).compaction_id for id_ in ids} == {planned(at)}


def test_a_conversation_that_is_gone_ends_its_watch(at: Bench) -> None:
    id_ = watched(at)
    at.letta.answers["conversation"] = lambda _: httpx.Response(404, json={"detail": "no such conversation"})
    assert attend(at.service) == {"not_found": 1}
    assert str(event(at, id_).sentence).startswith("it is gone: GET /v1/conversations/conv-1: answered 404")


def test_a_conversation_that_cannot_be_read_is_given_up_after_some_looks_in_a_row(at: Bench) -> None:
    id_ = watched(at)
    at.letta.answers["context"] = lambda _: httpx.Response(500, json={"detail": "broken"})
    for _ in range(MOST_UNREADABLE):
        assert event(at, id_).state == EventState.WATCHED
        assert attend(at.service) == {"unreadable": 1}
        at.time.passes(3600)
    assert (event(at, id_).state, event(at, id_).reason) == (EventState.DONE, "unreadable")
    assert attend(at.service) == {}


def test_looks_that_found_it_in_use_do_not_count_among_those_that_could_not_be_taken(at: Bench) -> None:
    id_ = watched(at)
    for _ in range(MOST_UNREADABLE + 1):
        at.letta.last_message_at = at.time.now()
        attend(at.service)
        at.time.passes(IDLE.total_seconds())
    at.letta.answers["context"] = lambda _: httpx.Response(500, json={"detail": "broken"})
    assert attend(at.service) == {"unreadable": 1}
    assert event(at, id_).state == EventState.WATCHED


def test_a_policy_that_is_gone_from_the_file_by_now_ends_the_watch_with_that(at: Bench) -> None:
    at.service.settings.policy_file.write_text("[policies.default]\n[policies.eager]\n")
    id_ = watched(at, policy="eager")
    at.service.settings.policy_file.write_text("[policies.default]\n")
    assert attend(at.service) == {"unknown_policy": 1}
    assert "there is no policy 'eager'" in str(event(at, id_).sentence)


def test_a_shutdown_leaves_the_watches_due_as_they_were(at: Bench) -> None:
    id_ = watched(at)
    before = due_in(at)
    at.service.loop.let_go()
    assert attend(at.service) == {}
    assert due_in(at) == before
    assert event(at, id_).state == EventState.WATCHED
    assert len(at.service.ledger.watches.due(now=NOW, owner="other", lease=timedelta(1), limit=9)) == 1


def test_a_worker_that_died_between_the_plan_and_the_end_of_the_watch_leaves_the_next_one_to_find_the_compaction(
    at: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = watched(at)

    def die(*_: object) -> str:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(watching, "_end", die)
        with pytest.raises(SystemExit):
            attend(at.service)
    assert attend(at.service) == {}
    at.time.passes(101)
    assert attend(at.service) == {"in_progress": 1}
    assert event(at, id_).compaction_id == planned(at)


def test_a_compaction_that_a_dead_worker_planned_and_that_is_over_by_now_is_the_end_of_the_watch(
    at: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = watched(at)
    at.time.passes(1)

    def die(*_: object) -> str:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(watching, "_end", die)
        with pytest.raises(SystemExit):
            attend(at.service)
    assert compaction.run(at.service, planned(at)) == "compacted"
    at.time.passes(101)
    assert attend(at.service) == {"cooldown": 1}
    done = event(at, id_)
    assert (done.state, done.compaction_id) == (EventState.DONE, planned(at))
    assert due_in(at) == {}


def test_an_event_that_comes_while_its_conversation_is_looked_at_is_not_closed_with_it(at: Bench) -> None:
    first, late = watched(at), list[str]()
    at.letta.tokens_a_message = 100

    def overview(_: httpx.Request) -> httpx.Response:
        if not late:
            late.append(watched_meanwhile(at))
        return httpx.Response(200, json=at.letta._overview())

    at.letta.answers["context"] = overview
    assert attend(at.service) == {"below_trigger": 1}
    assert event(at, first).state == EventState.DONE
    assert event(at, late[0]).state == EventState.WATCHED
    assert attend(at.service) == {"below_trigger": 1}
    assert event(at, late[0]).state == EventState.DONE


def watched_meanwhile(at: Bench) -> str:
    """An event that another thread has brought to its conversation."""
    id_ = signed(at, "hook-late", conversation_id=CONVERSATION)
    [claimed] = at.service.ledger.events.claim([id_], now=at.time.now(), owner="other", lease=timedelta(minutes=1))
    at.service.ledger.watches.watch(
        claimed,
        [(AGENT, CONVERSATION)],
        policy="default",
        usage=None,
        due_at=at.time.now(),
        owner="other",
        now=at.time.now(),
    )
    return id_


def test_an_agents_own_conversation_is_dated_by_its_messages(at: Bench) -> None:
    def agent(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"id": AGENT, "message_ids": at.letta.ids})

    at.letta.answers["agent"] = agent
    watched(at, conversation_id=None, agent_id=AGENT)
    assert attend(at.service) == {"over_trigger": 1}
    assert at.row(planned(at)).conversation_id == "default"
    assert at.row(planned(at)).state == State.PLANNED


def test_one_conversation_that_trips_over_a_fault_of_ours_holds_up_no_other(
    at: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(at, "hook-1")
    faulty = watched(at, "hook-2", conversation_id=None, agent_id=AGENT)
    at.letta.answers["agent"] = lambda _: httpx.Response(200, json={"id": AGENT, "message_ids": at.letta.ids})
    honest = judgement.decide

    def decide(snapshot: Snapshot, policy: Policy, now: datetime, **more: Any) -> Decision:
        if not snapshot.sighting.activity_known:
            raise ZeroDivisionError
        return honest(snapshot, policy, now, **more)

    monkeypatch.setattr(judgement, "decide", decide)
    assert attend(at.service) == {"over_trigger": 1, "unreadable": 1}
    [left] = at.service.ledger.watches.waiting(9)
    assert (left.conversation_id, left.reason) == ("default", "unreadable")
    assert left.sentence == "a fault of the service itself: ZeroDivisionError"
    assert event(at, faulty).state == EventState.WATCHED


def test_one_thread_of_a_process_is_at_it_however_often_beat_calls(at: Bench) -> None:
    watched(at)
    at.letta.hangs_at = "context"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(attend, at.service)
        assert at.letta.hanging.wait(30)
        assert attend(at.service) == {}
        assert slow.running()
        at.service.loop.let_go()
        assert slow.result(30) == {}


def test_a_shutdown_gives_back_what_it_still_holds_when_another_has_taken_some_over(at: Bench) -> None:
    watched(at)
    watched(at, "hook-2", conversation_id=None, agent_id=AGENT)
    at.letta.hangs_at = "context"
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(attend, at.service)
        assert at.letta.hanging.wait(30)
        at.time.passes(101)
        [taken] = at.service.ledger.watches.due(now=at.time.now(), owner="other", lease=timedelta(1), limit=1)
        at.service.loop.let_go()
        assert slow.result(30) == {}
    [given_back] = at.service.ledger.watches.due(now=at.time.now(), owner="third", lease=timedelta(1), limit=9)
    assert given_back.conversation_id != taken.conversation_id

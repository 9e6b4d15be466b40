"""An event is brought to its conversation with as few requests as can be, and to a true end when it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bench import CONVERSATION, COPY, Bench, bench
from tests.support.rows import AGENT, NOW
from tests.support.steps import Steps, due_in, event, signed, told
from worker.audit.events import Event
from worker.audit.records import EventState
from worker.audit.watches import Watches
from worker.look import CLOCK_SLACK
from worker.policy.rules import Policy
from worker.reconcile import sweep
from worker.webhooks.events import AT_ONCE, MOST_ATTEMPTS, handle
from worker.webhooks.steps import Places

IDLE = Policy().idle_for


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, COMPACTOR_SCAN_LEASE="100") as service:
        yield service


@pytest.fixture
def steps(at: Bench) -> Steps:
    return Steps(at)


def unavailable(_: httpx.Request) -> httpx.Response:
    return httpx.Response(503, json={"detail": "away"})


def test_a_step_near_the_trigger_has_its_conversation_watched_until_it_can_be_idle(at: Bench, steps: Steps) -> None:
    steps.run()
    [id_] = told(at, steps.step("step-1"))
    assert handle(at.service, [id_]) == {"watched": 1}
    assert steps.asked == ["step-1", "run-1"]
    assert due_in(at) == {CONVERSATION: IDLE}
    done = event(at, id_)
    assert (done.state, done.conversation_id, done.agent_id, done.usage) == ("watched", CONVERSATION, AGENT, 0.8)


def test_a_step_far_under_the_trigger_costs_one_look_up_and_no_more(at: Bench, steps: Steps) -> None:
    [id_] = told(at, steps.step("step-1", tokens=5_900))
    assert handle(at.service, [id_]) == {"below_trigger": 1}
    assert steps.asked == ["step-1"]
    done = event(at, id_)
    assert (done.state, done.usage) == (EventState.DONE, 0.59)
    assert done.sentence == "usage 0.59 is far below the trigger of 0.70"
    assert due_in(at) == {}


@pytest.mark.parametrize("fields", [{"tokens": None}, {"context_window_limit": None}, {"context_window_limit": 0}])
def test_a_step_without_a_figure_is_looked_at_more_closely(
    at: Bench, steps: Steps, fields: dict[str, int | None]
) -> None:
    steps.run()
    [id_] = told(at, steps.step("step-1", **fields))  # type: ignore[arg-type]
    assert handle(at.service, [id_]) == {"watched": 1}


def test_a_burst_for_one_conversation_asks_for_its_run_once_and_leaves_one_watch(at: Bench, steps: Steps) -> None:
    steps.run()
    ids = []
    for number in range(AT_ONCE):
        at.time.passes(1)
        ids += told(at, steps.step(f"step-{number}"))
    assert handle(at.service, ids) == {"watched": AT_ONCE}
    assert steps.asked.count("run-1") == 1
    [watch] = at.service.ledger.watches.waiting(10)
    assert (watch.events, watch.due_at) == (AT_ONCE, NOW + timedelta(seconds=AT_ONCE) + IDLE)


def test_a_run_without_a_conversation_leads_to_those_that_were_sent_to_when_it_began(at: Bench, steps: Steps) -> None:
    steps.run(conversation=None)
    near, far = NOW - CLOCK_SLACK, NOW - CLOCK_SLACK - timedelta(seconds=1)
    steps.conversations({"conv-a": near, "conv-b": NOW, "conv-c": far, "conv-d": None, "conv-e": NOW + IDLE})
    ids = told(at, steps.step("step-1"), steps.step("step-2"))
    assert handle(at.service, ids) == {"watched": 2}
    assert set(due_in(at)) == {"conv-a", "conv-b"}
    assert sorted(steps.asked) == [f"conversations of {AGENT}", "run-1", "step-1", "step-2"]


def test_where_no_conversation_was_sent_to_it_was_the_agents_own(at: Bench, steps: Steps) -> None:
    steps.run(conversation=None)
    steps.conversations({"conv-a": NOW - timedelta(hours=1)})
    handle(at.service, told(at, steps.step("step-1")))
    assert set(due_in(at)) == {"default"}


def test_a_step_without_a_run_is_taken_for_one_of_the_moment_in_which_it_was_told(at: Bench, steps: Steps) -> None:
    steps.conversations({"conv-a": NOW, "conv-b": NOW - timedelta(hours=1)})
    handle(at.service, told(at, steps.step("step-1", run=None)))
    assert set(due_in(at)) == {"conv-a"}


def test_a_run_of_a_conversation_whose_agent_nobody_named_is_asked_for_it(at: Bench, steps: Steps) -> None:
    steps.run(agent_id=None)
    handle(at.service, told(at, steps.step("step-1", agent_id=None)))
    assert set(due_in(at)) == {CONVERSATION}


def test_a_step_of_which_the_server_names_nobody_fails_with_that(at: Bench, steps: Steps) -> None:
    [id_] = told(at, steps.step("step-1", run=None, agent_id=None))
    assert handle(at.service, [id_]) == {"misaddressed": 1}
    assert event(at, id_).sentence == "the server names neither agent nor conversation of step-1"


def test_a_conversation_that_is_a_safety_copy_of_ours_is_left_alone(at: Bench, steps: Steps) -> None:
    at.service.ledger.safety_copies.made(
        COPY, agent_id=AGENT, compaction_id=at.plan(), now=NOW, keep_until=NOW + timedelta(days=7)
    )
    steps.run(conversation=COPY)
    [id_] = told(at, steps.step("step-1"))
    assert handle(at.service, [id_]) == {"safety_copy": 1}
    assert event(at, id_).state == EventState.DONE
    assert due_in(at) == {}


def test_a_step_whose_run_is_gone_is_looked_for_among_its_agents_conversations(at: Bench, steps: Steps) -> None:
    [id_] = told(at, steps.step("step-1", run="run-lost"))
    assert handle(at.service, [id_]) == {"watched": 1}
    assert event(at, id_).agent_id == AGENT
    assert steps.asked == ["step-1", "run-lost"]


def test_a_step_whose_run_is_gone_and_that_names_no_agent_fails_with_that(at: Bench, steps: Steps) -> None:
    [id_] = told(at, steps.step("step-1", run="run-lost", agent_id=None))
    assert handle(at.service, [id_]) == {"misaddressed": 1}


def test_a_step_that_is_not_there_fails_and_the_others_of_the_message_go_on(at: Bench, steps: Steps) -> None:
    steps.run()
    ids = told(at, "step-unknown", steps.step("step-1"))
    assert handle(at.service, ids) == {"not_found": 1, "watched": 1}
    assert [event(at, id_).state for id_ in ids] == ["failed", "watched"]
    assert "/v1/steps/step-unknown: answered 404" in str(event(at, ids[0]).sentence)


@pytest.mark.parametrize("hostile", ["../agents", "step-1/../../x", "step-1?x=1", "step 1", "", "step-é", "s" * 129])
def test_a_hostile_id_never_becomes_part_of_a_request(at: Bench, steps: Steps, hostile: str) -> None:
    [id_] = told(at, hostile)
    assert handle(at.service, [id_]) == {"misaddressed": 1}
    assert steps.asked == []
    assert event(at, id_).state == EventState.FAILED


def test_a_signed_request_is_watched_at_once_under_the_policy_that_it_names(at: Bench) -> None:
    at.service.settings.policy_file.write_text("[policies.default]\n[policies.eager]\nidle_for = '1s'\n")
    id_ = signed(at, conversation_id=CONVERSATION, policy="eager", note="it is full")
    assert handle(at.service, [id_]) == {"watched": 1}
    [watch] = at.service.ledger.watches.waiting(10)
    assert (watch.conversation_id, watch.agent_id, watch.policy, watch.due_at) == (CONVERSATION, AGENT, "eager", NOW)


def test_a_signed_request_for_an_agent_means_its_own_conversation(at: Bench) -> None:
    handle(at.service, [signed(at, agent_id=AGENT)])
    assert due_in(at) == {"default": timedelta()}


def test_a_signed_request_whose_agent_is_not_the_conversations_fails(at: Bench) -> None:
    id_ = signed(at, conversation_id=CONVERSATION, agent_id="agent-2")
    assert handle(at.service, [id_]) == {"misaddressed": 1}
    assert event(at, id_).sentence == f"{CONVERSATION} belongs to {AGENT}, not to agent-2"


def test_a_policy_that_is_gone_from_the_file_by_now_fails_the_event_with_those_that_are_there(at: Bench) -> None:
    id_ = signed(at, conversation_id=CONVERSATION, policy="gone")
    assert handle(at.service, [id_]) == {"unknown_policy": 1}
    assert "there is no policy 'gone'" in str(event(at, id_).sentence)


def test_the_policy_files_webhook_table_chooses_the_policy_of_steps(at: Bench, steps: Steps) -> None:
    at.service.settings.policy_file.write_text(
        "[policies.default]\n[policies.late]\ntrigger_usage = 0.95\n[webhook]\npolicy = 'late'\n"
    )
    [id_] = told(at, steps.step("step-1"))
    assert handle(at.service, [id_]) == {"below_trigger": 1}
    assert event(at, id_).sentence == "usage 0.80 is far below the trigger of 0.95"


def test_a_server_that_is_away_puts_the_event_off_and_the_sweep_sends_it_again(at: Bench, steps: Steps) -> None:
    at.letta.answers["step"] = unavailable
    [id_] = told(at, "step-1")
    assert handle(at.service, [id_]) == {"released": 1}
    assert event(at, id_).state == EventState.RECEIVED
    assert "answered 503" in str(event(at, id_).sentence)
    at.time.passes(60)
    Steps(at, steps.steps, steps.runs).run()
    steps.step("step-1")
    assert sweep(at.service) == {"events": 1}
    assert at.outbox.messages == [[id_]]
    assert handle(at.service, [id_]) == {"watched": 1}


def test_a_server_that_stays_away_ends_the_event_after_its_last_attempt(at: Bench) -> None:
    at.letta.answers["step"] = unavailable
    [id_] = told(at, "step-1")
    ends = []
    for _ in range(MOST_ATTEMPTS):
        ends += list(handle(at.service, [id_]))
        at.time.passes(3600)
    assert ends == ["released"] * (MOST_ATTEMPTS - 1) + ["retries_spent"]
    assert event(at, id_).state == EventState.FAILED
    assert f"{MOST_ATTEMPTS} attempts, the last one: GET /v1/steps/step-1: answered 503" in str(event(at, id_).sentence)


def test_a_server_that_asks_to_wait_is_given_that_time(at: Bench) -> None:
    at.letta.answers["step"] = lambda _: httpx.Response(429, json={}, headers={"Retry-After": "900"})
    [id_] = told(at, "step-1")
    handle(at.service, [id_])
    assert event(at, id_).not_before == NOW + timedelta(seconds=900)


def test_a_shutdown_gives_back_what_was_claimed_and_what_was_not_reached(at: Bench, steps: Steps) -> None:
    steps.run()
    ids = told(at, *(steps.step(f"step-{number}") for number in range(AT_ONCE + 5)))
    at.service.loop.let_go()
    assert handle(at.service, ids) == {}
    rows = [event(at, id_) for id_ in ids]
    assert {(row.state, row.enqueued_at) for row in rows} == {(EventState.RECEIVED, None)}


def test_a_worker_that_died_over_an_event_leaves_it_to_the_sweep_and_not_for_ever(at: Bench, steps: Steps) -> None:
    steps.run()
    [id_] = told(at, steps.step("step-1"))
    for _ in range(MOST_ATTEMPTS):
        at.service.ledger.events.claim([id_], now=at.time.now(), owner="died", lease=timedelta(seconds=100))
        assert handle(at.service, [id_]) == {}
        at.time.passes(101)
        assert sweep(at.service)["events"] == 1
    assert handle(at.service, [id_]) == {"given_up": 1}
    assert event(at, id_).state == EventState.FAILED


def test_a_fault_of_our_own_costs_one_event_its_time_and_the_others_nothing(
    at: Bench, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.run()
    honest = Places.of

    async def faulty(self: Places, step: object, when: object) -> object:
        if getattr(step, "id", "") == "step-1":
            raise KeyError("oh")
        return await honest(self, step, when)  # type: ignore[arg-type]

    monkeypatch.setattr(Places, "of", faulty)
    ids = told(at, steps.step("step-1"), steps.step("step-2"))
    assert handle(at.service, ids) == {"released": 1, "watched": 1}
    assert str(event(at, ids[0]).sentence).startswith("a fault of the service itself: KeyError (its words are withheld")


@pytest.mark.parametrize("hostile", ["conv-\x00", "conv-" + "x" * 200, "../agents"])
def test_what_a_server_calls_a_conversation_is_kept_only_where_it_is_an_id(
    at: Bench, steps: Steps, hostile: str
) -> None:
    steps.run()
    steps.run("run-2", conversation=hostile)
    bad, good = told(at, steps.step("step-1", run="run-2"), steps.step("step-2"))
    assert handle(at.service, [bad, good]) == {"misaddressed": 1, "watched": 1}
    assert "is not an id" in str(event(at, bad).sentence)
    assert due_in(at) == {CONVERSATION: IDLE}


def test_what_was_found_out_and_cannot_be_kept_costs_one_event_its_time_and_the_others_nothing(
    at: Bench, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.run()
    bad, good = sorted(told(at, steps.step("step-1"), steps.step("step-2")))
    honest = Watches.watch

    def faulty(self: Watches, watched: Event, *refs: Any, **more: Any) -> None:
        if watched.id == bad:
            raise ArithmeticError
        honest(self, watched, *refs, **more)

    monkeypatch.setattr(Watches, "watch", faulty)
    assert handle(at.service, [bad, good]) == {"released": 1, "watched": 1}
    assert event(at, bad).sentence == "a fault of the service itself: ArithmeticError"


def test_an_event_that_came_twice_is_looked_into_once(at: Bench, steps: Steps) -> None:
    steps.run()
    [id_] = told(at, steps.step("step-1"))
    assert told(at, "step-1") == [id_]
    handle(at.service, [id_, id_])
    assert handle(at.service, [id_]) == {}
    assert steps.asked == ["step-1", "run-1"]

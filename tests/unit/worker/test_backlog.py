"""The sweep sends again what nobody is at, message by message, and removes what is old."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.bench import Bench, bench
from tests.support.rows import NOW
from tests.support.steps import Steps, event, told
from worker.audit.events import HANDED_ON_WITHIN, Arrival, Source
from worker.reconcile import sweep
from worker.webhooks import backlog
from worker.webhooks.backlog import A_MESSAGE
from worker.webhooks.events import handle

PATIENCE = 600


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, COMPACTOR_MESSAGE_PATIENCE=str(PATIENCE), COMPACTOR_KEEP_EVENTS_FOR="7") as service:
        yield service


def received(at: Bench, count: int) -> list[str]:
    """Events that were committed, and of which nobody was told."""
    arrivals = [Arrival(Source.LETTA, f"step-{number}") for number in range(count)]
    return [one.event_id for one in at.service.ledger.events.receive(arrivals, now=at.time.now())]


def test_events_that_nobody_was_told_of_are_sent_in_messages_of_a_hundred_once_the_door_had_its_time(at: Bench) -> None:
    ids = received(at, 2 * A_MESSAGE + 50)
    at.time.wall = HANDED_ON_WITHIN
    assert sweep(at.service) == {}
    at.time.passes(1)
    assert sweep(at.service) == {"events": 250}
    assert [len(message) for message in at.outbox.messages] == [100, 100, 50]
    assert sorted(id_ for message in at.outbox.messages for id_ in message) == sorted(ids)
    assert sweep(at.service) == {}


def test_a_message_that_was_not_taken_in_time_is_sent_again(at: Bench) -> None:
    ids = told(at, "step-1")
    at.time.passes(PATIENCE)
    assert sweep(at.service) == {}
    at.time.passes(1)
    assert sweep(at.service) == {"events": 1}
    assert at.outbox.messages == [ids]


def test_a_broker_that_is_away_is_tried_once_a_sweep_and_gets_everything_when_it_is_back(at: Bench) -> None:
    received(at, 2 * A_MESSAGE)
    at.time.passes(60)
    at.outbox.away = True
    assert sweep(at.service) == {}
    at.outbox.away = False
    assert sweep(at.service) == {"events": 2 * A_MESSAGE}


def test_one_sweep_sends_no_more_than_its_share(at: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "AT_ONCE", 150)
    received(at, 200)
    at.time.passes(60)
    assert sweep(at.service) == {"events": 150}
    assert sweep(at.service) == {"events": 50}


def test_what_ended_long_enough_ago_is_removed_and_what_is_open_stays(at: Bench) -> None:
    steps = Steps(at)
    steps.run()
    ids = told(at, steps.step("step-1", tokens=10), steps.step("step-2"), "step-unknown", steps.step("step-3"))
    handle(at.service, ids[:3])
    at.time.wall = timedelta(days=7)
    at.service.ledger.events.enqueued([ids[3]], now=at.time.now())
    assert sweep(at.service) == {}
    at.time.passes(1)
    assert sweep(at.service) == {"pruned": 2}
    assert [at.service.ledger.events.get(id_) is None for id_ in ids] == [True, False, True, False]
    assert event(at, ids[1]).received_at == NOW

"""A webhook of ours is sent until it was taken, at the times that its specification suggests, and then it is dead."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.bench import POLICY, Bench, FakeLetta, bench
from tests.support.receiver import SECRET, TOKEN, Receiver, receiver
from tests.support.rows import NOW, SCAN
from tests.support.service import wait_until
from worker import compaction
from worker.audit.deliveries import Delivery
from worker.audit.records import DeliveryState
from worker.policy.delays import JITTER, REDELIVERIES
from worker.webhooks import courier, outgoing
from worker.webhooks.outgoing import AT_ONCE, LEASE, notify


@pytest.fixture
def there() -> Iterator[Receiver]:
    # The bench's clock stands at NOW, long ago.
    with receiver(any_age=True) as listening:
        yield listening


@pytest.fixture
def at(tmp_path: Path, there: Receiver) -> Iterator[Bench]:
    urls = " ".join(there.url(name) for name in ("one", "two"))
    with bench(tmp_path, COMPACTOR_NOTIFY_URLS=urls, COMPACTOR_NOTIFY_SECRET=SECRET) as service:
        yield service


def compacted(at: Bench) -> str:
    """A compaction that went well; its id."""
    at.letta.ids = FakeLetta().ids
    id_ = at.plan()
    assert compaction.run(at.service, id_) == "compacted"
    return id_


def deliveries(at: Bench) -> dict[str, Delivery]:
    """The deliveries by the endpoint's name."""
    return {one.endpoint.split("/")[3]: one for one in at.service.ledger.deliveries.recent(100)}


def test_what_was_done_is_told_to_every_endpoint_once(at: Bench, there: Receiver) -> None:
    id_ = compacted(at)
    assert notify(at.service) == {"delivered": 2}
    assert notify(at.service) == {}
    assert there.forged == []
    assert [len(there.of(name)) for name in ("one", "two")] == [1, 1]
    [taken] = there.of("one")
    assert (taken.document["type"], taken.document["data"]["id"]) == ("compaction.succeeded", id_)
    row = deliveries(at)["one"]
    assert (row.state, row.last_status, row.delivered_at, row.id) == (DeliveryState.DELIVERED, 204, NOW, taken.id)
    assert row.body == taken.body


def test_a_webhook_that_is_not_taken_comes_again_at_the_specifications_times_and_is_dead_after_the_last(
    at: Bench, there: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    there.behaviour = {"two": lambda _: 500}
    compacted(at)
    assert notify(at.service) == {"delivered": 1, "failed": 1}
    for number, wait in enumerate(REDELIVERIES, start=1):
        row = deliveries(at)["two"]
        assert row.state == DeliveryState.PENDING
        assert row.attempts == number
        assert row.next_at is not None
        assert wait <= row.next_at - at.time.now() <= wait * (1 + JITTER)
        at.time.wall = row.next_at - NOW - timedelta(microseconds=1)
        assert notify(at.service) == {}
        at.time.wall = row.next_at - NOW
        caplog.clear()
        notify(at.service)
    row = deliveries(at)["two"]
    assert (row.state, row.last_status, row.last_error) == (DeliveryState.DEAD, 500, "it answered 500")
    assert len({taken.id for taken in there.of("two")}) == 1
    assert len(there.of("two")) == len(REDELIVERIES) + 1
    [dead] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"is dead: http://127.0.0.1:{there.port}/... did not take it: it answered 500" in dead.message


def test_an_endpoint_that_answers_gone_gets_it_no_more(at: Bench, there: Receiver) -> None:
    there.behaviour = {"one": lambda _: 410}
    compacted(at)
    assert notify(at.service) == {"dead": 1, "delivered": 1}
    assert deliveries(at)["one"].state == DeliveryState.DEAD


def test_an_endpoint_that_asks_to_wait_is_given_that_time(at: Bench, there: Receiver) -> None:
    there.behaviour = {"one": lambda _: (429, {"Retry-After": "4000"})}
    compacted(at)
    notify(at.service)
    assert deliveries(at)["one"].next_at == NOW + timedelta(seconds=4000)


def test_a_dead_webhook_that_is_replayed_is_sent_again(at: Bench, there: Receiver) -> None:
    there.behaviour = {"one": lambda _: 410}
    compacted(at)
    notify(at.service)
    there.behaviour = {}
    assert at.service.ledger.deliveries.replay_dead(now=at.time.now()) == 1
    assert notify(at.service) == {"delivered": 1}
    assert len({taken.id for taken in there.of("one")}) == 1


def test_an_endpoint_that_is_configured_no_more_gets_nothing(tmp_path: Path, at: Bench, there: Receiver) -> None:
    compacted(at)
    urls = at.service.settings.model_copy(update={"notify_urls": (there.url("two"),)})
    assert notify(replace(at.service, settings=urls)) == {"dead": 1, "delivered": 1}
    assert there.of("one") == []
    assert deliveries(at)["one"].last_error == "the settings do not have its endpoint any more"


def test_a_process_that_dies_after_an_answer_sends_it_again_under_the_same_id(at: Bench, there: Receiver) -> None:
    compacted(at)
    claimed = at.service.ledger.deliveries.claim_due(now=NOW, owner="died", lease=LEASE, limit=AT_ONCE)
    assert len(claimed) == 2
    assert notify(at.service) == {}
    at.time.passes(LEASE.total_seconds() + 1)
    assert notify(at.service) == {"delivered": 2}


def test_an_endpoint_that_falls_silent_leaves_its_rest_for_later(
    at: Bench, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "TIMEOUT", 0.3)
    there.behaviour = {"one": lambda _: None}
    for _ in range(12):
        compacted(at)
        at.time.passes(3600)
    ends = notify(at.service)
    assert ends == {"delivered": 12, "failed": 12}
    assert courier.SILENT_AFTER <= len(there.of("one")) < 12
    pending = [one for one in at.service.ledger.deliveries.recent(100) if one.state == DeliveryState.PENDING]
    assert len(pending) == 12
    assert {one.last_error for one in pending} == {courier.UNSENT, "no answer within 0.3 s"}
    there.behaviour = {}
    at.time.passes(2 * REDELIVERIES[0].total_seconds())
    assert notify(at.service) == {"delivered": 12}


def test_a_shutdown_in_the_middle_leaves_the_rest_to_another_process(
    at: Bench, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    compacted(at)
    at.service.loop.let_go()
    assert notify(at.service) == {}
    assert {one.state for one in deliveries(at).values()} == {DeliveryState.PENDING}


def test_nothing_that_is_logged_or_kept_shows_an_endpoints_token(
    at: Bench, there: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    there.behaviour = {"one": lambda _: 410, "two": lambda _: (302, {"Location": there.url("three")})}
    compacted(at)
    notify(at.service)
    assert "did not take" in caplog.text
    assert TOKEN not in caplog.text
    assert SECRET not in caplog.text
    assert all(TOKEN not in str(one.last_error) for one in deliveries(at).values())


def scanned(at: Bench, **order: str | None) -> str:
    """A scan that came to its end; its id."""
    scans = at.service.ledger.scans
    scan, _ = scans.begin(replace(SCAN, **order), now=at.time.now(), owner="x", lease=timedelta(minutes=1))
    scans.end_listing(scan.id, owner="x")
    assert scans.finish(scan.id, now=at.time.now()) is not None
    return scan.id


def test_a_finished_scan_of_a_schedule_calls_the_heartbeats_url_with_the_schedules_name(
    tmp_path: Path, there: Receiver
) -> None:
    with bench(tmp_path, COMPACTOR_HEARTBEAT_URL=f"http://127.0.0.1:{there.port}/beat/{TOKEN}/{{schedule}}") as at:
        scanned(at, schedule="nightly")
        scanned(at, schedule=None)
        assert notify(at.service) == {"delivered": 1}
        assert notify(at.service) == {}
    assert there.called == [f"/beat/{TOKEN}/nightly"]
    assert there.taken == []


def test_a_heartbeat_that_nobody_heard_is_not_sent_when_it_says_nothing_any_more(
    tmp_path: Path, there: Receiver
) -> None:
    there.behaviour = {"beat": lambda _: 503}
    with bench(tmp_path, COMPACTOR_HEARTBEAT_URL=f"http://127.0.0.1:{there.port}/beat") as at:
        scanned(at, schedule="nightly")
        for _ in range(3):
            at.time.wall += timedelta(minutes=10)
            notify(at.service)
        [row] = at.service.ledger.deliveries.recent(10)
        assert (row.state, row.attempts) == (DeliveryState.DEAD, 3)
        assert at.service.ledger.deliveries.replay_dead(now=at.time.now()) == 0
        assert at.service.ledger.deliveries.replay([row.id], now=at.time.now()) == 0
    assert len(there.called) == 3


def test_a_scan_that_failed_is_no_sign_of_life(tmp_path: Path, there: Receiver) -> None:
    with bench(tmp_path, COMPACTOR_HEARTBEAT_URL=f"http://127.0.0.1:{there.port}/beat") as at:
        scan, _ = at.service.ledger.scans.begin(SCAN, now=at.time.now(), owner="x", lease=timedelta(minutes=1))
        at.service.ledger.scans.fail(scan.id, "the server is away", now=at.time.now())
        assert notify(at.service) == {}
    assert there.called == []


def test_without_an_endpoint_nothing_is_written_and_nothing_sent(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with bench(tmp_path / "plain") as at:
        compacted(at)
        assert notify(at.service) == {}
        assert at.service.ledger.deliveries.recent(9) == []


def test_the_backlog_of_a_slow_endpoint_takes_one_round_and_leaves_the_others_to_the_rest(
    at: Bench, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "AT_ONCE", 1)
    there.behaviour = {"one": lambda _: None}
    for _ in range(6):
        compacted(at)
        at.time.passes(POLICY.cooldown.total_seconds())
    with ThreadPoolExecutor(4) as pool:
        wait_until(lambda: pool.submit(notify, at.service) is not None and len(there.of("two")) == 6, seconds=60)
        assert there.most_at_once["one"] == 1
        there.over.set()

"""The whole way of an event with real processes: the server's own webhook, door, worker, beat and ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.network import quiet_port
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.service import Service, deployed, wait_until
from tests.support.talking import Talk, talk
from worker.audit.events import Arrival, Event, Source
from worker.audit.records import EventState

KEY = "a-step-key-of-the-tests"
PATIENCE = 60.0
IDLE_FOR = timedelta(seconds=3)

POLICY = """
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "3s"
cooldown = "1h"
"""


@pytest.fixture
def port() -> int:
    return quiet_port()


@pytest.fixture
def sandbox(tmp_path: Path, port: int) -> Iterator[Sandbox]:
    (tmp_path / "server").mkdir()
    webhook = {
        "STEP_COMPLETE_WEBHOOK": f"http://127.0.0.1:{port}/webhooks/letta/step-complete",
        "STEP_COMPLETE_KEY": KEY,
    }
    with running_sandbox(tmp_path / "server", webhook) as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, port: int, sandbox: Sandbox, redis_url: str, database_url: str) -> Iterator[Service]:
    with deployed(
        tmp_path,
        letta_url=sandbox.base_url,
        broker_url=redis_url,
        database_url=database_url,
        policy=POLICY,
        STEP_COMPLETE_KEY=KEY,
        COMPACTOR_WEBHOOK_PORT=str(port),
        COMPACTOR_ATTEND_EVERY="1",
        COMPACTOR_RECONCILE_EVERY="1",
        COMPACTOR_SCAN_LEASE="5",
    ) as made:
        yield made


def events(service: Service) -> list[Event]:
    """Every event of the ledger."""
    ledger = service.ledger()
    try:
        return ledger.events.recent(1000)
    finally:
        ledger.close()


def states(service: Service) -> set[str]:
    return {event.state for event in events(service)}


def receive(service: Service, *arrivals: Arrival) -> None:
    """Commit what a door would, and send no message for it."""
    ledger = service.ledger()
    try:
        ledger.events.receive(arrivals, now=datetime.now(UTC))
    finally:
        ledger.close()


def the_compaction(service: Service, of: Talk) -> dict[str, Any]:
    wait_until(service.all_closed, PATIENCE, service.logs)
    [row] = service.export()
    assert (row["conversation_id"], row["trigger"], row["state"]) == (of.conversation_id, "webhook", "succeeded")
    return row


def test_a_burst_past_the_trigger_is_measured_once_and_compacted_once_after_it_falls_idle(
    service: Service, sandbox: Sandbox
) -> None:
    busy = talk(sandbox)
    busy.fill(0.72)
    # Near the trigger already, so that no step of the burst is far under it.
    assert 0.61 < busy.usage() < 0.70
    service.door()
    service.worker()
    for turn in range(30):
        busy.say(f"{turn} " + "and then, what was it that you meant? " * 6)
    assert busy.usage() > 0.75
    before = sandbox.requests()
    said_last = datetime.now(UTC)
    service.beat()
    row = the_compaction(service, busy)
    assert datetime.fromisoformat(row["posted_at"]) - said_last >= IDLE_FOR - timedelta(seconds=1)
    wait_until(lambda: states(service) == {EventState.DONE}, PATIENCE, service.logs)
    told = events(service)
    assert len(told) == 30
    assert {(event.reason, event.compaction_id) for event in told} == {("over_trigger", row["id"])}
    assert busy.usage() <= 0.40
    asked = {path: count - before.get(path, 0) for path, count in sandbox.requests().items()}
    overviews = sum(count for path, count in asked.items() if path.endswith("/context"))
    # One before planning, the compaction's own before and after, and this test's.
    assert overviews <= 4


@pytest.mark.parametrize("streamed", [True, False])
def test_steps_far_under_the_trigger_cost_one_look_up_each(
    service: Service, sandbox: Sandbox, *, streamed: bool
) -> None:
    quiet = talk(sandbox)
    service.door()
    service.worker()
    before = sandbox.requests()
    for turn in range(5):
        quiet.say(f"hello {turn}", streamed=streamed)
    wait_until(
        lambda: len(events(service)) == 5 and states(service) == {EventState.DONE},
        PATIENCE,
        lambda: f"{events(service)}\n{service.logs()}",
    )
    assert {event.reason for event in events(service)} == {"below_trigger"}
    after = sandbox.requests()
    asked = {path: count - before.get(path, 0) for path, count in after.items() if count != before.get(path, 0)}
    reads = {path: count for path, count in asked.items() if path.startswith("GET /v1/") and "health" not in path}
    assert sum(reads.values()) == 5
    assert all("/steps/" in path for path in reads)


def test_an_event_whose_message_was_lost_is_picked_up_by_the_sweep(service: Service, sandbox: Sandbox) -> None:
    full = talk(sandbox)
    full.fill(0.80)
    receive(service, Arrival(Source.SIGNED, "hook-1", conversation_id=full.conversation_id))
    service.worker()
    service.beat()
    row = the_compaction(service, full)
    [event] = events(service)
    assert (event.state, event.compaction_id) == (EventState.DONE, row["id"])


def test_a_worker_that_is_killed_between_the_claim_and_the_watch_loses_nothing(
    service: Service, sandbox: Sandbox
) -> None:
    full = talk(sandbox)
    service.door()
    full.fill(0.80)
    sandbox.set_faults("step:hang:600")
    dies = service.worker()
    wait_until(lambda: states(service) == {EventState.RUNNING}, PATIENCE, service.logs)
    dies.kill()
    sandbox.set_faults()
    service.worker()
    service.beat()
    row = the_compaction(service, full)
    [event] = events(service)
    assert (event.state, event.compaction_id, event.attempts) == (EventState.DONE, row["id"], 2)

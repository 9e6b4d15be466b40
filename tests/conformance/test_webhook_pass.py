"""The server's own webhook, pointed at the service: a conversation that fills up is compacted once it falls idle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.seeding import Seeded, say, seed_conversation, seed_default, user
from tests.conformance.servers import KEY, STEP_COMPLETE_KEY, WEBHOOK_PORT, ServerUnderTest
from tests.support.service import Service, deployed, wait_until

POLICY = """
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "3s"
cooldown = "1h"

[webhook]
policy = "default"
"""
IDLE_FOR = timedelta(seconds=3)
PATIENCE = 60.0


@pytest.fixture
def service(letta_server: ServerUnderTest, redis_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    """Worker, beat and door, with the server's webhook pointed at the door."""
    with deployed(
        tmp_path,
        letta_url=letta_server.base_url,
        broker_url=redis_url,
        database_url=sqlite_url,
        key=KEY,
        policy=POLICY,
        STEP_COMPLETE_KEY=STEP_COMPLETE_KEY,
        COMPACTOR_WEBHOOK_PORT=str(WEBHOOK_PORT),
        COMPACTOR_ATTEND_EVERY="1",
    ) as made:
        made.door()
        made.worker()
        made.beat()
        yield made


def stream(server: ServerUnderTest, seeded: Seeded, text: str) -> None:
    """Send one message and read the streamed answer to its end."""
    body: dict[str, Any] = {"messages": [user(text)], "streaming": True}
    if seeded.conversation_id == "default":
        body["agent_id"] = seeded.agent_id
    path = f"/v1/conversations/{seeded.conversation_id}/messages"
    with server.http() as http, http.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        assert answer.read().rstrip().endswith(b"data: [DONE]")


def usage(server: ServerUnderTest, seeded: Seeded) -> float:
    params = {} if seeded.conversation_id == "default" else {"conversation_id": seeded.conversation_id}
    with server.http() as http:
        overview = http.get(f"/v1/agents/{seeded.agent_id}/context", params=params).raise_for_status().json()
    return float(overview["context_window_size_current"] / overview["context_window_size_max"])


def talk_past_the_trigger(server: ServerUnderTest, seeded: Seeded, *, streamed: bool) -> datetime:
    """Send messages in quick succession until the usage passes the trigger; gives when the last one was sent."""
    assert usage(server, seeded) < 0.70
    for turn in range(40):
        text = f"{turn} " + "and what else is there to be said about it? " * 60
        sent = datetime.now(UTC)
        if streamed:
            stream(server, seeded, text)
        else:
            say(server, seeded, user(text))
        if usage(server, seeded) > 0.72:
            return sent
    raise AssertionError("forty messages did not fill the window")


def the_one_compaction(service: Service, seeded: Seeded) -> dict[str, Any]:
    """Wait until the conversation's compaction is closed; there is exactly one, however long one waits."""
    wait_until(service.all_closed, PATIENCE, service.logs)
    time.sleep(2 * IDLE_FOR.total_seconds())  # a second one would be planned within that time
    [row] = [row for row in service.export() if row["agent_id"] == seeded.agent_id]
    return row


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "not_streamed"])
@pytest.mark.parametrize("own", [False, True], ids=["conversation", "default_conversation"])
def test_a_conversation_that_is_talked_past_the_trigger_is_compacted_once_after_it_falls_idle(
    letta_server: ServerUnderTest, service: Service, *, streamed: bool, own: bool
) -> None:
    seed = seed_default if own else seed_conversation
    seeded = seed(letta_server, pairs=20, text_chars=940)
    sent = talk_past_the_trigger(letta_server, seeded, streamed=streamed)

    row = the_one_compaction(service, seeded)

    assert (row["conversation_id"], row["state"], row["trigger"]) == (seeded.conversation_id, "succeeded", "webhook")
    assert row["reason"] == "over_trigger"
    assert row["flags"] == []
    assert datetime.fromisoformat(row["posted_at"]) - sent >= IDLE_FOR
    assert usage(letta_server, seeded) <= 0.40
    assert row["ids_dropped"] in ([], None)


def test_steps_far_under_the_trigger_are_looked_up_once_and_lead_to_nothing(
    letta_server: ServerUnderTest, service: Service
) -> None:
    seeded = seed_conversation(letta_server, pairs=4)
    for streamed in (True, False):
        if streamed:
            stream(letta_server, seeded, "hello")
        else:
            say(letta_server, seeded, user("hello again"))

    def told() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(service.compactor("webhooks", "events", "--json").stdout)
        return events

    wait_until(lambda: len(told()) >= 2 and all(event["state"] == "done" for event in told()), PATIENCE, service.logs)
    assert {event["reason"] for event in told()} == {"below_trigger"}
    assert service.export() == []

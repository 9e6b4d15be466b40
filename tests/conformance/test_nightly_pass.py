"""The whole nightly pass, with real worker processes, on the real Letta and on the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.seeding import Seeded, create_agent, create_conversation, seed_conversation, seed_default
from tests.conformance.servers import KEY, ServerUnderTest
from tests.support.service import Service, deployed

LONG_AGO = datetime.now(UTC) - timedelta(days=3)
WINDOW = 16_000
TARGET = 0.40


@pytest.fixture
def service(letta_server: ServerUnderTest, redis_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    with deployed(
        tmp_path, letta_url=letta_server.base_url, broker_url=redis_url, database_url=sqlite_url, key=KEY
    ) as made:
        yield made


def state(server: ServerUnderTest, seeded: Seeded) -> dict[str, Any]:
    """What the server itself says of a conversation: ids in context, and the overview's figures."""
    with server.http() as http:
        if seeded.conversation_id == "default":
            ids = http.get(f"/v1/agents/{seeded.agent_id}").raise_for_status().json()["message_ids"]
            params = {}
        else:
            answer = http.get(f"/v1/conversations/{seeded.conversation_id}").raise_for_status().json()
            ids, params = answer["in_context_message_ids"], {"conversation_id": seeded.conversation_id}
        overview = http.get(f"/v1/agents/{seeded.agent_id}/context", params=params).raise_for_status().json()
    return {"ids": ids, "usage": overview["context_window_size_current"] / overview["context_window_size_max"]}


def test_the_pass_compacts_what_is_over_the_trigger_to_its_target_and_leaves_the_rest_alone(
    letta_server: ServerUnderTest, service: Service
) -> None:
    full = [
        seed_conversation(letta_server, pairs=pairs, text_chars=chars, last_message_at=LONG_AGO)
        for pairs, chars in ((20, 1_160), (40, 590), (60, 420), (14, 1_700))
    ]
    half = seed_conversation(letta_server, pairs=20, text_chars=560, last_message_at=LONG_AGO)
    few = seed_conversation(letta_server, pairs=2, text_chars=9_000, last_message_at=LONG_AGO)
    busy = seed_conversation(letta_server, pairs=20, text_chars=1_160)
    agent = create_agent(letta_server)
    untouched = Seeded(agent, create_conversation(letta_server, agent))
    others = [half, few, busy, untouched]
    before = {seeded: state(letta_server, seeded) for seeded in [*full, *others]}
    assert all(before[seeded]["usage"] >= 0.70 for seeded in full), {s: v["usage"] for s, v in before.items()}

    service.worker()
    service.compactor("scan", "--schedule", "nightly", "--wait")

    rows = {row["conversation_id"]: row for row in service.export()}
    assert set(rows) == {seeded.conversation_id for seeded in full}
    for seeded in full:
        row, now = rows[seeded.conversation_id], state(letta_server, seeded)
        assert (row["state"], row["outcome"], row["trigger"]) == ("succeeded", "compacted", "cli")
        assert row["flags"] == []
        assert now["usage"] <= TARGET
        assert len(now["ids"]) > 2
        _agrees_with_the_server(row, before[seeded], now)
    for seeded in others:
        assert state(letta_server, seeded) == before[seeded]
    known = {
        row["conversation_id"]: row["reason"]
        for row in json.loads(service.compactor("conversations", "--json", "--limit", "500").stdout)
    }
    assert known[half.conversation_id] == "below_trigger"
    assert known[few.conversation_id] == "too_few_messages"
    assert known[busy.conversation_id] == "not_idle"
    assert known[untouched.conversation_id] == "empty"


def test_a_second_pass_compacts_nothing_new(letta_server: ServerUnderTest, service: Service) -> None:
    full = seed_conversation(letta_server, pairs=20, text_chars=1_160, last_message_at=LONG_AGO)
    service.worker()
    service.compactor("scan", "--wait")
    first, after_first = service.export(), state(letta_server, full)
    assert [row["state"] for row in first if row["conversation_id"] == full.conversation_id] == ["succeeded"]

    service.compactor("scan", "--wait")

    assert service.export() == first
    assert state(letta_server, full) == after_first


def test_an_agents_default_conversation_is_compacted_like_any_other(
    letta_server: ServerUnderTest, service: Service
) -> None:
    full = seed_default(letta_server, pairs=20, text_chars=1_160)
    before = state(letta_server, full)
    assert before["usage"] >= 0.70

    service.worker()
    service.compactor("scan", "--policy", "eager", "--wait")

    row = next(row for row in service.export() if row["agent_id"] == full.agent_id)
    now = state(letta_server, full)
    assert (row["conversation_id"], row["state"], row["flags"]) == ("default", "succeeded", [])
    assert now["usage"] <= TARGET
    _agrees_with_the_server(row, before, now)


def test_one_conversation_is_compacted_by_hand_below_the_trigger(
    letta_server: ServerUnderTest, service: Service
) -> None:
    half = seed_conversation(letta_server, pairs=20, text_chars=760, last_message_at=LONG_AGO)
    before = state(letta_server, half)
    assert 0.40 < before["usage"] < 0.70

    service.worker()
    service.compactor("compact", half.conversation_id, "--wait")

    [row] = service.export()
    now = state(letta_server, half)
    assert (row["state"], row["reason"], row["trigger"]) == ("succeeded", "asked", "cli")
    assert now["usage"] <= TARGET
    _agrees_with_the_server(row, before, now)


def _agrees_with_the_server(row: dict[str, Any], before: dict[str, Any], now: dict[str, Any]) -> None:
    assert row["num_messages_before"] == len(before["ids"])
    assert row["num_messages_after"] == len(now["ids"])
    assert row["usage_before"] == pytest.approx(before["usage"])
    assert row["usage_after"] == pytest.approx(now["usage"])
    assert row["usage_source"] == "context_overview"
    assert row["ids_before"] == before["ids"]
    assert row["ids_after"] == now["ids"]
    assert row["ids_kept"] == [id_ for id_ in before["ids"] if id_ in now["ids"]]
    assert row["ids_lost"] == [id_ for id_ in before["ids"] if id_ not in now["ids"]]
    assert row["mode_used"] == "sliding_window"
    response = json.loads(row["response"])
    assert response["summary"] == row["summary"]
    assert (response["num_messages_before"], response["num_messages_after"]) == (len(before["ids"]), len(now["ids"]))

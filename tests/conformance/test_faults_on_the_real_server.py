"""A worker that is killed, a client that gives up, an answer that is lost: what becomes of it, on both servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.seeding import Seeded, seed_conversation
from tests.conformance.servers import KEY, ServerUnderTest
from tests.conformance.test_nightly_pass import state
from tests.support.service import Service, deployed, wait_until
from worker.letta.messages import Message
from worker.letta.summaries import summary_text

LONG_AGO = datetime.now(UTC) - timedelta(days=3)

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "tests" / "faults" / "hook"

THINKING_SECONDS = 4.0
"""How long the summarizer takes: time to be killed in, and longer than the impatient client waits."""

WAITS = {
    "LETTA_SERVER_LIMIT": "20",
    "COMPACTOR_LEASE": "2",
    "COMPACTOR_RECONCILE_EVERY": "1",
    "COMPACTOR_LOOK_AGAIN_AFTER": "1",
    "PYTHONPATH": f"{HOOK}:{ROOT}",
}

Deploy = Callable[..., Service]


@pytest.fixture
def deploy(letta_server: ServerUnderTest, redis_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Deploy]:
    """Deploy the service with short waits; `kill`: the hook's instant at which its first worker dies."""
    with ExitStack() as running:

        def start(*, kill: str | None = None, **settings: str) -> Service:
            made = running.enter_context(
                deployed(
                    tmp_path,
                    letta_url=letta_server.base_url,
                    broker_url=redis_url,
                    database_url=sqlite_url,
                    key=KEY,
                    **(WAITS | settings),
                )
            )
            if kill is not None:
                made.environment["FAULTS"] = json.dumps({"kill": {kill: 1}, "folder": str(tmp_path)})
            return made

        yield start
        letta_server.calm()


@pytest.mark.parametrize("instant", ["during-post", "answered"])
def test_the_effect_of_a_worker_killed_in_or_right_after_its_post_is_found_and_told_as_the_server_has_it(
    letta_server: ServerUnderTest, deploy: Deploy, instant: str
) -> None:
    full = seed_conversation(letta_server, pairs=20, text_chars=1_160, last_message_at=LONG_AGO)
    before, paid = state(letta_server, full), letta_server.summaries_paid()
    letta_server.summaries_take(THINKING_SECONDS if instant == "during-post" else 0)
    service = deploy(kill=instant)
    first = service.worker()
    service.compactor("compact", full.conversation_id)
    wait_until(lambda: first.popen.poll() is not None, 60, service.logs)
    [left] = service.rows()
    assert (left.state, left.response) == ("running", None)
    assert left.ids_before == before["ids"]

    service.worker()
    service.beat()
    wait_until(service.all_closed, 90, service.logs)

    _was_done_once_and_told_truly(letta_server, service, full, before)
    assert letta_server.summaries_paid() == paid + 1


def test_a_compaction_whose_client_gave_up_is_found_when_the_server_has_carried_on_and_is_not_asked_for_again(
    letta_server: ServerUnderTest, deploy: Deploy
) -> None:
    full = seed_conversation(letta_server, pairs=20, text_chars=1_160, last_message_at=LONG_AGO)
    before, paid = state(letta_server, full), letta_server.summaries_paid()
    letta_server.summaries_take(THINKING_SECONDS)
    service = deploy(LETTA_COMPACT_TIMEOUT="1")
    service.worker()
    service.beat()
    service.compactor("compact", full.conversation_id)
    wait_until(service.all_closed, 90, service.logs)

    _was_done_once_and_told_truly(letta_server, service, full, before)
    assert letta_server.summaries_paid() == paid + 1


def _was_done_once_and_told_truly(
    server: ServerUnderTest, service: Service, full: Seeded, before: dict[str, Any]
) -> None:
    [row] = service.export()
    now, [summary] = state(server, full), _summaries(server, full)
    assert (row["state"], row["outcome"], row["recovered"], row["response"]) == ("succeeded", "recovered", True, None)
    assert row["flags"] == []
    assert row["summary"] == summary
    assert (row["num_messages_before"], row["num_messages_after"]) == (len(before["ids"]), len(now["ids"]))
    assert (row["ids_before"], row["ids_after"]) == (before["ids"], now["ids"])
    assert row["usage_before"] == pytest.approx(before["usage"])
    assert row["usage_after"] == pytest.approx(now["usage"])
    assert now["usage"] <= 0.40


def _summaries(server: ServerUnderTest, seeded: Seeded) -> list[str]:
    """The text of each summary that a conversation ever got: one for each compaction that took effect."""
    with server.http() as http:
        rows = http.get(f"/v1/conversations/{seeded.conversation_id}/messages", params={"limit": 1000})
    messages = [Message.model_validate(row) for row in rows.raise_for_status().json()]
    return [text for text in map(summary_text, messages) if text is not None]

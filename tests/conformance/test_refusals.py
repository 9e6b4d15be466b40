"""What the server refuses, and how the client tells it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.seeding import Seeded
from tests.conformance.servers import KEY, ServerUnderTest
from worker.contract.compaction import CompactionRequest
from worker.letta.client import Letta
from worker.letta.errors import LettaStatusError, NotFound, RedirectRefused, Unauthorized, Unprocessable
from worker.letta.transport import open_http

pytestmark = pytest.mark.anyio

NEVER_WAS = "conv-00000000-0000-4000-8000-000000000000"


async def test_the_server_is_healthy_and_says_its_version(letta: Letta) -> None:
    health = await letta.health()
    assert health.status == "ok"
    assert health.version
    assert health.date is not None


@pytest.mark.parametrize("key", [None, "wrong-key"])
async def test_without_the_right_key_everything_but_the_health_check_is_refused(
    letta_server: ServerUnderTest, key: str | None
) -> None:
    async with open_http(letta_server.base_url, key) as http:
        letta = Letta(http)
        assert (await letta.health()).status == "ok"
        with pytest.raises(Unauthorized) as refusal:
            await letta.list_conversations(limit=1)
    assert KEY not in str(refusal.value)
    assert "wrong-key" not in f"{refusal.value} {refusal.value!r}"
    assert not refusal.value.retryable


async def test_a_conversation_that_never_was_is_not_found(letta: Letta) -> None:
    for call in (
        letta.retrieve_conversation(NEVER_WAS),
        letta.compact(NEVER_WAS, CompactionRequest()),
        letta.fork_conversation(NEVER_WAS),
        letta.delete_conversation(NEVER_WAS),
    ):
        with pytest.raises(NotFound) as refusal:
            await call
        assert refusal.value.outcome_known
        assert not refusal.value.retryable


async def test_a_deleted_conversation_is_not_found_any_more(letta: Letta, seeded: Seeded) -> None:
    await letta.delete_conversation(seeded.conversation_id)
    for call in (
        letta.retrieve_conversation(seeded.conversation_id),
        letta.compact(seeded.conversation_id),
        letta.fork_conversation(seeded.conversation_id),
        letta.delete_conversation(seeded.conversation_id),
    ):
        with pytest.raises(NotFound):
            await call


async def test_what_is_no_id_is_refused_as_such(letta: Letta) -> None:
    for call in (
        letta.retrieve_conversation("garbage"),
        letta.compact("garbage"),
        letta.list_messages("garbage"),
        letta.retrieve_agent("garbage"),
    ):
        with pytest.raises(Unprocessable) as refusal:
            await call
        assert refusal.value.detail


BAD_BODIES: list[Any] = [
    {"compaction_settings": {"mode": "nope"}},
    {"compaction_settings": {"sliding_window_percentage": "much"}},
    {"compaction_settings": {"model_settings": {"provider_type": "nope"}}},
    [1],
]


@pytest.mark.parametrize("body", BAD_BODIES)
async def test_a_body_that_the_client_would_never_send_is_refused_before_anything_is_done(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded, body: Any
) -> None:
    with letta_server.http() as http:
        answer = http.post(f"/v1/conversations/{seeded.conversation_id}/compact", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert len((await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids) == 41


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"no_such_field": 1, "sliding_window_percentage": 0.5}, 19),
        ({"sliding_window_percentage": 1.5}, 2),
        ({"model_settings": {"provider_type": "groq", "thinking": {"type": "enabled"}}}, 27),
        ({}, 27),
    ],
)
async def test_the_server_swallows_what_the_client_refuses_to_send(
    letta_server: ServerUnderTest, seeded: Seeded, settings: dict[str, Any], left: int
) -> None:
    """Why the client is strict: a mistyped field is silently another compaction, and 1.5 a full wipe."""
    with letta_server.http() as http:
        answer = http.post(
            f"/v1/conversations/{seeded.conversation_id}/compact", json={"compaction_settings": settings}
        )
    assert (answer.status_code, answer.json()["num_messages_after"]) == (200, left)


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/agents", "/v1/runs", "/v1/health"])
async def test_a_collection_without_its_slash_is_a_redirect(letta_server: ServerUnderTest, path: str) -> None:
    with letta_server.http() as http:
        answer = http.get(path)
    assert answer.status_code == 307
    assert answer.headers["location"] == f"{letta_server.base_url}{path}/"


async def test_the_client_follows_no_redirect_with_its_key(letta_server: ServerUnderTest) -> None:
    async with open_http(f"{letta_server.base_url}/v1/health", KEY) as http:
        with pytest.raises(LettaStatusError) as refusal:
            await Letta(http).list_agents()
    assert isinstance(refusal.value, RedirectRefused | NotFound)

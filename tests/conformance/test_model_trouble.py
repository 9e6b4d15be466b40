"""What the service sees of trouble between Letta and its model; on the real server alone, the sandbox has no model."""

from __future__ import annotations

import pytest

from tests.conformance.seeding import Seeded, say, user
from tests.conformance.servers import RealServer
from worker.contract.compaction import CompactionMode, CompactionRequest, CompactionSettings
from worker.letta.client import Letta
from worker.letta.errors import BadRequest, LettaStatusError, RateLimited, ServerError, StreamFailed, Unauthorized
from worker.letta.messages import Message

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("letta_server", ["real"], indirect=True, scope="session")]

THIRD = CompactionRequest(
    compaction_settings=CompactionSettings(mode=CompactionMode.SLIDING_WINDOW, sliding_window_percentage=0.3)
)

TROUBLE: list[tuple[int, type[LettaStatusError], str]] = [
    (500, ServerError, "llm_error"),
    (429, RateLimited, "llm_rate_limit"),
    (401, Unauthorized, "llm_authentication"),
    (400, BadRequest, "llm_bad_request"),
]


@pytest.mark.parametrize(("status", "error", "kind"), TROUBLE)
async def test_a_models_refusal_comes_through_under_its_own_name_and_leaves_the_context_alone(
    letta: Letta, seeded: Seeded, real_server: RealServer, status: int, error: type[LettaStatusError], kind: str
) -> None:
    before = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    real_server.model.fail_status = status
    with pytest.raises(error) as trouble:
        await letta.compact(seeded.conversation_id, THIRD)
    assert trouble.value.kind == kind
    assert not trouble.value.nothing_to_compact
    assert (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids == before


@pytest.mark.parametrize(("status", "failures"), [(400, 1), (429, 3), (500, 3)])
async def test_a_hiccup_of_the_model_turns_a_sliding_window_into_a_full_wipe(
    letta: Letta, seeded: Seeded, real_server: RealServer, status: int, failures: int
) -> None:
    """Why no percentage can promise that a conversation is not wiped, and every compaction is checked afterwards."""
    real_server.model.fail_status, real_server.model.failures_left = status, failures
    reply = await letta.compact(seeded.conversation_id, THIRD)
    assert reply.response.num_messages_after == 2


async def test_a_stream_tells_of_a_failing_model_inside_itself(
    letta: Letta, seeded: Seeded, real_server: RealServer
) -> None:
    real_server.model.fail_status = 500
    with pytest.raises(StreamFailed):
        assert not [event async for event in letta.stream_message(seeded.conversation_id, [user("hello")])]


async def test_a_pending_approval_survives_even_a_full_wipe(
    letta: Letta, seeded: Seeded, real_server: RealServer
) -> None:
    real_server.model.tool_call = "look_up"
    tool = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object", "properties": {}}}
    with real_server.http() as http:
        body = {"messages": [user("look it up")], "streaming": False, "client_tools": [tool]}
        http.post(f"/v1/conversations/{seeded.conversation_id}/messages", json=body).raise_for_status()
    before = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    everything = CompactionRequest(compaction_settings=CompactionSettings(mode=CompactionMode.ALL))
    reply = await letta.compact(seeded.conversation_id, everything)
    after = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    assert reply.response.num_messages_after == 3
    assert after[2] == before[-1]


async def test_one_message_may_be_several_items_with_one_id(
    letta: Letta, seeded: Seeded, real_server: RealServer
) -> None:
    real_server.model.tool_call = "look_up"
    tool = {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object", "properties": {}}}
    with real_server.http() as http:
        body = {"messages": [user("look it up")], "streaming": False, "client_tools": [tool]}
        http.post(f"/v1/conversations/{seeded.conversation_id}/messages", json=body).raise_for_status()
    newest = [row for row in await letta.list_messages(seeded.conversation_id, limit=1) if isinstance(row, Message)]
    assert [row.message_type for row in newest] == ["assistant_message", "approval_request_message"]
    assert newest[0].id == newest[1].id


async def test_the_server_compacts_by_itself_when_a_context_outgrows_its_window(
    letta: Letta, seeded: Seeded, real_server: RealServer
) -> None:
    """Why ids may leave the context without the service having done anything."""
    real_server.model.reply = "word " * 3_000
    before = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    for _ in range(4):
        say(real_server, seeded, user("tell me more"))
    after = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    assert set(before) - set(after)

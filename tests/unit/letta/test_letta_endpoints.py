"""Every method of the client against the request that it sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from worker.contract.compaction import CompactionRequest
from worker.letta.errors import UnusableArgument
from worker.letta.models import Unreadable

pytestmark = pytest.mark.anyio

CONVERSATION = {"id": "conv-1", "agent_id": "agent-1"}
HELLO = [{"role": "user", "content": "hello"}]
REPLY = {
    "messages": [{"id": "message-1", "message_type": "assistant_message", "content": "hi"}],
    "stop_reason": {"message_type": "stop_reason", "stop_reason": "end_turn"},
    "usage": {"message_type": "usage_statistics", "prompt_tokens": 10, "context_tokens": 12},
}


def sent(server: Any) -> tuple[str, str, dict[str, str]]:
    request = server.seen
    return request.method, request.url.path, dict(request.url.params)


async def test_health_asks_without_more_and_reads_the_servers_clock(server: Any) -> None:
    server.answers_with({"version": "0.16.8", "status": "ok"}, headers={"date": "Mon, 23 Nov 2026 04:21:17 GMT"})
    health = await server.letta.health()
    assert sent(server) == ("GET", "/v1/health/", {})
    assert (health.version, health.status) == ("0.16.8", "ok")
    assert health.date == datetime(2026, 11, 23, 4, 21, 17, tzinfo=UTC)


async def test_every_request_carries_the_key(server: Any) -> None:
    server.answers_with([])
    await server.letta.list_agents()
    assert server.seen.headers["authorization"] == f"Bearer {server.key}"


async def test_conversations_are_listed_by_their_last_message_newest_first(server: Any) -> None:
    server.answers_with([CONVERSATION])
    [row] = await server.letta.list_conversations()
    assert sent(server) == (
        "GET",
        "/v1/conversations/",
        {"limit": "100", "order": "desc", "order_by": "last_message_at"},
    )
    assert row.agent_id == "agent-1"


async def test_conversations_of_one_agent_are_listed_from_a_cursor_on(server: Any) -> None:
    server.answers_with([])
    await server.letta.list_conversations(
        agent_id="agent-1", limit=5, after="conv-9", order="asc", order_by="created_at"
    )
    assert sent(server)[2] == {
        "agent_id": "agent-1",
        "limit": "5",
        "after": "conv-9",
        "order": "asc",
        "order_by": "created_at",
    }


async def test_a_conversation_is_retrieved_with_its_context(server: Any) -> None:
    server.answers_with(CONVERSATION | {"in_context_message_ids": ["message-1", "message-2"]})
    conversation = await server.letta.retrieve_conversation("conv-1")
    assert sent(server) == ("GET", "/v1/conversations/conv-1", {})
    assert conversation.in_context_message_ids == ["message-1", "message-2"]


async def test_a_conversation_is_forked(server: Any) -> None:
    server.answers_with({"id": "conv-2", "agent_id": "agent-1"})
    fork = await server.letta.fork_conversation("conv-1")
    assert sent(server) == ("POST", "/v1/conversations/conv-1/fork", {})
    assert fork.id == "conv-2"


async def test_a_default_conversation_is_forked_through_its_agent(server: Any) -> None:
    server.answers_with({"id": "conv-2", "agent_id": "agent-1"})
    await server.letta.fork_conversation("default", agent_id="agent-1")
    assert sent(server) == ("POST", "/v1/conversations/default/fork", {"agent_id": "agent-1"})


async def test_a_conversation_is_deleted(server: Any) -> None:
    server.answers_with(None)
    assert await server.letta.delete_conversation("conv-1") is None
    assert sent(server) == ("DELETE", "/v1/conversations/conv-1", {})


async def test_agents_are_listed_oldest_first(server: Any) -> None:
    server.answers_with([{"id": "agent-1", "llm_config": {"context_window": 16000}}])
    [agent] = await server.letta.list_agents(limit=7, after="agent-0")
    assert sent(server) == ("GET", "/v1/agents/", {"limit": "7", "after": "agent-0", "order": "asc"})
    assert agent.window == 16000


async def test_an_agent_is_retrieved(server: Any) -> None:
    server.answers_with({"id": "agent-1", "message_ids": ["message-1"]})
    agent = await server.letta.retrieve_agent("agent-1")
    assert sent(server) == ("GET", "/v1/agents/agent-1", {})
    assert agent.message_ids == ["message-1"]


OVERVIEW = {"context_window_size_max": 16000, "context_window_size_current": 4000}


async def test_the_overview_is_asked_for_one_conversation(server: Any) -> None:
    server.answers_with(OVERVIEW)
    overview = await server.letta.context_overview("agent-1", "conv-1")
    assert sent(server) == ("GET", "/v1/agents/agent-1/context", {"conversation_id": "conv-1"})
    assert overview.usage == 0.25


@pytest.mark.parametrize("conversation_id", [None, "default"])
async def test_the_overview_of_a_default_conversation_names_no_conversation(
    server: Any, conversation_id: str | None
) -> None:
    server.answers_with(OVERVIEW)
    await server.letta.context_overview("agent-1", conversation_id)
    assert sent(server) == ("GET", "/v1/agents/agent-1/context", {})


async def test_messages_are_listed_newest_first(server: Any) -> None:
    server.answers_with([{"id": "message-1", "message_type": "user_message", "content": "hello"}])
    [message] = await server.letta.list_messages("conv-1", limit=9, before="message-9")
    assert sent(server) == (
        "GET",
        "/v1/conversations/conv-1/messages",
        {"limit": "9", "before": "message-9", "order": "desc"},
    )
    assert message.text() == "hello"


async def test_messages_of_a_default_conversation_are_listed_through_its_agent(server: Any) -> None:
    server.answers_with([])
    await server.letta.list_messages("default", agent_id="agent-1", after="message-1", order="asc")
    assert sent(server) == (
        "GET",
        "/v1/conversations/default/messages",
        {"limit": "100", "after": "message-1", "order": "asc", "agent_id": "agent-1"},
    )


async def test_an_agents_id_beside_another_conversation_is_not_sent(server: Any) -> None:
    server.answers_with([])
    await server.letta.list_messages("conv-1", agent_id="agent-1")
    assert "agent_id" not in sent(server)[2]


async def test_a_message_is_sent_without_streaming(server: Any) -> None:
    server.answers_with(REPLY)
    reply = await server.letta.send_message("conv-1", HELLO)
    assert sent(server) == ("POST", "/v1/conversations/conv-1/messages", {})
    assert server.body == {"messages": HELLO, "streaming": False}
    assert (reply.stop_reason, reply.usage.context_tokens, reply.messages[0].text()) == ("end_turn", 12, "hi")


async def test_a_message_to_a_default_conversation_names_the_agent_in_the_body(server: Any) -> None:
    server.answers_with(REPLY)
    await server.letta.send_message("default", HELLO, agent_id="agent-1")
    assert sent(server) == ("POST", "/v1/conversations/default/messages", {})
    assert server.body == {"messages": HELLO, "streaming": False, "agent_id": "agent-1"}


async def test_a_compaction_sends_only_what_was_set_and_keeps_the_answer_as_it_came(server: Any) -> None:
    text = '{"summary": "It began: \\u00e4.",  "num_messages_before":41,"num_messages_after":11, "new_field": [1]}'
    server.answers_with(content=text.encode(), headers={"content-type": "application/json"})
    request = CompactionRequest.model_validate({"compaction_settings": {"mode": "all", "clip_chars": None}})
    reply = await server.letta.compact("conv-1", request)
    assert sent(server) == ("POST", "/v1/conversations/conv-1/compact", {})
    assert server.body == {"compaction_settings": {"mode": "all", "clip_chars": None}}
    assert (reply.response.num_messages_before, reply.response.num_messages_after) == (41, 11)
    assert reply.response.summary == "It began: ä."
    assert reply.body == text


async def test_a_compaction_without_settings_leaves_them_to_the_agent(server: Any) -> None:
    server.answers_with({"summary": "", "num_messages_before": 3, "num_messages_after": 2})
    await server.letta.compact("conv-1")
    assert server.body == {}


async def test_a_default_conversation_is_compacted_through_its_agent(server: Any) -> None:
    server.answers_with({"summary": "", "num_messages_before": 3, "num_messages_after": 2})
    await server.letta.compact("default", CompactionRequest(agent_id="agent-1"))
    assert sent(server)[1] == "/v1/conversations/default/compact"
    assert server.body == {"agent_id": "agent-1"}


async def test_a_step_is_retrieved(server: Any) -> None:
    server.answers_with({"id": "step-1", "prompt_tokens": 800, "context_window_limit": 1000, "run_id": "run-1"})
    step = await server.letta.retrieve_step("step-1")
    assert sent(server) == ("GET", "/v1/steps/step-1", {})
    assert (step.usage, step.run_id) == (0.8, "run-1")


async def test_a_run_is_retrieved(server: Any) -> None:
    server.answers_with({"id": "run-1", "status": "running", "conversation_id": None})
    run = await server.letta.retrieve_run("run-1")
    assert sent(server) == ("GET", "/v1/runs/run-1", {})
    assert run.active
    assert run.conversation_id is None


async def test_active_runs_of_a_conversation_are_listed(server: Any) -> None:
    server.answers_with([{"id": "run-1", "status": "created"}, {"id": "run-2", "status": 7}])
    readable, unreadable = await server.letta.list_runs(conversation_id="conv-1", agent_id="agent-1", active=True)
    assert sent(server) == (
        "GET",
        "/v1/runs/",
        {"agent_id": "agent-1", "conversation_id": "conv-1", "active": "true", "limit": "100", "order": "desc"},
    )
    assert readable.id == "run-1"
    assert unreadable == Unreadable("run-2", "status: must be text, not a whole number")


BAD_IDS = ["", "conv/1", "../agents", "conv 1", "conv-1?x=1", "conv-1\r\nX: y", "ä", "x" * 129, "conv%2f"]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_an_id_that_does_not_belong_in_a_path_is_refused_before_anything_is_sent(server: Any, bad: str) -> None:
    server.answers_with({})
    letta = server.letta
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: letta.retrieve_conversation(bad),
        lambda: letta.fork_conversation(bad),
        lambda: letta.delete_conversation(bad),
        lambda: letta.retrieve_agent(bad),
        lambda: letta.context_overview(bad),
        lambda: letta.context_overview("agent-1", bad),
        lambda: letta.list_messages(bad),
        lambda: letta.list_messages("default", agent_id=bad),
        lambda: letta.send_message(bad, HELLO),
        lambda: letta.compact(bad),
        lambda: letta.compact("default", CompactionRequest(agent_id=bad)),
        lambda: letta.retrieve_step(bad),
        lambda: letta.retrieve_run(bad),
    ]
    for call in calls:
        with pytest.raises(UnusableArgument, match="is not an id"):
            await call()
    with pytest.raises(UnusableArgument):
        letta.stream_message(bad, HELLO)
    with pytest.raises(UnusableArgument):
        letta.retrieve_stream(bad)
    assert server.requests == []


async def test_the_error_about_a_long_id_shows_only_its_beginning(server: Any) -> None:
    with pytest.raises(UnusableArgument) as caught:
        await server.letta.retrieve_agent("x" * 5000)
    assert len(str(caught.value)) < 150


async def test_a_default_conversation_without_its_agent_is_refused_before_anything_is_sent(server: Any) -> None:
    server.answers_with({})
    letta = server.letta
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: letta.compact("default"),
        lambda: letta.list_messages("default"),
        lambda: letta.fork_conversation("default"),
        lambda: letta.send_message("default", HELLO),
    ]
    for call in calls:
        with pytest.raises(UnusableArgument, match="name the agent's id too"):
            await call()
    with pytest.raises(UnusableArgument, match="name the agent's id too"):
        letta.stream_message("default", HELLO)
    assert server.requests == []

"""Sending, plain and streamed, and the steps and runs that a send leaves."""

from __future__ import annotations

import anyio
import pytest

from tests.conformance.seeding import Seeded, seed_conversation
from tests.conformance.servers import ServerUnderTest
from tests.conformance.waiting import until
from worker.letta.client import Letta
from worker.letta.errors import BadRequest, NotFound, ServerError, Unprocessable
from worker.letta.messages import Message
from worker.letta.models import Run

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def fresh(letta_server: ServerUnderTest) -> Seeded:
    return seed_conversation(letta_server, pairs=0)


async def test_a_plain_send_answers_with_the_reply_the_stop_reason_and_the_usage(letta: Letta, fresh: Seeded) -> None:
    reply = await letta.send_message(fresh.conversation_id, HELLO)
    assert [row.message_type for row in reply.messages if isinstance(row, Message)] == ["assistant_message"]
    assert reply.stop_reason == "end_turn"
    assert reply.usage.context_tokens
    assert reply.usage.step_count == 1


async def test_a_streamed_send_yields_the_reply_the_stop_reason_and_the_usage_but_no_pings(
    letta: Letta, fresh: Seeded
) -> None:
    events = [event async for event in letta.stream_message(fresh.conversation_id, HELLO)]
    assert [event.message_type for event in events] == ["assistant_message", "stop_reason", "usage_statistics"]
    assert events[0].message().text()
    assert events[1].data["stop_reason"] == "end_turn"
    assert events[2].data["context_tokens"] > 0


async def test_the_raw_stream_begins_with_a_ping_and_ends_with_done(
    letta_server: ServerUnderTest, fresh: Seeded
) -> None:
    with (
        letta_server.http() as http,
        http.stream("POST", f"/v1/conversations/{fresh.conversation_id}/messages", json={"messages": HELLO}) as answer,
    ):
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert '"message_type":"ping"' in lines[0].replace(" ", "").removeprefix("data:")
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_send_puts_question_and_answer_into_the_context_and_moves_the_last_message(
    letta: Letta,
    fresh: Seeded,
    streamed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    before = await letta.retrieve_conversation(fresh.conversation_id)
    if streamed:
        assert [event async for event in letta.stream_message(fresh.conversation_id, HELLO)]
    else:
        await letta.send_message(fresh.conversation_id, HELLO)
    after = await letta.retrieve_conversation(fresh.conversation_id)
    assert len(after.in_context_message_ids) == len(before.in_context_message_ids) + 2
    assert before.last_message_at is None
    assert after.last_message_at is not None


async def test_the_last_message_is_the_moment_at_which_the_send_began(
    letta: Letta, letta_server: ServerUnderTest, fresh: Seeded
) -> None:
    """Why it shows a send in flight, whose messages come into the context together only when the reply is there."""
    letta_server.replies_take(2)

    async def begun() -> bool:
        return (await letta.retrieve_conversation(fresh.conversation_id)).last_message_at is not None

    async with anyio.create_task_group() as group:
        group.start_soon(letta.send_message, fresh.conversation_id, HELLO)
        await until(begun)
        during = await letta.retrieve_conversation(fresh.conversation_id)
    after = await letta.retrieve_conversation(fresh.conversation_id)
    assert len(during.in_context_message_ids) == 1
    assert after.last_message_at == during.last_message_at
    assert len(after.in_context_message_ids) == 3


async def test_a_step_names_its_run_and_its_share_of_the_window(letta: Letta, fresh: Seeded) -> None:
    reply = await letta.send_message(fresh.conversation_id, HELLO)
    [message] = [row for row in reply.messages if isinstance(row, Message)]
    step = await letta.retrieve_step(str(message.step_id))
    assert (step.agent_id, step.run_id, step.context_window_limit) == (fresh.agent_id, message.run_id, 16_000)
    assert step.prompt_tokens == reply.usage.prompt_tokens
    assert 0 < (step.usage or 0) < 1


async def test_a_run_of_a_plain_send_knows_no_conversation_and_never_ends(letta: Letta, fresh: Seeded) -> None:
    reply = await letta.send_message(fresh.conversation_id, HELLO)
    [message] = [row for row in reply.messages if isinstance(row, Message)]
    run = await letta.retrieve_run(str(message.run_id))
    assert (run.status, run.conversation_id, run.agent_id) == ("created", None, fresh.agent_id)
    assert run.active
    assert list(await letta.list_runs(conversation_id=fresh.conversation_id)) == []
    assert [row.id for row in await letta.list_runs(agent_id=fresh.agent_id, active=True)] == [run.id]


async def test_a_run_of_a_streamed_send_is_active_while_it_streams_and_completed_after(
    letta: Letta, letta_server: ServerUnderTest, fresh: Seeded
) -> None:
    letta_server.replies_take(2)
    during: list[Run] = []

    async def running() -> bool:
        page = await letta.list_runs(conversation_id=fresh.conversation_id, active=True)
        during[:] = [row for row in page if isinstance(row, Run) and row.status == "running"]
        return bool(during)

    async with anyio.create_task_group() as group:
        group.start_soon(until, running)
        assert [event async for event in letta.stream_message(fresh.conversation_id, HELLO)]
    [run] = during
    assert (run.status, run.conversation_id, run.active) == ("running", fresh.conversation_id, True)
    assert list(await letta.list_runs(conversation_id=fresh.conversation_id, active=True)) == []
    ended = await letta.retrieve_run(run.id)
    assert (ended.status, ended.active) == ("completed", False)
    assert ended.completed_at is not None
    assert ended.created_at is not None
    assert ended.completed_at >= ended.created_at


async def test_an_empty_send_is_refused(letta: Letta, fresh: Seeded) -> None:
    with pytest.raises(Unprocessable, match="must not be empty"):
        await letta.send_message(fresh.conversation_id, [])


async def test_a_send_to_a_conversation_that_never_was_is_not_found(
    letta: Letta, letta_server: ServerUnderTest
) -> None:
    with pytest.raises(NotFound):
        await letta.send_message("conv-00000000-0000-4000-8000-000000000000", HELLO)


async def test_without_redis_there_is_no_background_stream_to_start_or_to_retrieve(letta: Letta, fresh: Seeded) -> None:
    with pytest.raises(ServerError, match="Redis") as start:
        assert not [event async for event in letta.stream_message(fresh.conversation_id, HELLO, background=True)]
    with pytest.raises(ServerError, match="Redis") as retrieval:
        assert not [event async for event in letta.retrieve_stream(fresh.conversation_id)]
    assert (start.value.status, retrieval.value.status) == (503, 503)


async def test_the_list_of_steps_is_broken_and_so_never_asked_for(letta_server: ServerUnderTest) -> None:
    with letta_server.http() as http:
        assert http.get("/v1/steps/").status_code == 400


async def test_what_is_not_there_is_not_found_and_what_is_no_id_is_refused(letta: Letta) -> None:
    nothing = "00000000-0000-4000-8000-000000000000"
    for look in (letta.retrieve_run(f"run-{nothing}"), letta.retrieve_step(f"step-{nothing}")):
        with pytest.raises(NotFound):
            await look
    with pytest.raises(BadRequest):
        await letta.retrieve_run("garbage")
    with pytest.raises(Unprocessable):
        await letta.retrieve_step("garbage")

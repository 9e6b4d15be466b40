"""An agent's default conversation, which no list shows: its messages, its context, its compaction."""

from __future__ import annotations

import pytest

from tests.conformance.seeding import Seeded, say, seed_default, user
from tests.conformance.servers import ServerUnderTest
from worker.contract.compaction import CompactionMode, CompactionRequest, CompactionSettings
from worker.letta.client import DEFAULT, Letta
from worker.letta.errors import BadRequest, NotFound
from worker.letta.messages import Message

pytestmark = pytest.mark.anyio

NOBODY = "agent-00000000-0000-4000-8000-000000000000"


@pytest.fixture
def own(letta_server: ServerUnderTest) -> Seeded:
    """An agent with twenty questions and answers in its default conversation."""
    return seed_default(letta_server)


def sliding(agent_id: str, percentage: float) -> CompactionRequest:
    settings = CompactionSettings(mode=CompactionMode.SLIDING_WINDOW, sliding_window_percentage=percentage)
    return CompactionRequest(agent_id=agent_id, compaction_settings=settings)


async def test_it_is_in_no_list_of_conversations_and_its_context_is_the_agents(letta: Letta, own: Seeded) -> None:
    agent = await letta.retrieve_agent(own.agent_id)
    assert list(await letta.list_conversations(agent_id=own.agent_id)) == []
    assert len(agent.message_ids) == 41


async def test_its_messages_are_walked_forward_once_each(letta: Letta, own: Seeded) -> None:
    agent = await letta.retrieve_agent(own.agent_id)
    for size in (3, 100):
        pages = letta.message_pages(DEFAULT, agent_id=own.agent_id, limit=size)
        assert [row.id async for page in pages for row in page] == agent.message_ids


async def test_its_newest_page_goes_forward_in_itself(letta: Letta, own: Seeded) -> None:
    """Unlike a conversation's, whose newest page begins with the newest."""
    agent = await letta.retrieve_agent(own.agent_id)
    page = await letta.list_messages(DEFAULT, agent_id=own.agent_id, limit=4, order="desc")
    assert [row.id for row in page] == agent.message_ids[-4:]


async def test_its_overview_is_the_agents_without_a_conversation(letta: Letta, own: Seeded) -> None:
    agent = await letta.retrieve_agent(own.agent_id)
    overview = await letta.context_overview(own.agent_id, DEFAULT)
    assert [message.id for message in overview.messages] == agent.message_ids


async def test_the_server_takes_the_word_default_for_an_empty_conversation(
    letta_server: ServerUnderTest, own: Seeded
) -> None:
    """Why the client leaves it out of the overview's query."""
    with letta_server.http() as http:
        answer = http.get(f"/v1/agents/{own.agent_id}/context", params={"conversation_id": "default"})
    assert answer.json()["num_messages"] == 1


async def test_it_is_compacted_as_any_other(letta: Letta, own: Seeded) -> None:
    before = (await letta.retrieve_agent(own.agent_id)).message_ids
    reply = await letta.compact(DEFAULT, sliding(own.agent_id, 0.5))
    system, summary, *kept = (await letta.retrieve_agent(own.agent_id)).message_ids
    assert (reply.response.num_messages_before, reply.response.num_messages_after) == (41, 19)
    assert len(kept) == 17
    assert system == before[0]
    assert summary not in before
    assert kept == before[-17:]


async def test_after_its_compaction_every_message_is_still_walked_once(letta: Letta, own: Seeded) -> None:
    before = (await letta.retrieve_agent(own.agent_id)).message_ids
    await letta.compact(DEFAULT, sliding(own.agent_id, 0.5))
    summary = (await letta.retrieve_agent(own.agent_id)).message_ids[1]
    walk = [row.id async for page in letta.message_pages(DEFAULT, agent_id=own.agent_id, limit=3) for row in page]
    assert walk == [*before, summary]


async def test_the_agents_last_update_moves_with_a_send_and_with_a_compaction(
    letta: Letta, letta_server: ServerUnderTest, own: Seeded
) -> None:
    """Why it is only an upper bound of the last activity: compacting looks like activity too."""
    start = (await letta.retrieve_agent(own.agent_id)).updated_at
    say(letta_server, own, user("one more"))
    sent = (await letta.retrieve_agent(own.agent_id)).updated_at
    await letta.compact(DEFAULT, sliding(own.agent_id, 0.3))
    compacted = (await letta.retrieve_agent(own.agent_id)).updated_at
    assert start is not None
    assert sent is not None
    assert compacted is not None
    assert start < sent < compacted


async def test_its_last_message_is_dated_in_its_newest_page(letta: Letta, own: Seeded) -> None:
    [newest] = await letta.list_messages(DEFAULT, agent_id=own.agent_id, limit=1, order="desc")
    agent = await letta.retrieve_agent(own.agent_id)
    assert isinstance(newest, Message)
    assert newest.id == agent.message_ids[-1]
    assert newest.date is not None
    assert agent.updated_at is not None
    assert abs((agent.updated_at - newest.date).total_seconds()) < 5


async def test_plain_and_streamed_sends_go_into_it(letta: Letta, own: Seeded) -> None:
    await letta.send_message(DEFAULT, [user("plain")], agent_id=own.agent_id)
    events = letta.stream_message(DEFAULT, [user("streamed")], agent_id=own.agent_id)
    assert [event.message_type async for event in events][-1] == "usage_statistics"
    assert len((await letta.retrieve_agent(own.agent_id)).message_ids) == 45


async def test_its_fork_is_a_conversation_of_its_own(letta: Letta, own: Seeded) -> None:
    copy = await letta.fork_conversation(DEFAULT, agent_id=own.agent_id)
    copied = (await letta.retrieve_conversation(copy.id)).in_context_message_ids
    assert copied[1:] == (await letta.retrieve_agent(own.agent_id)).message_ids[1:]
    assert [row.id for row in await letta.list_conversations(agent_id=own.agent_id)] == [copy.id]


async def test_an_agent_that_never_was_is_not_found_and_what_is_no_agents_id_is_refused(letta: Letta) -> None:
    with pytest.raises(NotFound):
        await letta.compact(DEFAULT, sliding(NOBODY, 0.3))
    with pytest.raises(NotFound):
        await letta.list_messages(DEFAULT, agent_id=NOBODY)
    with pytest.raises(BadRequest) as refusal:
        await letta.compact(DEFAULT, sliding("garbage", 0.3))
    assert not refusal.value.nothing_to_compact


async def test_without_an_agent_the_server_lists_nothing_and_finds_nothing_to_compact(
    letta_server: ServerUnderTest,
) -> None:
    """Why the client insists on the agent's id: the list would say that nothing was ever said."""
    with letta_server.http() as http:
        messages = http.get("/v1/conversations/default/messages")
        compaction = http.post("/v1/conversations/default/compact", json={})
    assert (messages.status_code, messages.json()) == (200, [])
    assert compaction.status_code == 404

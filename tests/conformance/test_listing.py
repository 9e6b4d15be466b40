"""Lists of conversations and agents, page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.conformance.seeding import create_agent, create_conversation, seed_conversation
from tests.conformance.servers import ServerUnderTest
from worker.letta.client import ConversationOrder, Letta, Order
from worker.letta.errors import NotFound, ServerError, Unprocessable

pytestmark = pytest.mark.anyio

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = (1, 2, 3, 5, 8, 50)

COMPLETE_ORDERS: list[tuple[ConversationOrder, Order]] = [
    ("created_at", "asc"),
    ("created_at", "desc"),
    ("last_message_at", "desc"),
    ("last_run_completion", "desc"),
]
"""The orders in which the real server's cursors reach every conversation."""


@pytest.fixture(scope="module")
def family(letta_server: ServerUnderTest) -> tuple[str, list[str]]:
    """An agent with eight conversations: three of the same age, two of another, three in which nothing was said."""
    agent_id = create_agent(letta_server)
    ages = [LONG_AGO, None, LONG_AGO, LONG_AGO + timedelta(days=9), None, LONG_AGO, LONG_AGO + timedelta(days=9), None]
    made = [
        seed_conversation(letta_server, agent_id=agent_id, pairs=1 if age else 0, last_message_at=age) for age in ages
    ]
    return agent_id, [one.conversation_id for one in made]


async def listed(letta: Letta, agent_id: str, order_by: ConversationOrder, order: Order, size: int) -> list[str | None]:
    pages = letta.conversation_pages(agent_id=agent_id, limit=size, order=order, order_by=order_by)
    return [row.id async for page in pages for row in page]


@pytest.mark.parametrize(("order_by", "order"), COMPLETE_ORDERS)
async def test_pages_of_every_size_yield_each_conversation_once_and_in_one_order(
    letta: Letta, family: tuple[str, list[str]], order_by: ConversationOrder, order: Order
) -> None:
    agent_id, conversations = family
    walks = [await listed(letta, agent_id, order_by, order, size) for size in SIZES]
    assert sorted(map(str, walks[0])) == sorted(conversations)
    assert walks == [walks[0]] * len(SIZES)


async def test_by_last_message_the_newest_come_first_and_those_without_one_last(
    letta: Letta, family: tuple[str, list[str]]
) -> None:
    agent_id, conversations = family
    walk = await listed(letta, agent_id, "last_message_at", "desc", 3)
    assert set(walk[:2]) == {conversations[3], conversations[6]}
    assert set(walk[2:5]) == {conversations[0], conversations[2], conversations[5]}
    assert set(walk[5:]) == {conversations[1], conversations[4], conversations[7]}


async def test_by_last_message_forward_small_pages_miss_those_without_one(
    letta: Letta, family: tuple[str, list[str]]
) -> None:
    """Why a scan goes backwards: the server's cursor drops what its order puts last."""
    agent_id, conversations = family
    assert len(await listed(letta, agent_id, "last_message_at", "asc", 2)) < len(conversations)


async def test_a_listed_conversation_hides_its_context_and_a_retrieved_one_shows_it(
    letta: Letta, family: tuple[str, list[str]]
) -> None:
    agent_id, conversations = family
    page = await letta.list_conversations(agent_id=agent_id)
    rows = {row.id: row for row in page if not hasattr(row, "error")}
    row = rows[conversations[0]]
    retrieved = await letta.retrieve_conversation(conversations[0])
    assert row.in_context_message_ids == []
    assert len(retrieved.in_context_message_ids) == 3
    assert row.last_message_at == retrieved.last_message_at == LONG_AGO
    assert row.knows_last_message


async def test_a_conversation_in_which_nothing_was_said_has_no_last_message_and_its_system_message_in_context(
    letta: Letta, family: tuple[str, list[str]]
) -> None:
    retrieved = await letta.retrieve_conversation(family[1][1])
    assert retrieved.last_message_at is None
    assert retrieved.knows_last_message
    assert len(retrieved.in_context_message_ids) == 1


async def test_without_an_agent_all_agents_conversations_are_listed(
    letta: Letta, letta_server: ServerUnderTest, family: tuple[str, list[str]]
) -> None:
    other = create_conversation(letta_server, create_agent(letta_server))
    everything = {row.id async for page in letta.conversation_pages(limit=500) for row in page}
    assert {other, *family[1]} <= everything


async def test_a_walk_goes_on_past_a_conversation_that_was_deleted_meanwhile(
    letta: Letta, letta_server: ServerUnderTest
) -> None:
    agent_id = create_agent(letta_server)
    made = {seed_conversation(letta_server, agent_id=agent_id, pairs=1).conversation_id for _ in range(4)}
    walk: list[str] = []
    async for page in letta.conversation_pages(agent_id=agent_id, limit=1):
        walk += [str(row.id) for row in page]
        if len(walk) == 2:
            await letta.delete_conversation(walk[-1])
    assert set(walk) == made


async def test_a_deleted_conversation_is_listed_no_more(letta: Letta, letta_server: ServerUnderTest) -> None:
    seeded = seed_conversation(letta_server, pairs=1)
    await letta.delete_conversation(seeded.conversation_id)
    assert list(await letta.list_conversations(agent_id=seeded.agent_id)) == []


@pytest.mark.parametrize("order_by", ["created_at", "last_message_at"])
@pytest.mark.parametrize("cursor", ["conv-00000000-0000-4000-8000-000000000000", "no-id-at-all"])
async def test_a_cursor_that_never_was_is_not_found(letta: Letta, order_by: ConversationOrder, cursor: str) -> None:
    with pytest.raises(NotFound):
        await letta.list_conversations(order_by=order_by, after=cursor)


async def test_by_last_run_a_cursor_that_never_was_is_ignored(letta: Letta, family: tuple[str, list[str]]) -> None:
    page = await letta.list_conversations(agent_id=family[0], order_by="last_run_completion", after="no-id-at-all")
    assert len(page) == len(family[1])


async def test_a_limit_of_nothing_yields_nothing_and_a_negative_one_fails(
    letta: Letta, family: tuple[str, list[str]]
) -> None:
    assert list(await letta.list_conversations(agent_id=family[0], limit=0)) == []
    with pytest.raises(ServerError) as failure:
        await letta.list_conversations(agent_id=family[0], limit=-1)
    assert failure.value.detail == "A database error occurred."


async def test_an_order_that_does_not_exist_is_refused_with_the_ones_that_do(letta: Letta) -> None:
    with pytest.raises(Unprocessable, match="last_run_completion"):
        await letta.list_conversations(order_by="size")  # type: ignore[arg-type]


async def test_agents_are_walked_once_each_oldest_first(letta: Letta, letta_server: ServerUnderTest) -> None:
    made = [create_agent(letta_server) for _ in range(3)]
    walk = [str(row.id) async for page in letta.agent_pages(limit=2) for row in page]
    assert [agent_id for agent_id in walk if agent_id in made] == made
    assert len(walk) == len(set(walk))


async def test_an_agent_is_listed_with_its_window_its_default_context_and_its_settings(
    letta: Letta, letta_server: ServerUnderTest
) -> None:
    agent_id = create_agent(letta_server, window=12_345)
    [listed_agent] = [
        row for row in await letta.list_agents(limit=1000) if row.id == agent_id and not hasattr(row, "error")
    ]
    retrieved = await letta.retrieve_agent(agent_id)
    assert listed_agent.window == retrieved.window == 12_345
    assert len(listed_agent.message_ids) == 1
    assert listed_agent.message_ids == retrieved.message_ids
    settings = listed_agent.compaction_settings or {}
    assert (settings["mode"], settings["sliding_window_percentage"]) == ("sliding_window", 0.3)

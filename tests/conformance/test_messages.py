"""The list of a conversation's messages, before and after a compaction has shuffled it."""

from __future__ import annotations

import pytest

from tests.conformance.seeding import Seeded, say, seed_conversation, user
from tests.conformance.servers import ServerUnderTest
from worker.contract.compaction import CompactionMode, CompactionRequest, CompactionSettings
from worker.letta.client import Letta, Order
from worker.letta.errors import NotFound
from worker.letta.messages import Message

pytestmark = pytest.mark.anyio

HALF = CompactionRequest(
    compaction_settings=CompactionSettings(mode=CompactionMode.SLIDING_WINDOW, sliding_window_percentage=0.5)
)


async def walked(letta: Letta, seeded: Seeded, size: int, order: Order) -> list[str | None]:
    pages = letta.message_pages(seeded.conversation_id, agent_id=seeded.agent_id, limit=size, order=order)
    return [row.id async for page in pages for row in page]


@pytest.mark.parametrize("size", [1, 2, 7, 41, 100])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_every_size_yield_each_message_once(
    letta: Letta, letta_server: ServerUnderTest, size: int, order: Order
) -> None:
    seeded = seed_conversation(letta_server, pairs=5)
    ids = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    walk = await walked(letta, seeded, size, order)
    assert walk == (ids if order == "asc" else ids[::-1])


async def test_a_page_goes_newest_first_unless_told_otherwise(letta: Letta, seeded: Seeded) -> None:
    ids = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    page = await letta.list_messages(seeded.conversation_id, limit=5)
    assert [row.id for row in page] == ids[:-6:-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_after_means_later_and_before_means_earlier_whatever_the_order(
    letta: Letta, seeded: Seeded, order: Order
) -> None:
    ids = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    later = await letta.list_messages(seeded.conversation_id, after=ids[10], order=order)
    earlier = await letta.list_messages(seeded.conversation_id, before=ids[10], order=order)
    assert {row.id for row in later} == set(ids[11:])
    assert {row.id for row in earlier} == set(ids[:10])


async def test_an_item_says_who_spoke_when_and_what(letta: Letta, letta_server: ServerUnderTest) -> None:
    seeded = seed_conversation(letta_server, pairs=0)
    say(letta_server, seeded, user("Grüße, 你好 🎉"))
    rows = [row for row in await letta.list_messages(seeded.conversation_id, order="asc") if isinstance(row, Message)]
    assert [row.message_type for row in rows] == ["system_message", "user_message", "assistant_message"]
    assert rows[1].text() == "Grüße, 你好 🎉"
    assert all(row.date is not None for row in rows)
    assert rows[1].run_id == rows[2].run_id
    assert rows[1].step_id == rows[2].step_id


async def test_after_the_last_in_context_message_comes_exactly_what_is_new(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded
) -> None:
    last = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids[-1]
    assert list(await letta.list_messages(seeded.conversation_id, order="asc", after=last)) == []
    say(letta_server, seeded, user("something new"))
    new = await letta.list_messages(seeded.conversation_id, order="asc", after=last)
    assert [row.message_type for row in new if isinstance(row, Message)] == ["user_message", "assistant_message"]


@pytest.mark.parametrize("compactions", [1, 2])
async def test_after_a_compaction_what_is_new_comes_with_evicted_messages_mixed_in(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded, compactions: int
) -> None:
    """Why what is new is told by its id: a compaction numbers what it keeps anew, what it evicts keeps its places."""
    known = set((await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids)
    for _ in range(compactions):
        await letta.compact(seeded.conversation_id, HALF)
    last = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids[-1]
    evicted = {row.id for row in await letta.list_messages(seeded.conversation_id, order="asc", after=last)}
    assert evicted
    assert evicted <= known
    say(letta_server, seeded, user("something new"))
    later = await letta.list_messages(seeded.conversation_id, order="asc", after=last)
    new = [row for row in later if isinstance(row, Message) and row.id not in known]
    assert evicted < {row.id for row in later}
    assert [row.message_type for row in new] == ["user_message", "assistant_message"]


async def test_after_a_compaction_one_large_page_has_every_message_ever(letta: Letta, seeded: Seeded) -> None:
    before = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    await letta.compact(seeded.conversation_id, HALF)
    after = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    page = await letta.list_messages(seeded.conversation_id, limit=1000, order="asc")
    assert {row.id for row in page} == set(before) | set(after)


async def test_after_a_compaction_small_pages_miss_messages(letta: Letta, seeded: Seeded) -> None:
    """Why nothing is ever concluded from a walk in small pages: kept and evicted messages share their places."""
    await letta.compact(seeded.conversation_id, HALF)
    everything = await letta.list_messages(seeded.conversation_id, limit=1000)
    assert len(await walked(letta, seeded, 1, "asc")) < len(everything)


async def test_a_cursor_that_never_was_is_ignored(letta: Letta, seeded: Seeded) -> None:
    everything = await letta.list_messages(seeded.conversation_id, order="asc")
    page = await letta.list_messages(
        seeded.conversation_id, order="asc", after="message-00000000-0000-4000-8000-000000000000"
    )
    assert [row.id for row in page] == [row.id for row in everything]


async def test_a_conversation_that_is_gone_or_never_was_has_no_messages_and_that_is_no_error(
    letta: Letta, letta_server: ServerUnderTest
) -> None:
    seeded = seed_conversation(letta_server, pairs=1)
    await letta.delete_conversation(seeded.conversation_id)
    assert list(await letta.list_messages(seeded.conversation_id)) == []
    assert list(await letta.list_messages("conv-00000000-0000-4000-8000-000000000000")) == []
    with pytest.raises(NotFound):
        await letta.retrieve_conversation(seeded.conversation_id)

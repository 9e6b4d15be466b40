"""What happens when two things happen to one conversation at once: the server takes no lock."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from tests.conformance.seeding import Seeded, say, user
from tests.conformance.servers import KEY, ServerUnderTest
from tests.conformance.waiting import until
from worker.contract.compaction import CompactionMode, CompactionRequest, CompactionResponse, CompactionSettings
from worker.letta.client import Letta
from worker.letta.errors import LettaTimeout
from worker.letta.timeouts import Timeouts
from worker.letta.transport import open_http

pytestmark = pytest.mark.anyio

THIRD = CompactionRequest(
    compaction_settings=CompactionSettings(mode=CompactionMode.SLIDING_WINDOW, sliding_window_percentage=0.3)
)
LEFT = 27
THINKING_SECONDS = 2.5


async def ids_of(letta: Letta, seeded: Seeded) -> list[str]:
    return (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids


async def test_after_the_client_gave_up_the_server_carries_on_and_commits(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded
) -> None:
    letta_server.summaries_take(THINKING_SECONDS)
    before, paid = await ids_of(letta, seeded), letta_server.summaries_paid()
    async with open_http(letta_server.base_url, KEY) as http:
        hasty = Letta(http, Timeouts(compact=0.5))
        with pytest.raises(LettaTimeout) as timeout:
            await hasty.compact(seeded.conversation_id, THIRD)
    assert not timeout.value.outcome_known
    assert await ids_of(letta, seeded) == before

    async def committed() -> bool:
        return len(await ids_of(letta, seeded)) == LEFT

    await until(committed)
    assert letta_server.summaries_paid() == paid + 1


async def test_two_compactions_at_once_both_succeed_and_nobody_can_say_whose_summary_stays(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded
) -> None:
    """Why one open row a conversation is the lock: each marks what it does not know as out of context.

    Where both commit at the same moment, a real server is left with one summary, with both, or with none at all.
    """
    letta_server.summaries_take(THINKING_SECONDS)
    before, paid = await ids_of(letta, seeded), letta_server.summaries_paid()
    replies: list[CompactionResponse] = []

    async def compact() -> None:
        replies.append((await letta.compact(seeded.conversation_id, THIRD)).response)

    async with anyio.create_task_group() as group:
        group.start_soon(compact)
        group.start_soon(compact)
    after = await ids_of(letta, seeded)
    assert [(reply.num_messages_before, reply.num_messages_after) for reply in replies] == [(41, LEFT)] * 2
    summaries = [one for one in after if one not in before]
    assert len(after) - len(summaries) == LEFT - 1
    assert len(summaries) == 1 if letta_server.kind == "sandbox" else len(summaries) <= 2
    assert letta_server.summaries_paid() == paid + 2


async def test_a_message_that_arrives_during_a_compaction_drops_out_of_the_context_but_stays_in_the_list(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded
) -> None:
    letta_server.summaries_take(THINKING_SECONDS)
    before = await ids_of(letta, seeded)
    meanwhile: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(letta.compact, seeded.conversation_id, THIRD)
        await anyio.sleep(0.8)  # until it has read its context, which nothing outside shows
        await anyio.to_thread.run_sync(partial(say, letta_server, seeded, user("did you get this?")))
        meanwhile += await ids_of(letta, seeded)
    after = await ids_of(letta, seeded)
    arrived = meanwhile[len(before) :]
    assert len(arrived) == 2
    assert len(after) == LEFT
    assert not set(arrived) & set(after)
    listed = [row.id for row in await letta.list_messages(seeded.conversation_id, order="asc", after=after[-1])]
    assert listed[-2:] == arrived


async def test_a_compaction_that_ends_during_a_send_is_undone_by_the_reply(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded
) -> None:
    """Why usage is looked at again after a compaction: the reply writes back the context that it was made from."""
    letta_server.replies_take(THINKING_SECONDS)
    before, last = (
        await ids_of(letta, seeded),
        (await letta.retrieve_conversation(seeded.conversation_id)).last_message_at,
    )

    async def sending() -> bool:
        return (await letta.retrieve_conversation(seeded.conversation_id)).last_message_at != last

    async with anyio.create_task_group() as group:
        group.start_soon(letta.send_message, seeded.conversation_id, [user("think about this")])
        await until(sending)
        await anyio.sleep(0.8)  # until it has read its context too, which nothing outside shows
        reply = await letta.compact(seeded.conversation_id, THIRD)
        assert len(await ids_of(letta, seeded)) == reply.response.num_messages_after == LEFT
    after = await ids_of(letta, seeded)
    assert after[: len(before)] == before
    assert len(after) == len(before) + 2

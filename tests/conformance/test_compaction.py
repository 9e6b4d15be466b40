"""What a compaction leaves, at every percentage: the table that the policy's arithmetic rests on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.seeding import Seeded, create_agent, say, seed_conversation, user
from tests.conformance.servers import ServerUnderTest
from worker.contract.compaction import CompactionMode, CompactionRequest, CompactionResponse, CompactionSettings
from worker.letta.client import Letta
from worker.letta.errors import BadRequest
from worker.letta.models import Unreadable
from worker.letta.summaries import summary_text

pytestmark = pytest.mark.anyio

SLIDING = CompactionMode.SLIDING_WINDOW
BEFORE = 41
LEFT = {0.05: 37, 0.1: 35, 0.3: 27, 0.5: 19, 0.7: 11, 0.85: 5, 0.9: 2, 1.0: 2}
"""Messages that are left of 41, by `sliding_window_percentage`; 2 is a full wipe."""


def sliding(percentage: float, **more: Any) -> CompactionRequest:
    return CompactionRequest(
        compaction_settings=CompactionSettings(mode=SLIDING, sliding_window_percentage=percentage, **more)
    )


async def ids_of(letta: Letta, seeded: Seeded) -> list[str]:
    return (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids


async def compact(letta: Letta, seeded: Seeded, request: CompactionRequest | None = None) -> CompactionResponse:
    return (await letta.compact(seeded.conversation_id, request)).response


@pytest.mark.parametrize(("percentage", "left"), LEFT.items())
async def test_a_sliding_window_leaves_what_the_table_says(
    letta: Letta, seeded: Seeded, percentage: float, left: int
) -> None:
    reply = await compact(letta, seeded, sliding(percentage))
    assert (reply.num_messages_before, reply.num_messages_after) == (BEFORE, left)
    assert len(await ids_of(letta, seeded)) == left


async def test_mode_all_leaves_the_system_message_and_the_summary(letta: Letta, seeded: Seeded) -> None:
    before = await ids_of(letta, seeded)
    request = CompactionRequest(compaction_settings=CompactionSettings(mode=CompactionMode.ALL))
    reply = await compact(letta, seeded, request)
    after = await ids_of(letta, seeded)
    assert (reply.num_messages_before, reply.num_messages_after) == (BEFORE, 2)
    assert after[0] == before[0]
    assert after[1] not in before


async def test_a_sliding_window_keeps_the_system_message_and_the_newest_messages_around_one_new_summary(
    letta: Letta, seeded: Seeded
) -> None:
    before = await ids_of(letta, seeded)
    await compact(letta, seeded, sliding(0.5))
    system, summary, *kept = await ids_of(letta, seeded)
    assert system == before[0]
    assert summary not in before
    assert kept == before[-len(kept) :]


async def test_the_summary_is_listed_as_a_message_with_the_words_of_the_response(letta: Letta, seeded: Seeded) -> None:
    reply = await compact(letta, seeded, sliding(0.3))
    summary_id = (await ids_of(letta, seeded))[1]
    page = await letta.list_messages(seeded.conversation_id, limit=1000)
    [listed] = [row for row in page if row.id == summary_id]
    assert not isinstance(listed, Unreadable)
    assert summary_text(listed) == reply.summary
    assert "lorem ipsum" in reply.summary


async def test_a_compaction_frees_tokens_and_the_overview_shows_the_summary(letta: Letta, seeded: Seeded) -> None:
    before = await letta.context_overview(seeded.agent_id, seeded.conversation_id)
    await compact(letta, seeded, sliding(0.5))
    after = await letta.context_overview(seeded.agent_id, seeded.conversation_id)
    assert after.context_window_size_current < before.context_window_size_current
    assert [message.role for message in after.messages[:3]] == ["system", "summary", "assistant"]


async def test_a_compaction_moves_neither_the_last_message_nor_the_last_update(letta: Letta, seeded: Seeded) -> None:
    before = await letta.retrieve_conversation(seeded.conversation_id)
    await compact(letta, seeded, sliding(0.3))
    after = await letta.retrieve_conversation(seeded.conversation_id)
    assert (after.last_message_at, after.updated_at) == (before.last_message_at, before.updated_at)


async def test_evicted_messages_stay_in_the_list(letta: Letta, seeded: Seeded) -> None:
    before = await ids_of(letta, seeded)
    await compact(letta, seeded, sliding(0.7))
    listed = {row.id for row in await letta.list_messages(seeded.conversation_id, limit=1000)}
    assert set(before) <= listed
    assert len(listed) == BEFORE + 1


async def test_no_settings_mean_the_agents_own(letta: Letta, seeded: Seeded) -> None:
    reply = await compact(letta, seeded)
    assert reply.num_messages_after == LEFT[0.3]


async def test_named_settings_override_only_themselves(letta: Letta, letta_server: ServerUnderTest) -> None:
    own = {"mode": "sliding_window", "sliding_window_percentage": 0.7, "model": "openai-proxy/gpt-4o-mini"}
    agent_id = create_agent(letta_server, compaction_settings=own)
    seeded = seed_conversation(letta_server, agent_id=agent_id)
    reply = await compact(letta, seeded, CompactionRequest(compaction_settings=CompactionSettings(clip_chars=40)))
    assert reply.num_messages_after == LEFT[0.7]


async def test_an_unknown_model_handle_is_no_error(letta: Letta, seeded: Seeded) -> None:
    reply = await compact(letta, seeded, sliding(0.3, model="openai/no-such-model"))
    assert reply.num_messages_after == LEFT[0.3]


async def test_a_summary_is_clipped_with_a_mark(letta: Letta, seeded: Seeded) -> None:
    reply = await compact(letta, seeded, sliding(0.3, clip_chars=25))
    assert reply.summary[25:] == "... [summary truncated to fit]"


async def test_a_second_compaction_takes_the_first_ones_summary_in(letta: Letta, seeded: Seeded) -> None:
    await compact(letta, seeded, sliding(0.3))
    first = await ids_of(letta, seeded)
    reply = await compact(letta, seeded, sliding(0.3))
    second = await ids_of(letta, seeded)
    assert reply.num_messages_after == len(second) < len(first)
    assert first[1] not in second
    assert second[2:] == first[-len(second[2:]) :]


async def test_what_cannot_be_made_shorter_is_refused_and_paid_for(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded
) -> None:
    await compact(letta, seeded, sliding(0.5))
    before, paid = await ids_of(letta, seeded), letta_server.summaries_paid()
    with pytest.raises(BadRequest) as refusal:
        # So little that only the last summary would go, and a new one come.
        await compact(letta, seeded, sliding(0.05))
    assert refusal.value.nothing_to_compact
    assert refusal.value.outcome_known
    assert await ids_of(letta, seeded) == before
    assert letta_server.summaries_paid() == paid + 1


async def test_a_conversation_in_which_nothing_was_said_is_refused(letta: Letta, letta_server: ServerUnderTest) -> None:
    seeded = seed_conversation(letta_server, pairs=0)
    with pytest.raises(BadRequest) as refusal:
        await compact(letta, seeded, sliding(0.3))
    assert refusal.value.nothing_to_compact


async def test_a_conversation_goes_on_after_its_compaction(
    letta: Letta, letta_server: ServerUnderTest, seeded: Seeded
) -> None:
    await compact(letta, seeded, sliding(0.5))
    kept = await ids_of(letta, seeded)
    say(letta_server, seeded, user("and now?"))
    after = await ids_of(letta, seeded)
    assert after[: len(kept)] == kept
    assert len(after) == len(kept) + 2


async def test_a_fork_is_a_copy_that_a_compaction_does_not_touch(letta: Letta, seeded: Seeded) -> None:
    before = await ids_of(letta, seeded)
    copy = Seeded(seeded.agent_id, (await letta.fork_conversation(seeded.conversation_id)).id)
    copied = await ids_of(letta, copy)
    assert copied[1:] == before[1:]
    assert copied[0] != before[0]
    await compact(letta, seeded, sliding(0.9))
    assert await ids_of(letta, copy) == copied


async def test_a_small_window_makes_the_server_evict_more_than_was_asked_for(
    letta: Letta, letta_server: ServerUnderTest
) -> None:
    roomy = seed_conversation(letta_server, window=16_000, text_chars=600)
    tight = seed_conversation(letta_server, window=7_600, text_chars=600)
    counts = [(await compact(letta, one, sliding(0.1))).num_messages_after for one in (roomy, tight)]
    assert counts == [35, 31]

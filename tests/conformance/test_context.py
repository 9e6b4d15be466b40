"""The context overview: what it counts, and what it does not tell."""

from __future__ import annotations

import json
import math

import pytest

from tests.conformance.seeding import Seeded, create_agent, say, seed_conversation, user
from tests.conformance.servers import ServerUnderTest
from worker.letta.client import Letta
from worker.letta.errors import NotFound
from worker.letta.messages import Message

pytestmark = pytest.mark.anyio

NOBODYS_CONVERSATION = "conv-00000000-0000-4000-8000-000000000000"


async def test_the_overview_counts_the_context_of_one_conversation(letta: Letta, seeded: Seeded) -> None:
    overview = await letta.context_overview(seeded.agent_id, seeded.conversation_id)
    ids = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    assert overview.context_window_size_max == 16_000
    assert overview.num_messages == len(ids) == 41
    assert [message.id for message in overview.messages[1:]] == ids[1:]
    assert [message.role for message in overview.messages[:4]] == ["system", "user", "assistant", "user"]


async def test_the_first_message_is_the_agents_system_message_not_the_conversations(
    letta: Letta, seeded: Seeded
) -> None:
    overview = await letta.context_overview(seeded.agent_id, seeded.conversation_id)
    agent = await letta.retrieve_agent(seeded.agent_id)
    ids = (await letta.retrieve_conversation(seeded.conversation_id)).in_context_message_ids
    assert overview.messages[0].id == agent.message_ids[0] != ids[0]


async def test_the_size_is_the_sum_of_its_parts(letta: Letta, seeded: Seeded) -> None:
    overview = await letta.context_overview(seeded.agent_id, seeded.conversation_id)
    parts = [value for name, value in overview if name.startswith("num_tokens_")]
    assert overview.context_window_size_current == sum(parts)
    assert overview.num_tokens_messages > overview.num_tokens_system > 0


@pytest.mark.parametrize(
    "text",
    ["lorem ipsum " * 30, "Grüße aus Zürich, 你好世界 привет 🎉 " * 20, '{"key": "value\\n"}\n\t' * 40, "ok"],
    ids=["english", "unicode", "json", "short"],
)
async def test_the_messages_count_a_quarter_of_their_escaped_json(
    letta: Letta, letta_server: ServerUnderTest, text: str
) -> None:
    """What an estimate from the message list must do to come out at the server's own figure."""
    seeded = seed_conversation(letta_server, pairs=0)
    for _ in range(3):
        say(letta_server, seeded, user(text))
    overview = await letta.context_overview(seeded.agent_id, seeded.conversation_id)
    rows = [row for row in await letta.list_messages(seeded.conversation_id, order="asc") if isinstance(row, Message)]
    roles = {"user_message": "user", "assistant_message": "assistant"}
    said = [{"content": row.text(), "role": roles[row.message_type]} for row in rows[1:]]
    assert overview.num_tokens_messages == pytest.approx(math.ceil(len(json.dumps(said)) / 4), rel=0.01)


async def test_a_conversation_that_is_gone_or_never_was_looks_empty(letta: Letta, seeded: Seeded) -> None:
    """Why the overview alone never decides: a deleted conversation is not found only when it is retrieved."""
    await letta.delete_conversation(seeded.conversation_id)
    for conversation_id in (seeded.conversation_id, NOBODYS_CONVERSATION):
        overview = await letta.context_overview(seeded.agent_id, conversation_id)
        assert overview.num_messages == 1
        with pytest.raises(NotFound):
            await letta.retrieve_conversation(conversation_id)


async def test_another_agent_lends_its_own_window(letta: Letta, letta_server: ServerUnderTest, seeded: Seeded) -> None:
    other = create_agent(letta_server, window=32_000)
    overview = await letta.context_overview(other, seeded.conversation_id)
    assert (overview.context_window_size_max, overview.num_messages) == (32_000, 41)


async def test_an_unknown_agent_has_no_overview(letta: Letta, seeded: Seeded) -> None:
    with pytest.raises(NotFound):
        await letta.context_overview("agent-00000000-0000-4000-8000-000000000000", seeded.conversation_id)

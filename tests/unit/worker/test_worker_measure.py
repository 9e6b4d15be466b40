"""Measuring a conversation: by the server's own count, or by its messages, and which of the two is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.fakeletta import AGENT, CONVERSATION, FakeLetta
from worker.letta.errors import Forbidden, LettaProtocolError, NotFound, RateLimited, ServerError, Unauthorized
from worker.measure import Ref, Unmeasurable, measure
from worker.policy.snapshot import Sighting, Snapshot, UsageSource

pytestmark = pytest.mark.anyio

HERE, DEFAULT = Ref(AGENT, CONVERSATION), Ref(AGENT, "default")
LISTED = Sighting(last_message_at=datetime(2026, 11, 23, 1, 0, tzinfo=UTC))
UNKNOWN = Sighting(activity_known=False)


@pytest.fixture
def server() -> FakeLetta:
    return FakeLetta()


async def measured(server: FakeLetta, ref: Ref = HERE, sighting: Sighting = LISTED) -> Snapshot:
    async with server.client() as letta:
        return await measure(letta, ref, sighting)


def shown(id_: str, role: str, text: str = "hello", minute: int = 0, **fields: Any) -> dict[str, Any]:
    """A message as the overview shows it."""
    content = [{"type": "text", "text": text}]
    return {"id": id_, "role": role, "content": content, "created_at": f"2026-11-23T01:{minute:02}:00Z", **fields}


def listed(id_: str, kind: str, text: str = "hello", minute: int = 0, **fields: Any) -> dict[str, Any]:
    """A message as the list gives it."""
    return {"id": id_, "message_type": kind, "date": f"2026-11-23T01:{minute:02}:00+00:00", "content": text, **fields}


DIALOGUE = [
    shown("sys", "system", "You are." * 50),
    shown("sum", "summary", "What was said." * 50, minute=40),
    shown("m1", "user", "x" * 1_000, minute=1),
    shown("m2", "assistant", "y" * 3_000, minute=2),
]

ROWS = [
    listed("sys", "system_message", "s" * 398),
    listed("m1", "user_message", "x" * 798, minute=1),
    listed("m2", "assistant_message", "y" * 1_198, minute=2),
]


class TestOverview:
    """The server's own count."""

    async def test_one_request_is_enough(self, server: FakeLetta) -> None:
        server.overview(*DIALOGUE)
        found = await measured(server)
        assert found.source is UsageSource.CONTEXT_OVERVIEW
        assert (found.window, found.tokens, found.tokens_fixed, found.usage) == (16_000, 12_000, 590, 0.75)
        assert found.sighting == LISTED
        assert server.asked == [f"GET /v1/agents/{AGENT}/context?conversation_id={CONVERSATION}"]

    async def test_the_servers_sum_is_shared_out_by_size_and_the_system_message_is_fixed(
        self, server: FakeLetta
    ) -> None:
        server.overview(*DIALOGUE)
        found = (await measured(server)).messages
        assert [(one.id, one.role) for one in found] == [
            ("sys", "system"),
            ("sum", "summary"),
            ("m1", "user"),
            ("m2", "assistant"),
        ]
        assert found[0].tokens == 0
        assert abs(sum(one.tokens for one in found) - 11_410) <= 2
        assert found[3].tokens > 2 * found[2].tokens

    async def test_the_newest_message_is_no_summary(self, server: FakeLetta) -> None:
        server.overview(*DIALOGUE)
        assert (await measured(server)).newest_at == datetime(2026, 11, 23, 1, 2, tzinfo=UTC)

    async def test_an_approval_that_waits_is_seen(self, server: FakeLetta) -> None:
        server.overview(*DIALOGUE, shown("m3", "approval", "", tool_calls=[{"id": "c1", "type": "function"}]))
        assert (await measured(server)).messages[-1].asks_approval

    async def test_a_default_conversation_is_measured_without_naming_one(self, server: FakeLetta) -> None:
        server.overview(*DIALOGUE)
        found = await measured(server, DEFAULT, UNKNOWN)
        assert server.asked == [f"GET /v1/agents/{AGENT}/context"]
        assert found.sighting == replace(UNKNOWN, last_message_at=found.newest_at)

    async def test_a_list_that_told_the_activity_is_believed_before_the_messages(self, server: FakeLetta) -> None:
        server.overview(*DIALOGUE)
        assert (await measured(server)).sighting.last_message_at == LISTED.last_message_at

    async def test_an_overview_without_messages_is_completed_from_the_list(self, server: FakeLetta) -> None:
        server.overview(num_messages=3)
        server.conversation("sys", "m1", "m2")
        server.messages(*ROWS)
        found = await measured(server)
        assert (found.source, found.tokens) == (UsageSource.CONTEXT_OVERVIEW, 12_000)
        assert [one.id for one in found.messages] == ["sys", "m1", "m2"]

    async def test_an_overview_with_a_message_that_cannot_be_read_is_completed_from_the_list(
        self, server: FakeLetta
    ) -> None:
        server.overview(*DIALOGUE, {"role": "assistant"})
        server.conversation("sys", "m1", "m2")
        server.messages(*ROWS)
        assert [one.id for one in (await measured(server)).messages] == ["sys", "m1", "m2"]

    async def test_a_deleted_conversation_that_looks_empty_is_told_from_an_empty_one(self, server: FakeLetta) -> None:
        server.overview(shown("sys", "system"))
        with pytest.raises(NotFound):
            await measured(server)
        server.conversation("sys")
        assert len((await measured(server)).messages) == 1

    async def test_an_empty_default_conversation_needs_no_second_question(self, server: FakeLetta) -> None:
        server.overview(shown("sys", "system"))
        assert len((await measured(server, DEFAULT, UNKNOWN)).messages) == 1
        assert len(server.asked) == 1

    @pytest.mark.parametrize("window", [0, -1])
    async def test_a_window_that_is_none_cannot_be_measured_against(self, server: FakeLetta, window: int) -> None:
        server.overview(*DIALOGUE, context_window_size_max=window)
        with pytest.raises(Unmeasurable, match=f"gives {window} tokens as the window of {AGENT}"):
            await measured(server)

    @pytest.mark.parametrize(
        ("status", "error"), [(401, Unauthorized), (403, Forbidden), (429, RateLimited), (500, ServerError)]
    )
    async def test_an_error_is_no_reason_to_estimate(
        self, server: FakeLetta, status: int, error: type[Exception]
    ) -> None:
        server.fail(f"/v1/agents/{AGENT}/context", status)
        with pytest.raises(error):
            await measured(server)
        assert len(server.asked) == 1

    @pytest.mark.parametrize(
        "garbage", ["<html>gateway</html>", '{"context_window_size_max": 16000, "context_win', "[]", "{}", '"yes"']
    )
    async def test_garbage_is_told_as_garbage(self, server: FakeLetta, garbage: str) -> None:
        server.answer(f"/v1/agents/{AGENT}/context", text=garbage)
        with pytest.raises(LettaProtocolError):
            await measured(server)


class TestEstimate:
    """Without an overview: about four bytes of content a token."""

    @pytest.fixture(autouse=True, params=[404, 405, 410, 501])
    def _no_overview(self, server: FakeLetta, request: pytest.FixtureRequest) -> None:
        server.fail(f"/v1/agents/{AGENT}/context", request.param)
        server.agent(message_ids=["sys", "m1", "m2"])
        server.conversation("sys", "m1", "m2")
        server.messages(*ROWS)

    async def test_the_messages_in_context_are_counted(self, server: FakeLetta) -> None:
        found = await measured(server)
        assert found.source is UsageSource.MESSAGE_ESTIMATE
        assert (found.window, found.tokens, found.tokens_fixed) == (16_000, 600, 100)
        assert [(one.id, one.role, one.tokens) for one in found.messages] == [
            ("sys", "system", 0),
            ("m1", "user", 200),
            ("m2", "assistant", 300),
        ]
        assert found.newest_at == datetime(2026, 11, 23, 1, 2, tzinfo=UTC)

    async def test_what_was_evicted_counts_nothing_and_the_order_is_that_of_the_ids(self, server: FakeLetta) -> None:
        old = [listed(f"old-{number}", "user_message", "z" * 9_000) for number in range(9)]
        server.messages(ROWS[2], *old, ROWS[0], ROWS[1])
        found = await measured(server)
        assert [one.id for one in found.messages] == ["sys", "m1", "m2"]
        assert found.tokens == 600

    async def test_items_of_one_message_are_one_message(self, server: FakeLetta) -> None:
        call = listed("m2", "approval_request_message", "", tool_calls=[{"name": "f", "arguments": "{}"}])
        server.messages(*ROWS, call)
        found = (await measured(server)).messages[-1]
        assert (found.id, found.role, found.asks_approval) == ("m2", "approval", True)
        assert found.tokens > 300

    async def test_a_summary_in_either_form_is_no_activity(self, server: FakeLetta) -> None:
        packed = (
            '{"type": "system_alert", "message": "Note: hidden.\\nThe following is a summary of the previous '
            'messages:\\n They spoke.", "time": "now"}'
        )
        for kind, text in (("user_message", packed), ("summary_message", "They spoke.")):
            server.messages(*ROWS[:2], listed("m2", kind, text, minute=50))
            found = await measured(server)
            assert found.messages[-1].role == "summary"
            assert found.newest_at == datetime(2026, 11, 23, 1, 1, tzinfo=UTC)

    async def test_rows_that_cannot_be_read_or_of_a_kind_that_nobody_knows_do_not_stop_it(
        self, server: FakeLetta
    ) -> None:
        server.messages(*ROWS[:2], {"message_type": "user_message"}, listed("m2", "hologram_message", "y" * 398))
        found = await measured(server)
        assert [(one.id, one.role) for one in found.messages][-1] == ("m2", "user")

    async def test_a_default_conversation_is_estimated_by_its_agents_ids(self, server: FakeLetta) -> None:
        server.messages(*ROWS, conversation="default")
        found = await measured(server, DEFAULT, UNKNOWN)
        assert found.tokens == 600
        assert found.sighting.last_message_at == datetime(2026, 11, 23, 1, 2, tzinfo=UTC)
        assert any(
            asked.startswith("GET /v1/conversations/default/messages?") and f"agent_id={AGENT}" in asked
            for asked in server.asked
        )

    async def test_a_deleted_conversation_is_not_found(self, server: FakeLetta) -> None:
        server.fail(f"/v1/conversations/{CONVERSATION}", 404)
        with pytest.raises(NotFound):
            await measured(server)

    async def test_a_context_that_the_list_does_not_show_cannot_be_measured(self, server: FakeLetta) -> None:
        server.messages()
        with pytest.raises(Unmeasurable, match=f"lists no message that is in context of {CONVERSATION}"):
            await measured(server)

    async def test_an_agent_without_a_window_cannot_be_measured(self, server: FakeLetta) -> None:
        server.agent(llm_config={})
        with pytest.raises(Unmeasurable, match=f"does not tell the window of {AGENT}"):
            await measured(server)

    async def test_an_agent_that_is_gone_is_not_found(self, server: FakeLetta) -> None:
        server.fail(f"/v1/agents/{AGENT}", 404)
        with pytest.raises(NotFound):
            await measured(server)

"""Streams of events: what is yielded, and how each kind of end is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from worker.letta import errors as tree
from worker.letta.errors import LettaError

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "hello"}]
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}

PING = {"id": "ping-1", "message_type": "ping"}
ANSWER = {"id": "message-1", "message_type": "assistant_message", "content": "hi\nthere ä"}
STOP = {"message_type": "stop_reason", "stop_reason": "end_turn"}
USAGE = {"message_type": "usage_statistics", "context_tokens": 737}
DONE = "data: [DONE]\n\n"


def lines(*documents: Any) -> str:
    return "".join(f"data: {json.dumps(document)}\n\n" for document in documents)


class Body(httpx.AsyncByteStream):
    """A body in pieces, which may end with an exception."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


async def drain(events: Any) -> list[Any]:
    return [event async for event in events]


async def broken(events: Any) -> tuple[list[Any], LettaError]:
    """Return the events up to the error, and the error."""
    found: list[Any] = []

    async def collect() -> None:
        async for event in events:
            found.append(event)  # noqa: PERF401 - a comprehension would lose what came before the error

    with pytest.raises(LettaError) as caught:
        await collect()
    assert caught.value.__cause__ is None
    return found, caught.value


async def test_a_stream_yields_its_events_without_pings_to_its_done(server: Any) -> None:
    text = lines(PING, ANSWER, PING, STOP, USAGE) + DONE
    server.answers_with(content=text, headers=EVENTS)
    events = await drain(server.letta.stream_message("conv-1", HELLO))
    assert [event.message_type for event in events] == ["assistant_message", "stop_reason", "usage_statistics"]
    assert events[0].message().text() == "hi\nthere ä"
    assert events[2].data["context_tokens"] == 737


async def test_a_streamed_send_asks_for_a_stream(server: Any) -> None:
    server.answers_with(content=DONE, headers=EVENTS)
    await drain(server.letta.stream_message("default", HELLO, agent_id="agent-1", stream_tokens=True))
    assert (server.seen.method, server.seen.url.path) == ("POST", "/v1/conversations/default/messages")
    assert server.seen.headers["accept"] == "text/event-stream"
    assert server.body == {
        "messages": HELLO,
        "streaming": True,
        "stream_tokens": True,
        "background": False,
        "agent_id": "agent-1",
    }


async def test_a_background_stream_is_picked_up_where_it_was_left(server: Any) -> None:
    server.answers_with(content=lines(ANSWER) + DONE, headers=EVENTS)
    await drain(
        server.letta.retrieve_stream("conv-1", starting_after=4, include_pings=True, poll_interval=0.5, batch_size=9)
    )
    assert (server.seen.method, server.seen.url.path) == ("POST", "/v1/conversations/conv-1/stream")
    assert server.body == {"starting_after": 4, "include_pings": True, "poll_interval": 0.5, "batch_size": 9}


async def test_a_background_stream_is_picked_up_by_its_run_or_its_otid_or_its_agent(server: Any) -> None:
    server.answers_with(content=DONE, headers=EVENTS)
    await drain(server.letta.retrieve_stream("default", run_id="run-1"))
    await drain(server.letta.retrieve_stream("default", otid="o-1"))
    await drain(server.letta.retrieve_stream("default", agent_id="agent-1"))
    bodies = [json.loads(request.content) for request in server.requests]
    assert bodies == [{"run_id": "run-1"}, {"otid": "o-1"}, {"agent_id": "agent-1"}]


async def test_an_event_may_come_in_any_number_of_pieces(server: Any) -> None:
    text = (lines(ANSWER, STOP) + DONE).encode()
    server.answers_with(stream=Body(*(text[at : at + 1] for at in range(len(text)))), headers=EVENTS)
    events = await drain(server.letta.stream_message("conv-1", HELLO))
    assert [event.data for event in events] == [ANSWER, STOP]


@pytest.mark.parametrize("text", ["", lines(PING), lines(ANSWER), lines(ANSWER, STOP, USAGE)])
async def test_an_end_without_done_is_a_broken_stream(server: Any, text: str) -> None:
    server.answers_with(content=text, headers=EVENTS)
    _, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert isinstance(error, tree.StreamBroken)
    assert (error.retryable, error.outcome_known) == (True, False)
    assert "before its [DONE]" in str(error)


async def test_a_broken_retrieval_changes_nothing_so_its_outcome_is_known(server: Any) -> None:
    server.answers_with(content=lines(ANSWER), headers=EVENTS)
    _, error = await broken(server.letta.retrieve_stream("conv-1"))
    assert isinstance(error, tree.StreamBroken)
    assert error.outcome_known


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpx.ReadError("reset"), tree.StreamBroken),
        (httpx.RemoteProtocolError("peer closed"), tree.StreamBroken),
        (httpx.ReadTimeout("silent"), tree.LettaTimeout),
    ],
)
async def test_a_connection_that_breaks_midway_is_a_typed_error_after_what_came(
    server: Any, raised: Exception, kind: type[LettaError]
) -> None:
    server.answers_with(stream=Body(lines(ANSWER).encode(), raised), headers=EVENTS)
    found, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert [event.data for event in found] == [ANSWER]
    assert type(error) is kind
    assert (error.retryable, error.outcome_known) == (True, False)


FAILURE = {"message_type": "error_message", "run_id": "run-1", "error_type": "llm_timeout", "message": "Too slow."}


@pytest.mark.parametrize(
    "text",
    [
        f"event: error\ndata: {json.dumps(FAILURE)}\n\n",
        lines(FAILURE),
        'event: error\ndata: {"error": "llm_timeout: Too slow.", "code": "INTERNAL_SERVER_ERROR"}\n\n',
        lines({"error": {"message": "llm_timeout: Too slow.", "type": "server_error"}}),
    ],
)
async def test_an_error_sent_as_an_event_is_a_typed_error_with_the_servers_words(server: Any, text: str) -> None:
    server.answers_with(content=lines(ANSWER, STOP) + text + DONE, headers=EVENTS)
    found, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert len(found) == 2
    assert isinstance(error, tree.StreamFailed)
    assert "llm_timeout: Too slow." in str(error)
    assert not error.outcome_known


async def test_an_error_event_without_words_is_still_an_error(server: Any) -> None:
    server.answers_with(content="event: error\ndata: {}\n\n", headers=EVENTS)
    _, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert "it gave no reason" in str(error)


async def test_the_key_does_not_get_into_the_error_of_an_event(server: Any) -> None:
    server.answers_with(content=lines(FAILURE | {"detail": f"key {server.key}"}), headers=EVENTS)
    _, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert server.key not in str(error)


async def test_a_cancelled_run_ends_its_stream(server: Any) -> None:
    server.answers_with(
        content=lines(ANSWER) + 'event: cancelled\ndata: {"message": "Run was cancelled"}\n\n', headers=EVENTS
    )
    events = await drain(server.letta.stream_message("conv-1", HELLO))
    assert [event.message_type for event in events] == ["assistant_message", "cancelled"]


@pytest.mark.parametrize("data", ["not json", "[1]", "3", '{"cut'])
async def test_an_event_that_is_no_object_is_a_protocol_error(server: Any, data: str) -> None:
    server.answers_with(content=f"data: {data}\n\n" + DONE, headers=EVENTS)
    _, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert isinstance(error, tree.LettaProtocolError)
    assert not error.outcome_known


async def test_comments_and_unknown_events_do_no_harm(server: Any) -> None:
    text = ": keep-alive\n\nid: 7\n\n" + lines({"message_type": "of_tomorrow", "x": 1}) + DONE
    server.answers_with(content=text, headers=EVENTS)
    [event] = await drain(server.letta.stream_message("conv-1", HELLO))
    assert (event.message_type, event.data["x"]) == ("of_tomorrow", 1)


async def test_a_json_document_instead_of_a_stream_is_named_as_one(server: Any) -> None:
    server.answers_with({"messages": [], "stop_reason": None})
    _, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert isinstance(error, tree.LettaProtocolError)
    assert "one JSON document instead of a stream" in str(error)
    assert not error.outcome_known


async def test_an_html_page_instead_of_a_stream_is_named_as_one(server: Any) -> None:
    server.answers_with(html="<html></html>")
    _, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert isinstance(error, tree.LettaProtocolError)
    assert "an HTML page" in str(error)


@pytest.mark.parametrize(("status", "kind"), [(409, tree.Conflict), (503, tree.ServerError), (404, tree.NotFound)])
async def test_a_stream_that_is_refused_is_the_statuss_error(server: Any, status: int, kind: type[LettaError]) -> None:
    server.answers_with({"detail": "Background streaming requires Redis to be running."}, status=status)
    found, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert found == []
    assert type(error) is kind
    assert "requires Redis" in str(error)


@pytest.mark.parametrize(
    ("raised", "kind", "known"),
    [
        (httpx.ConnectError("refused"), tree.LettaUnreachable, True),
        (httpx.ReadTimeout("slow"), tree.LettaTimeout, False),
        (httpx.ReadError("reset"), tree.LettaConnectionLost, False),
    ],
)
async def test_a_stream_that_never_opens_is_the_connections_error(
    server: Any, raised: Exception, kind: type[LettaError], *, known: bool
) -> None:
    server.fails_with(raised)
    _, error = await broken(server.letta.stream_message("conv-1", HELLO))
    assert type(error) is kind
    assert error.outcome_known is known


async def test_what_an_event_says_does_not_show_in_its_repr(server: Any) -> None:
    server.answers_with(content=lines(ANSWER) + DONE, headers=EVENTS)
    [event] = await drain(server.letta.stream_message("conv-1", HELLO))
    assert "there" not in repr(event)

"""The client over real sockets: settings of the connection, and servers that go silent, break off, or lie."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from worker.letta import errors as tree
from worker.letta.client import Letta
from worker.letta.errors import LettaError
from worker.letta.timeouts import Timeouts
from worker.letta.transport import KEEP_ALIVE, open_http

pytestmark = pytest.mark.anyio

KEY = "sk-let-THE-SECRET-KEY-0123456789"
SHORT = Timeouts(connect=2, health=2, read=0.3, compact=0.3, stream_gap=0.3)
HELLO = [{"role": "user", "content": "hello"}]


@asynccontextmanager
async def client(url: str, timeouts: Timeouts = SHORT, **options: Any) -> AsyncIterator[Letta]:
    async with open_http(url, KEY, timeouts=timeouts, **options) as http:
        yield Letta(http, timeouts)


async def fault(call: Any) -> LettaError:
    with pytest.raises(LettaError) as caught:
        await call
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    assert caught.value.__context__ is None
    return caught.value


def answer(document: Any, status: str = "200 OK", extra: str = "", kind: str = "application/json") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


async def silent(_reader: Any, _writer: Any) -> None:
    await asyncio.sleep(60)


async def close_at_once(_reader: Any, writer: Any) -> None:
    writer.close()


async def reset_at_once(_reader: Any, writer: Any) -> None:
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def not_http(_reader: Any, writer: Any) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    await writer.drain()


def says(data: bytes, *, then_close: bool = False) -> Any:
    async def handle(_reader: Any, writer: Any) -> None:
        writer.write(data)
        await writer.drain()
        if then_close:
            writer.close()

    return handle


async def test_a_request_arrives_with_its_key_and_names_its_sender(loopback: Any) -> None:
    loopback.handle = says(answer({"version": "0.16.8", "status": "ok"}))
    async with client(loopback.url) as letta:
        assert (await letta.health()).version == "0.16.8"
    [head] = loopback.heads
    assert head.startswith("GET /v1/health/ HTTP/1.1\r\n")
    assert f"authorization: Bearer {KEY}\r\n" in head
    assert "user-agent: letta-compactor/" in head


async def test_a_base_url_with_a_path_keeps_it(loopback: Any) -> None:
    loopback.handle = says(answer([]))
    async with client(loopback.url + "/letta/") as letta:
        await letta.list_agents()
    assert loopback.heads[0].startswith("GET /letta/v1/agents/?")


async def test_no_connection_is_unreachable_and_nothing_was_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{unused.getsockname()[1]}") as letta:
            error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.LettaUnreachable
    assert (error.outcome_known, error.retryable) == (True, True)


async def test_an_unknown_host_is_unreachable() -> None:
    async with client("http://no-such-host.invalid") as letta:
        error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.LettaUnreachable


async def test_tls_to_a_server_without_it_is_unreachable(loopback: Any) -> None:
    loopback.handle = silent
    async with client(loopback.url.replace("http", "https"), Timeouts(connect=0.2)) as letta:
        error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.LettaUnreachable
    assert loopback.heads == []


async def test_a_silent_server_is_a_time_out_and_a_posts_outcome_is_unknown(loopback: Any) -> None:
    loopback.handle = silent
    async with client(loopback.url) as letta:
        of_post = await fault(letta.compact("conv-1"))
        of_get = await fault(letta.list_agents())
    assert type(of_post) is type(of_get) is tree.LettaTimeout
    assert (of_post.outcome_known, of_get.outcome_known) == (False, True)
    assert loopback.connections == 2


async def test_a_server_that_drips_does_not_hold_a_call_beyond_its_time_out(loopback: Any) -> None:
    async def drip(_reader: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    loopback.handle = drip
    started = time.monotonic()
    async with client(loopback.url) as letta:
        error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.LettaTimeout
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("handle", [close_at_once, reset_at_once, not_http], ids=lambda handle: handle.__name__)
async def test_a_connection_lost_after_sending_leaves_a_posts_outcome_unknown(loopback: Any, handle: Any) -> None:
    loopback.handle = handle
    async with client(loopback.url) as letta:
        error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.LettaConnectionLost
    assert (error.outcome_known, error.retryable) == (False, True)
    assert len(loopback.heads) == 1


async def test_a_get_whose_connection_breaks_is_not_sent_again(loopback: Any) -> None:
    loopback.handle = close_at_once
    async with client(loopback.url) as letta:
        error = await fault(letta.list_agents())
        assert type(error) is tree.LettaConnectionLost
        assert error.outcome_known
        await fault(letta.delete_conversation("conv-1"))
    assert [head.split()[0] for head in loopback.heads] == ["GET", "DELETE"]


async def test_an_answer_that_is_cut_off_leaves_a_posts_outcome_unknown(loopback: Any) -> None:
    whole = answer({"summary": "x" * 500, "num_messages_before": 9, "num_messages_after": 2})
    loopback.handle = says(whole[:-100], then_close=True)
    async with client(loopback.url) as letta:
        error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.LettaConnectionLost
    assert not error.outcome_known


async def test_a_body_that_is_not_the_gzip_it_says_is_a_protocol_error(loopback: Any) -> None:
    loopback.handle = says(answer(b"not gzip", extra="Content-Encoding: gzip\r\n"))
    async with client(loopback.url) as letta:
        error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.LettaProtocolError
    assert not error.outcome_known


async def test_a_redirect_is_not_followed_so_the_key_goes_nowhere_else(loopback: Any) -> None:
    loopback.handle = says(answer(b"", "307 Temporary Redirect", f"Location: {loopback.url}/elsewhere\r\n"))
    async with client(loopback.url) as letta:
        error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.RedirectRefused
    assert [head.split()[1] for head in loopback.heads] == ["/v1/conversations/conv-1/compact"]


async def test_cookies_are_not_sent_back(loopback: Any) -> None:
    loopback.handle = says(answer([], extra="Set-Cookie: session=abc\r\n"))
    async with client(loopback.url) as letta:
        await letta.list_agents()
        await letta.list_agents()
    assert loopback.connections == 1
    assert all("cookie" not in head.lower() for head in loopback.heads)


async def test_more_than_a_hundred_calls_are_open_at_once(loopback: Any) -> None:
    together = 150

    everyone = asyncio.Barrier(together)

    async def wait_for_all(_reader: Any, writer: Any) -> None:
        await everyone.wait()
        writer.write(answer({"id": "run-1", "status": "running"}))
        await writer.drain()

    loopback.handle = wait_for_all
    async with client(loopback.url, Timeouts(read=20)) as letta:
        runs = await asyncio.gather(*(letta.retrieve_run("run-1") for _ in range(together)))
    assert len(runs) == together
    assert loopback.connections == together


EVENT = b'data: {"id": "message-1", "message_type": "assistant_message", "content": "hi"}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def collect(letta: Letta, found: list[str]) -> None:
    async for event in letta.stream_message("conv-1", HELLO):
        found.append(event.message_type)  # noqa: PERF401 - what came before an error is wanted


async def test_a_stream_is_read_over_a_socket(loopback: Any) -> None:
    loopback.handle = says(STREAM + chunk(EVENT[:20]) + chunk(EVENT[20:] + b"data: [DONE]\n\n") + chunk(b""))
    found: list[str] = []
    async with client(loopback.url) as letta:
        await collect(letta, found)
    assert found == ["assistant_message"]


async def test_a_stream_whose_socket_breaks_midway_is_broken_after_what_came(loopback: Any) -> None:
    loopback.handle = says(STREAM + chunk(EVENT), then_close=True)
    found: list[str] = []
    async with client(loopback.url) as letta:
        error = await fault(collect(letta, found))
    assert found == ["assistant_message"]
    assert type(error) is tree.StreamBroken
    assert not error.outcome_known


async def test_a_stream_that_falls_silent_is_a_time_out(loopback: Any) -> None:
    async def fall_silent(_reader: Any, writer: Any) -> None:
        writer.write(STREAM + chunk(EVENT))
        await writer.drain()
        await asyncio.sleep(60)

    loopback.handle = fall_silent
    found: list[str] = []
    async with client(loopback.url) as letta:
        error = await fault(collect(letta, found))
    assert found == ["assistant_message"]
    assert type(error) is tree.LettaTimeout
    assert "no answer within 0.3 s" in str(error)


async def test_a_stream_that_is_left_early_is_closed(loopback: Any) -> None:
    loopback.handle = says(STREAM + chunk(EVENT))
    async with client(loopback.url) as letta:
        events = letta.stream_message("conv-1", HELLO)
        assert (await anext(events)).message_type == "assistant_message"
        await events.aclose()


async def test_an_idle_connection_is_let_go_before_uvicorn_would_close_it() -> None:
    uvicorns_keep_alive = 5.0
    assert uvicorns_keep_alive > KEEP_ALIVE


async def test_a_proxy_that_is_down_is_unreachable(loopback: Any) -> None:
    loopback.handle = silent
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with client(loopback.url, proxy=f"http://127.0.0.1:{unused.getsockname()[1]}") as letta:
            error = await fault(letta.compact("conv-1"))
    assert type(error) is tree.LettaUnreachable
    assert loopback.connections == 0


async def test_a_call_goes_through_the_proxy_that_is_given(loopback: Any) -> None:
    loopback.handle = says(answer([]))
    async with client("http://letta.invalid:8283", proxy=loopback.url) as letta:
        assert await letta.list_agents() == []
    assert loopback.heads[0].startswith("GET http://letta.invalid:8283/v1/agents/?")


async def test_proxies_and_credentials_of_the_environment_are_not_taken_up(
    loopback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    loopback.handle = says(answer([]))
    async with client(loopback.url) as letta:
        assert await letta.list_agents() == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must begin with http"),
        ("localhost:8283", "must begin with http"),
        ("ftp://letta.test", "must begin with http"),
        ("http://", "must begin with http"),
        ("http://boss:pass@letta.test", "must not carry a user or password"),
        ("http://letta.test/?a=1", "without ? or #"),
        ("http://letta.test/v1", "without /v1"),
        ("http://letta.test/v1/", "without /v1"),
        ("http://letta.test:port", "is not a URL"),
    ],
)
async def test_a_base_url_that_cannot_work_is_refused_and_says_what_is_wrong(url: str, words: str) -> None:
    with pytest.raises(ValueError, match="LETTA_BASE_URL") as caught:
        open_http(url, KEY)
    assert words in str(caught.value)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk two", "sk-\n", "sk-ключ", "\tsk"])
async def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="LETTA_API_KEY") as caught:
        open_http("http://letta.test", key)
    assert key not in str(caught.value)


async def test_a_server_without_a_password_is_sent_no_key(loopback: Any) -> None:
    loopback.handle = says(answer([]))
    async with open_http(loopback.url) as http:
        await Letta(http).list_agents()
    assert "authorization" not in loopback.heads[0].lower()


async def test_the_key_does_not_show_in_the_reprs_of_the_client() -> None:
    async with open_http("http://letta.test", KEY) as http:
        assert KEY not in repr(http) + repr(http.headers) + repr(Letta(http)) + repr(vars(http))

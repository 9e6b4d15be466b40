"""A Letta server that answers what a test tells it to, without a socket; and one that misbehaves on a real socket."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from worker.letta.client import Letta
from worker.letta.timeouts import Timeouts

KEY = "sk-let-THE-SECRET-KEY-0123456789"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Scripted:
    """Plays answers in order, the last one for ever, and keeps the requests."""

    key = KEY

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: list[httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]] = []
        self.http = httpx.AsyncClient(
            base_url="http://letta.test:8283",
            headers={"Authorization": f"Bearer {KEY}"},
            transport=httpx.MockTransport(self._play),
        )
        self.letta = Letta(self.http, Timeouts())

    def answers_with(self, document: Any = None, *, status: int = 200, **kwargs: Any) -> None:
        """Add an answer: a JSON document, or what httpx.Response takes."""
        if not kwargs.keys() & {"content", "text", "html", "stream"}:
            kwargs["content"] = json.dumps(document)
            kwargs["headers"] = {"content-type": "application/json"} | kwargs.get("headers", {})
        self.answers.append(httpx.Response(status, **kwargs))

    def fails_with(self, error: Exception) -> None:
        self.answers.append(error)

    def answers_by(self, rule: Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers.append(rule)

    def _play(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    @property
    def seen(self) -> httpx.Request:
        """The one request that was sent."""
        assert len(self.requests) == 1
        return self.requests[0]

    @property
    def body(self) -> Any:
        """The JSON body of the one request that was sent."""
        return json.loads(self.seen.content)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    yield scripted
    await scripted.http.aclose()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Loopback:
    """A TCP server on a free loopback port, on a loop in a thread of its own; `handle` says what it does with each."""

    def __init__(self) -> None:
        self.handle: Handler | None = None
        self.connections = 0
        self.heads: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                length = re.search(r"content-length: *(\d+)", head.decode().lower())
                await reader.readexactly(int(length[1]) if length else 0)
                assert self.handle is not None
                await self.handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # The client left, or the test is over: a task of asyncio's streams must not end cancelled.
            pass
        finally:
            writer.close()

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._call(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    listening = Loopback()
    yield listening
    listening.close()

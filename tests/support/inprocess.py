"""An ASGI application in this process: its lifespan, and a client of it that a plain test can call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import ASGIApp, Message


class Client:
    """Sends requests to the application, on the loop that it runs on."""

    def __init__(self, portal: BlockingPortal, http: httpx.AsyncClient) -> None:
        self._portal, self._http = portal, http

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """One request, and its whole answer."""
        return self._portal.call(lambda: self._http.request(method, url, **options))

    def get(self, url: str, **options: Any) -> httpx.Response:
        """A GET."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        """A POST."""
        return self.request("POST", url, **options)


@contextmanager
def running(app: ASGIApp) -> Iterator[Client]:
    """Start an application, give a client of it, and shut it down at the end."""
    with start_blocking_portal("asyncio") as portal:
        lifespan = portal.call(_Lifespan.start, app)
        transport = httpx.ASGITransport(app)
        http = httpx.AsyncClient(transport=transport, base_url="http://door.test", timeout=30)
        try:
            yield Client(portal, http)
        finally:
            portal.call(http.aclose)
            portal.call(lifespan.stop)


class _Lifespan:
    """The events at the start and the end of a server, as the protocol has them."""

    def __init__(self, app: ASGIApp) -> None:
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.ensure_future(app(scope, self._told.get, self._said.put))

    @classmethod
    async def start(cls, app: ASGIApp) -> _Lifespan:
        """Start the application; AssertionError when it does not."""
        self = cls(app)
        await self._tell("startup")
        return self

    async def stop(self) -> None:
        """Shut it down."""
        await self._tell("shutdown")
        await self._task

    async def _tell(self, what: str) -> None:
        await self._told.put({"type": f"lifespan.{what}"})
        said = await self._said.get()
        assert said["type"] == f"lifespan.{what}.complete", said

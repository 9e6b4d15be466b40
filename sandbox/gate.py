"""What every request passes on its way in: it is counted, let in by its key, delayed, and perhaps made to go wrong.

Plain ASGI, not Starlette's BaseHTTPMiddleware: that one would cancel a compaction whose client left.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, Response

from sandbox.endpoints import UNKNOWN, endpoint_of
from sandbox.faults import HICCUP, MODEL_FAILURES, Fault, Faults
from sandbox.ids import ids_in
from sandbox.options import Delay
from sandbox.transport import abort, cut_off

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

CONTROL = "/sandbox/"
"""Paths by which tests steer the sandbox: never delayed, never faulty, never asked for a key."""

_PAGE = "<!doctype html><html><head><title>Gateway</title></head><body><h1>Bad gateway</h1></body></html>"


class Gate:
    """The way in, with its counters and its delay, which tests may change while it runs."""

    def __init__(self, app: App, faults: Faults, latency: Delay, api_key: str | None, seed: int) -> None:
        self._app = app
        self._faults = faults
        self._api_key = api_key
        self._rng = random.Random(seed)
        self.latency = latency
        self.requests: Counter[str] = Counter()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; one that is cut short because the sandbox stops loses its connection."""
        try:
            await self._answer(scope, receive, send)
        except asyncio.CancelledError:
            cut_off(scope)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(CONTROL):
            await self._app(scope, receive, send)
            return
        endpoint = endpoint_of(scope["method"], scope["path"])
        self.requests[f"{scope['method']} {endpoint.path if endpoint is not UNKNOWN else scope['path']}"] += 1
        if endpoint.name != "health" and not self._may_enter(scope):
            await JSONResponse({"detail": "Unauthorized"}, 401)(scope, receive, send)
            return
        # Read to its end before anything is waited for: afterwards a client that left would have taken it along.
        body, receive = await _read(receive)
        if pause := self.latency.pick(self._rng):
            await asyncio.sleep(pause)
        query = scope["query_string"].decode("latin-1")
        fault = self._faults.pick(endpoint, ids_in(f"{scope['path']}?{query} {body.decode(errors='replace')}"))
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.hang is not None:
            await asyncio.sleep(fault.hang)
            await self._app(scope, receive, send)
        elif fault.kind == HICCUP:
            await self._app({**scope, HICCUP: True}, receive, send)
        else:
            await self._go_wrong(fault, scope, receive, send)

    def _may_enter(self, scope: MutableMapping[str, Any]) -> bool:
        if self._api_key is None:
            return True
        headers = dict(scope["headers"])
        return bool(headers.get(b"authorization", b"").decode("latin-1") == f"Bearer {self._api_key}")

    async def _go_wrong(self, fault: Fault, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        answer: list[Message] = []
        if fault.has_effect:
            await self._app(scope, receive, _keep_in(answer))
        if fault.kind in {"reset", "reset-after"}:
            await abort(scope)
        elif fault.kind == "reset-mid":
            # Half of the bytes that the headers promise, then silence.
            await _replay(answer, send, half=True, more_to_come=True)
            await abort(scope)
        elif fault.kind == "truncated":
            await _replay(answer, send, half=True, more_to_come=False)
        else:
            await _instead(fault)(scope, receive, send)


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """Read a request's body, and return it and what hands it out again."""
    parts = [await receive()]
    while parts[-1]["type"] == "http.request" and parts[-1].get("more_body"):
        parts.append(await receive())
    waiting = iter(parts)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return b"".join(part.get("body", b"") for part in parts), again


def _keep_in(answer: list[Message]) -> Send:
    async def keep(message: Message) -> None:
        answer.append(message)

    return keep


async def _replay(answer: list[Message], send: Send, *, half: bool, more_to_come: bool) -> None:
    start = next(message for message in answer if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in answer if message["type"] == "http.response.body")
    if half:
        body = body[: len(body) // 2]
    headers = list(start["headers"])
    if not more_to_come:
        headers = [(name, value) for name, value in headers if name != b"content-length"]
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more_to_come})


def _instead(fault: Fault) -> Response:
    if fault.status is None:
        return HTMLResponse(_PAGE, 200)
    if fault.status == 502:  # noqa: PLR2004 - a bad gateway answers for itself, in HTML
        return HTMLResponse(_PAGE, 502)
    if fault.kind in MODEL_FAILURES:
        failure = {"type": fault.kind, "message": "The sandbox was told that its model fails.", "detail": None}
        return JSONResponse({"error": failure}, fault.status)
    headers = {"Retry-After": f"{fault.retry_after:g}"} if fault.status in {429, 503} else None
    return JSONResponse({"detail": f"The sandbox was told to answer {fault.status}."}, fault.status, headers)

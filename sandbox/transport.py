"""Closing a connection without an answer, which ASGI has no word for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_open: dict[tuple[str, int], asyncio.Transport] = {}


class AbortableProtocol(H11Protocol):
    """uvicorn's own protocol, which also remembers the transport of each client that is connected."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn types it
        """Remember the transport under the client's address, which is what ASGI tells an application."""
        super().connection_made(transport)
        if self.client is not None:
            _open[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self.client is not None:
            _open.pop(self.client, None)
        super().connection_lost(exc)


def cut_off(scope: Mapping[str, Any]) -> None:
    """Close the connection that a request came by, at once and without another byte.

    Raises RuntimeError when the server does not run on `AbortableProtocol`.
    """
    transport = _open.get(tuple(scope["client"] or ()))
    if transport is None:
        raise RuntimeError("The connection cannot be closed: the sandbox must be started by `python -m sandbox`.")
    transport.abort()


async def abort(scope: Mapping[str, Any]) -> None:
    """Cut a connection off, and wait until the protocol knows: before that it would answer 500 for us."""
    cut_off(scope)
    await asyncio.sleep(0)

"""The door as a process: its listening sockets, the limits on what a connection may do, and its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from worker.settings import SettingsError

logger = logging.getLogger(__name__)

GRACE = 10
"""Seconds that requests under way get to be answered once the door is told to close."""

HEAD_LIMIT = 32 * 1024
"""Bytes that a request may have before its body; the parser itself knows no end."""

HEAD_SECONDS = 10.0
"""How long they may take to arrive, and how long a fresh connection may be silent."""

KEEP_ALIVE = 75
"""Seconds that a connection is kept for its next request."""


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with a limit on the size of a request's head and on the time that it takes."""

    _head: int | None = 0
    """Bytes of a head that is not complete; None when none is being read."""
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None and not self.transport.is_closing():
            self._head += len(data)
            if self._head > HEAD_LIMIT:
                self.send_400_response("The request's head is too long.")
        self._await_use()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0
        self._await_head()

    def on_headers_complete(self) -> None:
        self._head = None
        self._await_nothing()
        super().on_headers_complete()

    def _await_use(self) -> None:
        """Bound what is neither a request's head nor a request under way: line breaks, a body after its answer.

        uvicorn takes any byte for the beginning of the next request, and ends its own wait for one.
        """
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._timer is None and not self.transport.is_closing():
            self._await_head()

    def _await_head(self) -> None:
        self._await_nothing()
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _await_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends it with status 0 once what is under way is answered."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Close at SIGTERM and SIGINT, without raising them again afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._close)
        yield

    def _close(self) -> None:
        # Told twice, it does not wait for anybody.
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open, and say where."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("the door is open: Uvicorn running on http://%s:%d", f"[{host}]" if ":" in host else host, port)


def addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """Give what a host's name stands for on this machine. Raises SettingsError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise SettingsError(f"COMPACTOR_WEBHOOK_HOST: {host} is no address of this machine") from None
    return list(dict.fromkeys((family, (str(where[0]), int(where[1]))) for family, _, _, _, where in found))


def listen(host: str, port: int) -> list[socket.socket]:
    """Open the listening sockets. Raises SettingsError where the address cannot be had."""
    listeners: list[socket.socket] = []
    for family, where in addresses(host, port):
        # Named as TCP, because asyncio turns off Nagle's algorithm only then; else each answer waits 40 ms for its
        # tail.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listeners.append(listener)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(where)
        except OSError as error:
            for one in listeners:
                one.close()
            raise SettingsError(
                f"the door cannot listen on {host} port {port}: {error.strerror or error}; "
                "choose another COMPACTOR_WEBHOOK_HOST or COMPACTOR_WEBHOOK_PORT"
            ) from None
    return listeners


def serve(app: ASGIApp, listeners: Sequence[socket.socket]) -> None:
    """Serve until SIGTERM or SIGINT."""
    # Each request that is none would be a line in the log, at a stranger's choice.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # What a proxy says of a sender, anyone could say.
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=KEEP_ALIVE,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_Server(config).serve(list(listeners)))

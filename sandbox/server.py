"""Running the sandbox as a process: it says when it is ready, and stops when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn

from sandbox.app import create_app
from sandbox.options import Options
from sandbox.transport import AbortableProtocol

GRACE = 1
"""Seconds that running requests get to end by themselves once the sandbox is told to stop."""


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends it with status 0, and it prints one line when it accepts connections."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT, once, without raising them again afterwards."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop)
        yield

    def _stop(self) -> None:
        # What is cut short from here on is cut short on purpose, and no error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where."""
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"sandbox ready at http://{shown}:{port}", flush=True)  # noqa: T201 - the one line that callers wait for


def serve(options: Options, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; raises OSError when the address cannot be had, sqlite3.Error for a bad file."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, because asyncio turns off Nagle's algorithm only then; else each answer waits 40 ms for its tail.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        config = uvicorn.Config(
            create_app(options),
            http=AbortableProtocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            timeout_keep_alive=75,
        )
        asyncio.run(_Server(config).serve([listener]))

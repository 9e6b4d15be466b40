"""How many requests a piece of work has sent to the Letta server: the server is the bottleneck, and each one counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Meter:
    """Counts requests. Work that is handed from thread to loop keeps its own: it travels in the context."""

    def __init__(self) -> None:
        self._sent = 0

    def count(self) -> None:
        """Count one that goes out, whatever comes of it."""
        self._sent += 1

    def take(self) -> int:
        """Give what was counted since the last time."""
        taken, self._sent = self._sent, 0
        return taken


_running: ContextVar[Meter | None] = ContextVar("letta_requests", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the requests that are sent in this block."""
    meter = Meter()
    token = _running.set(meter)
    try:
        yield meter
    finally:
        _running.reset(token)


def count_request() -> None:
    """Count a request for whoever wants to know."""
    meter = _running.get()
    if meter is not None:
        meter.count()

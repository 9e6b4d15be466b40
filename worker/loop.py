"""The process's one event loop, in a thread of its own, with the one client that talks to Letta.

Celery's threads wait on it: a hundred compactions wait in one small process, and a shutdown can cancel them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from worker.letta.client import Letta

T = TypeVar("T")


class Interrupted(Exception):
    """What was asked of Letta was cut short by the end of the process; a POST may take effect all the same."""


class LettaLoop:
    """Run coroutines against Letta from any thread, and wait for them."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Letta]]) -> None:
        """Start the loop; connect opens the client inside it."""
        self._stack = ExitStack()
        self._portal: BlockingPortal = self._stack.enter_context(start_blocking_portal("asyncio", name="letta-loop"))
        self._lock = threading.Lock()
        self._under_way: set[Future[Any]] = set()
        self._closing = False
        try:
            self._letta: Letta = self._stack.enter_context(self._portal.wrap_async_context_manager(connect()))
        except BaseException:
            # The loop's thread would hold the process that has to end.
            self._stack.close()
            raise

    def call(self, ask: Callable[[Letta], Awaitable[T]]) -> T:
        """Run `ask` on the loop and wait for its result; its exceptions are raised here.

        Raises Interrupted when the loop was told to let go, before or meanwhile.
        """
        with self._lock:
            if self._closing:
                raise Interrupted("the process is shutting down")
            future = self._portal.start_task_soon(ask, self._letta)
            self._under_way.add(future)
        try:
            return future.result()
        except CancelledError:
            raise Interrupted("the process is shutting down") from None
        finally:
            with self._lock:
                self._under_way.discard(future)

    def let_go(self) -> None:
        """Cancel everything under way and take nothing new: the process has to end."""
        with self._lock:
            self._closing = True
            pending = list(self._under_way)
        for future in pending:
            future.cancel()

    def walk(self, pages: Callable[[Letta], AsyncGenerator[T, None]]) -> Iterator[T]:
        """Draw from a generator on the loop, one item at a time, as this thread asks for them."""
        generator = self._portal.call(pages, self._letta)
        try:
            while True:
                try:
                    item = self.call(lambda _: anext(generator))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._portal.call(generator.aclose)

    def close(self) -> None:
        """Cancel what still runs, close the client, end the loop."""
        self.let_go()
        self._stack.close()


async def gather_bounded(asks: list[Callable[[], Awaitable[T]]], gate: asyncio.Semaphore) -> list[T]:
    """Run many at once, as many as the gate lets through, and give their results in order."""

    async def one(ask: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await ask()

    return await asyncio.gather(*(one(ask) for ask in asks))

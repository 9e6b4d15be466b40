"""Telling the workers what came in, after it is committed and after it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from scheduler.door.lane import Lane
from worker.audit.database import LedgerError

logger = logging.getLogger(__name__)

MESSAGE = 100
"""Ids in one message at most."""

ROUND = 10 * MESSAGE
"""Ids that are noted as handed on in one transaction at most."""

ROOM = 100_000
"""Ids that are kept for a broker that is away; the sweep finds what is beyond."""

LINGER = 0.05
"""Seconds in which more gather: one message and one transaction for them, instead of many."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two tries of a broker that is away, doubled from one to the other."""


class Publisher:
    """Sends the ids of events that were committed. What is lost here costs time alone: the sweep sends it again."""

    def __init__(
        self,
        send: Callable[[Sequence[str]], bool],
        note: Callable[[Sequence[str]], None],
        ledger: Lane,
        *,
        room: int = ROOM,
    ) -> None:
        """send: one message, False where the broker did not take it; note: commits that they were handed on."""
        self._send, self._note, self._room = send, note, room
        self._ledger, self._broker = ledger, Lane("broker")
        self._ids: deque[str] = deque()
        self._bell = asyncio.Event()
        self._pause = 0.0
        self._full = False

    def add(self, event_ids: Sequence[str]) -> None:
        """Have these events handed on soon."""
        if not event_ids:
            return
        free = max(self._room - len(self._ids), 0)
        if len(event_ids) > free and not self._full:
            logger.warning("the broker has been away for %d events; further ones are left to the sweep", self._room)
        self._full = len(event_ids) > free
        self._ids.extend(event_ids[:free])
        self._bell.set()

    async def run(self) -> None:
        """Hand on what comes, until it is cancelled."""
        while True:
            await self._bell.wait()
            await asyncio.sleep(LINGER)
            await self.flush()
            if self._pause:
                await asyncio.sleep(self._pause)
            elif not self._ids:
                self._bell.clear()

    async def flush(self) -> None:
        """Send what has gathered; where the broker does not take it, it stays."""
        sent: list[str] = []
        while self._ids and len(sent) < ROUND:
            message = [self._ids.popleft() for _ in range(min(MESSAGE, len(self._ids)))]
            if not await self._broker.run(lambda message=message: self._sent(message)):  # type: ignore[misc]
                self._ids.extendleft(reversed(message))
                self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
                break
            sent += message
            self._pause = 0.0
        if sent:
            await self._noted(sent)

    def _sent(self, message: Sequence[str]) -> bool:
        try:
            return self._send(message)
        except Exception:
            logger.exception("events could not be handed on; they are tried again")
            return False

    async def _noted(self, sent: Sequence[str]) -> None:
        try:
            await self._ledger.run(lambda: self._note(sent))
        except LedgerError as error:
            logger.warning("%d events were handed on without a note of it; they will be again: %s", len(sent), error)

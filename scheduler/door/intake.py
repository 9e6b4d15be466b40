"""Group commit: requests that come together are committed together, and each is answered when its commit is done."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scheduler.door.lane import Lane
from worker.audit.database import LedgerError
from worker.audit.events import Arrival, Receipt

logger = logging.getLogger(__name__)

BATCH = 256
"""Arrivals in one transaction at most."""

ROOM = 4096
"""Arrivals that wait for their transaction at most; beyond, a sender is told to come again."""

LATER, SOON = 5, 1
"""Seconds after which a sender may come again: when the database is away, and when there is no room."""

PATIENCE = 8.0
"""Seconds that a sender waits for its commit; a Letta server hangs up after ten."""


class NotTaken(Exception):
    """Nothing is known to be committed: the sender may come again after so many seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the event was not taken")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class _Waiting:
    arrival: Arrival
    receipt: asyncio.Future[Receipt]


class Intake:
    """Takes arrivals into the ledger, a batch in a transaction."""

    def __init__(
        self,
        receive: Callable[[Sequence[Arrival]], list[Receipt]],
        committed: Callable[[Sequence[str]], None],
        lane: Lane,
        *,
        room: int = ROOM,
        patience: float = PATIENCE,
    ) -> None:
        """receive: commits a batch; committed: is told the ids of those that were new; lane: where receive runs."""
        self._receive, self._committed, self._lane = receive, committed, lane
        self._room, self._patience = room, patience
        self._waiting: deque[_Waiting] = deque()
        self._bell = asyncio.Event()
        self._away = False

    async def take(self, arrival: Arrival) -> Receipt:
        """Commit an arrival; gives its receipt when that is done. Raises NotTaken."""
        if len(self._waiting) >= self._room:
            raise NotTaken(SOON)
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(arrival, receipt))
        self._bell.set()
        try:
            async with asyncio.timeout(self._patience):
                return await receipt
        except TimeoutError:
            raise NotTaken(LATER) from None

    async def run(self) -> None:
        """Commit what comes, until it is cancelled."""
        while True:
            await self._bell.wait()
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if batch:
                await self._commit(batch)
            else:
                self._bell.clear()

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        arrivals = [one.arrival for one in batch]
        try:
            receipts = await self._lane.run(lambda: self._receive(arrivals))
        except LedgerError as error:
            self._note(error)
            _refuse(batch, lambda: NotTaken(LATER))
        except Exception as error:
            # One that the database chokes on must not take down those that came with it.
            if len(batch) > 1:
                for one in batch:
                    await self._commit([one])
                return
            unexpected = error
            _refuse(batch, lambda: unexpected)
        else:
            self._note(None)
            self._committed([receipt.event_id for receipt in receipts if receipt.is_new])
            for one, receipt in zip(batch, receipts, strict=True):
                if not one.receipt.done():
                    one.receipt.set_result(receipt)

    def _note(self, error: LedgerError | None) -> None:
        """Tell the log once that the ledger went, and once that it came back."""
        if error is not None and not self._away:
            logger.error("webhooks are answered 503 until this is over: %s", error)
        if error is None and self._away:
            logger.info("the ledger is back: webhooks are taken again")
        self._away = error is not None


def _refuse(batch: Sequence[_Waiting], why: Callable[[], Exception]) -> None:
    for one in batch:
        if not one.receipt.done():
            one.receipt.set_exception(why())

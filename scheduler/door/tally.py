"""Which answers the door gave, counted for the ledger, where every process's counts become one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler.door.app import PROBES
from scheduler.door.lane import Lane
from worker.audit.database import LedgerError

logger = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two additions to the ledger: what a process that is killed had counted since is lost."""

TAKING = frozenset({"/webhooks/letta/step-complete", "/webhooks/compaction"})
FOLLOWING, OTHER = "/compactions/{id}", "other"


class Tally:
    """Counts answers by route and status, and adds them to the ledger now and then."""

    def __init__(self, add: Callable[[Mapping[tuple[str, int], int]], None], ledger: Lane) -> None:
        """add: commits counts; it may block, and is called in the ledger's lane."""
        self._add, self._ledger = add, ledger
        self._counts: Counter[tuple[str, int]] = Counter()

    def over(self, app: ASGIApp) -> ASGIApp:
        """Give the same app with its answers counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._counts[_route(scope["path"]), message["status"]] += 1
                await send(message)

            # A probe's answer would have an idle door write to its ledger for ever.
            is_counted = scope["type"] == "http" and scope["path"] not in PROBES
            await app(scope, receive, told if is_counted else send)

        return counted

    async def run(self) -> None:
        """Add what has been counted, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Add what has been counted so far; where the database is away it is kept for the next time."""
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            await self._ledger.run(lambda: self._add(counts))
        except LedgerError as error:
            self._counts += counts
            logger.debug("the answers are counted later: %s", error)


def _route(path: str) -> str:
    """Give the door's own name of what was asked for: a path as it came would make a row for every stranger's guess."""
    if path.startswith("/compactions/"):
        return FOLLOWING
    return path if path in TAKING else OTHER

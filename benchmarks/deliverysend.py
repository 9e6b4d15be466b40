"""Delivering steps to the door as a busy Letta server does, from a process of its own that tells when half is done."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Self

import aiohttp

from tests.support.signing import BEARER

AT_ONCE = 64
TIMEOUT = aiohttp.ClientTimeout(total=60)


@dataclass
class Sent:
    """What was answered: how often each status, and the event ids that each step got.

    seconds: for all of it; slowest: for the one answer that took longest.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    event_ids: dict[str, set[str]] = field(default_factory=dict)
    seconds: float = 0.0
    slowest: float = 0.0


class Sender:
    """A process that POSTs steps, in their order."""

    def __init__(self, url: str, step_ids: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_send, args=(url, list(step_ids), theirs), daemon=True)
        self._theirs = theirs

    def __enter__(self) -> Self:
        self._process.start()
        # With the last copy of it here gone, a sender that dies is the end of what comes.
        self._theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def half(self) -> None:
        """Wait until half is answered. EOFError when the sender died."""
        self._ours.recv()

    def all(self) -> Sent:
        """Wait until everything is answered. EOFError when the sender died."""
        sent: Sent = self._ours.recv()
        return sent


def _send(url: str, step_ids: Sequence[str], teller: Connection) -> None:
    teller.send(asyncio.run(_deliver(url, step_ids, teller)))


async def _deliver(url: str, step_ids: Sequence[str], teller: Connection) -> Sent:
    sent, waiting, half = Sent(), iter(step_ids), len(step_ids) // 2
    begun = time.perf_counter()
    async with aiohttp.ClientSession(headers=BEARER, timeout=TIMEOUT) as session:

        async def sender() -> None:
            for step_id in waiting:
                sent_at = time.perf_counter()
                async with session.post(url, json={"step_id": step_id}) as answer:
                    body = await answer.json()
                sent.slowest = max(sent.slowest, time.perf_counter() - sent_at)
                sent.statuses[answer.status] += 1
                sent.event_ids.setdefault(step_id, set()).add(body.get("event_id"))
                if sent.statuses.total() == half:
                    teller.send(None)

        await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    sent.seconds = time.perf_counter() - begun
    return sent

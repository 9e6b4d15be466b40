"""Whether the door can do its work: what is behind it, looked at no more than once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from scheduler.door.lane import Lane

KEPT = 1.0
"""Seconds that a look is good for."""

PATIENCE = 3.0
"""Seconds after which what does not answer counts as away."""


class Look:
    """One thing that may be away. However many ask, one look at it is under way, in a thread of its own."""

    def __init__(self, name: str, answers: Callable[[], bool], *, patience: float = PATIENCE) -> None:
        self._answers, self._patience = answers, patience
        self._lane = Lane(name)
        self._under_way: asyncio.Task[bool] | None = None
        self._seen, self._at = False, float("-inf")

    async def is_there(self) -> bool:
        """Tell whether it answers."""
        if time.monotonic() - self._at < KEPT:
            return self._seen
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._look())
        done, _ = await asyncio.wait({self._under_way}, timeout=self._patience)
        return bool(done) and self._seen

    async def _look(self) -> bool:
        self._seen = await self._lane.run(self._answered)
        self._at = time.monotonic()
        return self._seen

    def _answered(self) -> bool:
        try:
            return self._answers()
        except Exception:  # whatever it is that it fails with, it does not answer
            return False

"""Telling dead from slow, and over from under way, without trusting that any clock was never set.

A lease that ran out by the wall clock proves little: the clock may have jumped. What this process has itself seen not
to move for long enough, by a clock that cannot be set, proves more. Both must agree before a row is taken over, or a
POST is taken for over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from datetime import timedelta

POST_WITHIN = 5.0
"""Seconds between the committed intent and the POST. A process that was stopped for longer must not send: others may
have taken the POST for lost by now. Whoever waits for a POST to be over waits for as much longer."""

FORGET_AFTER = 86_400.0
"""Seconds after which something not asked about is forgotten."""


class Vigil:
    """Remembers since when each thing looks as it does now."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[Hashable, float, float]] = {}

    def unmoved(self, name: str, mark: Hashable) -> timedelta:
        """Tell for how long `name` has been seen with this mark; zero at first sight, and when it has moved."""
        now = self._monotonic()
        with self._lock:
            known = self._seen.get(name)
            since = known[1] if known is not None and known[0] == mark else now
            self._seen[name] = (mark, since, now)
            for old in [key for key, (_, _, asked) in self._seen.items() if now - asked > FORGET_AFTER]:
                del self._seen[old]
        return timedelta(seconds=now - since)

    def forget(self, name: str) -> None:
        """Drop what is over."""
        with self._lock:
            self._seen.pop(name, None)

"""Doing one thing in several threads at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

RACERS = 8


def race(attempt: Callable[[int], T], racers: int = RACERS) -> list[T]:
    """Call `attempt(0)` ... at once, each in a thread of its own, and give what came out, in that order."""
    start = threading.Barrier(racers)

    def run(number: int) -> T:
        start.wait(10)
        return attempt(number)

    with ThreadPoolExecutor(racers) as pool:
        return list(pool.map(run, range(racers)))

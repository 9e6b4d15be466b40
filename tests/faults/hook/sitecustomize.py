"""Loaded by the processes of the campaign alone, through their PYTHONPATH: ends or misleads them at exact instants.

It wraps functions of the product from outside, as told by FAULTS (JSON): `{"kill": {"point": times}, "odds": 0.0,
"seed": 1, "folder": "...", "repeat": 1, "clock": "file"}`. The product itself knows nothing of it.
"""

# ruff: noqa: PLC0415 - nothing of the product is imported before it is to be wrapped

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

POST_UNDER_WAY = 0.2
"""Seconds after which a POST has left, and after which it has not been answered: compactions take longer."""


class Fate:
    """Decides where this process dies, at most so often in the whole campaign's stage."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._times: dict[str, int] = told.get("kill", {})
        self._odds: float = told.get("odds", 1.0)
        self._folder = Path(told.get("folder", "."))
        self._dice = random.Random(f"{told.get('seed', 1)} {os.environ.get('FAULTS_PROCESS', '')}")

    def waits_at(self, point: str) -> bool:
        return self._times.get(point, 0) > 0

    def meets(self, point: str) -> None:
        """Die here, if that is what was decided; each death leaves a file, so that all processes count together."""
        if self._dice.random() >= self._odds:
            return
        for number in range(self._times.get(point, 0)):
            try:
                (self._folder / f"{point}.{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, act: Callable[[], None]) -> None:
    whole = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        act()
        return whole(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, act: Callable[[], None]) -> None:
    whole = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = whole(*args, **kwargs)
        act()
        return result

    setattr(owner, name, wrapped)


def during(owner: Any, name: str, seconds: float, act: Callable[[], None]) -> None:
    """Act while a coroutine waits for its answer."""
    whole = getattr(owner, name)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        task = asyncio.ensure_future(whole(*args, **kwargs))
        await asyncio.wait([task], timeout=seconds)
        act()
        return await task

    setattr(owner, name, wrapped)


def mislead_clock(file: Path) -> None:
    """Have the service read a clock that is off by as many seconds as the file says, from whenever it says so."""
    from worker import clock

    true_time = clock.utc_now

    def utc_now() -> datetime:
        try:
            return true_time() + timedelta(seconds=float(file.read_text()))
        except (OSError, ValueError):
            return true_time()

    # Before anything else of the service is imported: everybody takes the function by its name from there.
    clock.utc_now = utc_now


def repeat_messages(times: int) -> None:
    from worker.broker import CeleryOutbox

    once = CeleryOutbox._send

    def send(self: CeleryOutbox, *args: Any, **kwargs: Any) -> bool:
        return [once(self, *args, **kwargs) for _ in range(times)][-1]

    CeleryOutbox._send = send  # type: ignore[method-assign]


def set_traps(fate: Fate) -> None:
    from worker import verify
    from worker.audit.compactions import Compactions
    from worker.letta.client import Letta

    if fate.waits_at("planned"):
        after(Compactions, "plan", lambda: fate.meets("planned"))
    if fate.waits_at("claimed"):
        after(Compactions, "claim", lambda: fate.meets("claimed"))
    if fate.waits_at("before-post"):
        after(Compactions, "intend", lambda: fate.meets("before-post"))
    if fate.waits_at("during-post"):
        during(Letta, "compact", POST_UNDER_WAY, lambda: fate.meets("during-post"))
    if fate.waits_at("answered"):
        before(Compactions, "keep_answer", lambda: fate.meets("answered"))
    if fate.waits_at("second-look"):
        during(verify, "look_again", 0.001, lambda: fate.meets("second-look"))
    if fate.waits_at("before-close"):
        before(Compactions, "succeed", lambda: fate.meets("before-close"))
    if fate.waits_at("closed"):
        after(Compactions, "succeed", lambda: fate.meets("closed"))


def main(told: dict[str, Any]) -> None:
    if "clock" in told:
        mislead_clock(Path(told["clock"]))
    if told.get("repeat", 1) > 1:
        repeat_messages(told["repeat"])
    if told.get("kill"):
        set_traps(Fate(told))


if "FAULTS" in os.environ:
    main(json.loads(os.environ["FAULTS"]))

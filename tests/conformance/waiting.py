"""Waiting for what a server does in its own time, instead of guessing how long it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio


async def until(happened: Callable[[], Awaitable[bool]], *, seconds: float = 15.0) -> None:
    """Return once `happened` says so; TimeoutError when that takes more than `seconds`."""
    with anyio.fail_after(seconds):
        while not await happened():  # noqa: ASYNC110 - a server over HTTP sets no event of ours
            await anyio.sleep(0.05)

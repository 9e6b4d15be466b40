"""The call that tells somebody that a step is complete."""

from __future__ import annotations

import asyncio
import logging

import httpx

TIMEOUT = 10.0
"""Seconds that the one attempt may take; like the real server it is never repeated."""

_log = logging.getLogger(__name__)


class Webhook:
    """POSTs `{"step_id": ...}` to a URL, with a key, without anybody waiting for it."""

    def __init__(self, url: str | None, key: str | None) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._calls: set[asyncio.Task[None]] = set()

    def notify(self, step_id: str) -> None:
        """Tell that a step is complete, if there is a URL to tell it to."""
        if self._url is None:
            return
        call = asyncio.get_running_loop().create_task(self._post(self._url, step_id))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _post(self, url: str, step_id: str) -> None:
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client:
                answer = await client.post(url, json={"step_id": step_id}, headers=self._headers)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            _log.warning("The webhook for %s failed: %s", step_id, type(error).__name__)

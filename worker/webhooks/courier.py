"""Carries signed webhooks to their endpoints: bounded in time and number, no redirect followed, no answer read.

The one place beside the Letta client that speaks HTTP, because its servers are others: it shares no key, no error and
no time-out with that client.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Protocol
from urllib.parse import urlsplit

import httpx
from standardwebhooks import Webhook

from worker.clock import Clock
from worker.letta.detail import clip, read_retry_after
from worker.letta.transport import Transport

# It logs whole URLs.
logging.getLogger("httpx").setLevel(logging.WARNING)

AT_ONE_ENDPOINT = 4
"""Webhooks under way to one endpoint."""

TIMEOUT = 10.0
"""Seconds for one attempt, from the connection to the status."""

SILENT_AFTER = 3
"""Attempts in a row without any answer after which an endpoint gets no more of one round's webhooks."""


UNSENT = f"not sent: its endpoint had given no answer {SILENT_AFTER} times in a row"


class Parcel(Protocol):
    """What is carried. id: the `webhook-id`; body: the exact text that is signed and sent."""

    @property
    def id(self) -> str:
        """Its name, the same at each attempt."""

    @property
    def endpoint(self) -> str:
        """The URL that it goes to."""

    @property
    def body(self) -> str:
        """What is sent; nothing where the call alone is the message, and then it is a GET that nobody signs."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt. error: None where it was taken; retry_after: the seconds it asks to wait."""

    parcel_id: str
    status: int | None
    error: str | None = None
    retry_after: float | None = None
    silent: bool = False


def shown(endpoint: str) -> str:
    """Give an endpoint as people may see it: a URL's path or query often holds a token."""
    parts = urlsplit(endpoint)
    host = parts.hostname or "?"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{parts.port}' if parts.port else ''}/..."


async def carry(parcels: Sequence[Parcel], secret: str | None, now: Clock) -> AsyncGenerator[Answer, None]:
    """Carry webhooks (secret: what signs them), to every endpoint at its own pace, and give each answer as it comes.

    Draw it to its end or close it: it leaves nothing under way.
    """
    waiting: dict[str, deque[Parcel]] = {}
    for parcel in parcels:
        waiting.setdefault(parcel.endpoint, deque()).append(parcel)
    answers: asyncio.Queue[Answer | None] = asyncio.Queue()
    # Not the shared client's connections: an endpoint that hangs must not hold up a compaction, nor see its key.
    http = httpx.AsyncClient(transport=Transport(), trust_env=False, follow_redirects=False, timeout=TIMEOUT)
    signer = None if secret is None else Webhook(secret)
    rounds = [asyncio.create_task(_Round(http, signer, now, answers).go(rows)) for rows in waiting.values()]
    everything = asyncio.gather(*rounds)
    everything.add_done_callback(lambda _: answers.put_nowait(None))
    try:
        while (answer := await answers.get()) is not None:
            yield answer
        await everything
    finally:
        everything.cancel()
        await asyncio.gather(*rounds, return_exceptions=True)
        await http.aclose()


@dataclass(frozen=True, slots=True)
class _Letter:
    """A parcel as it goes out."""

    parcel: Parcel
    method: str
    headers: dict[str, str]


class _Round:
    """One endpoint's share."""

    def __init__(
        self, http: httpx.AsyncClient, signer: Webhook | None, now: Clock, answers: asyncio.Queue[Answer | None]
    ) -> None:
        self._http, self._signer, self._now, self._answers = http, signer, now, answers
        self._silent = 0

    async def go(self, waiting: deque[Parcel]) -> None:
        """Send all of it, some at once, until it is through or the endpoint has fallen silent."""
        await asyncio.gather(*(self._drain(waiting) for _ in range(min(AT_ONE_ENDPOINT, len(waiting)))))
        for parcel in waiting:
            self._answers.put_nowait(Answer(parcel.id, None, UNSENT))

    async def _drain(self, waiting: deque[Parcel]) -> None:
        while waiting and self._silent < SILENT_AFTER:
            parcel = waiting.popleft()
            now = self._now()
            answer = await _attempt(self._http, _letter(parcel, self._signer, now), now)
            self._silent = self._silent + 1 if answer.silent else 0
            self._answers.put_nowait(answer)


def _letter(parcel: Parcel, signer: Webhook | None, now: datetime) -> _Letter:
    """Address a parcel, and sign it if it has anything to say."""
    headers = {"User-Agent": f"letta-compactor/{metadata.version('compactor')}"}
    if not parcel.body:
        return _Letter(parcel, "GET", headers)
    if signer is None:
        raise ValueError("webhooks go out signed")
    at = now.astimezone(UTC)
    headers |= {
        "Content-Type": "application/json",
        "webhook-id": parcel.id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signer.sign(parcel.id, at, parcel.body),
    }
    return _Letter(parcel, "POST", headers)


async def _attempt(http: httpx.AsyncClient, letter: _Letter, now: datetime) -> Answer:
    """Send one, once."""
    parcel = letter.parcel
    content = parcel.body.encode() or None
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            http.stream(letter.method, parcel.endpoint, content=content, headers=letter.headers) as response,
        ):
            return _read(parcel.id, response, now)
    except (TimeoutError, httpx.TimeoutException):
        return Answer(parcel.id, None, f"no answer within {TIMEOUT:g} s", silent=True)
    except httpx.ConnectError as error:
        return Answer(parcel.id, None, f"it could not be reached: {clip(str(error)) or 'no connection'}", silent=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Its text may quote the URL.
        return Answer(parcel.id, None, f"the exchange failed: {type(error).__name__}")


def _read(parcel_id: str, response: httpx.Response, now: datetime) -> Answer:
    """Tell what an answer means by its status and headers; its body is nobody's business."""
    status, headers = response.status_code, response.headers
    if response.is_success:
        return Answer(parcel_id, status)
    what = f"it answered {status}"
    if response.has_redirect_location:
        what += ", a redirect, and none is followed"
    return Answer(parcel_id, status, what, read_retry_after(headers.get("retry-after"), headers.get("date"), now))

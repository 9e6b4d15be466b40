"""What a process of the service is made of, put together once at its start."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import uuid4

from worker.audit.announcer import Announcer
from worker.audit.ledger import Ledger
from worker.audit.throttles import Limits
from worker.clock import Clock, utc_now
from worker.heart import Heart
from worker.letta.client import Letta
from worker.letta.timeouts import Timeouts
from worker.letta.transport import open_http
from worker.loop import LettaLoop
from worker.policy.forecast import SlidingWindow
from worker.policyfile import PolicyFile
from worker.settings import Settings, SettingsError
from worker.telemetry import tracing
from worker.vigil import Vigil


class Outbox(Protocol):
    """Where work goes whose row is committed. A lost message costs time, never work: the sweep sends it again."""

    def scan(self, scan_id: str) -> None:
        """Have a scan listed."""

    def page(self, scan_id: str, number: int) -> None:
        """Have a page of candidates measured."""

    def compaction(self, compaction_id: str, *, told: str, delay: float = 0) -> bool:
        """Have a planned compaction run, after delay seconds; False where no message was sent.

        told: what it is to do, in one line, for whoever watches the messages.
        """

    def events(self, event_ids: Sequence[str]) -> bool:
        """Have what webhooks told looked into; False where no message was sent."""


class NoOutbox:
    """Sends nothing: for looking without doing."""

    def scan(self, scan_id: str) -> None:
        """Send nothing."""

    def page(self, scan_id: str, number: int) -> None:
        """Send nothing."""

    def compaction(self, compaction_id: str, *, told: str, delay: float = 0) -> bool:
        """Send nothing."""
        del compaction_id, told, delay
        return False

    def events(self, event_ids: Sequence[str]) -> bool:
        """Send nothing."""
        del event_ids
        return False


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that every use case works with. owner: this process's name on leases, never used twice."""

    settings: Settings
    ledger: Ledger
    policies: PolicyFile
    loop: LettaLoop
    outbox: Outbox
    owner: str
    measuring: asyncio.Semaphore
    heart: Heart
    vigil: Vigil
    now: Clock = utc_now

    @classmethod
    def open(cls, settings: Settings, outbox: Outbox) -> Service:
        """Open everything; raises SettingsError, PolicyError or LedgerError where something is not right."""
        settings.require_letta()
        policies = PolicyFile(settings.policy_file, SlidingWindow(settings.letta_sliding_window))
        ledger = Ledger.open(settings.ledger_url, announcer(settings))
        tracing.watch_engine(ledger.database.engine)
        owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        return cls(
            settings=settings,
            ledger=ledger,
            policies=policies,
            loop=LettaLoop(lambda: connect(settings)),
            outbox=outbox,
            owner=owner,
            measuring=asyncio.Semaphore(settings.measure_concurrency),
            heart=Heart(ledger, owner, timedelta(seconds=settings.lease), utc_now),
            vigil=Vigil(),
        )

    @property
    def server(self) -> SlidingWindow:
        """What the server does with `sliding_window_percentage`."""
        return SlidingWindow(self.settings.letta_sliding_window)

    @property
    def lease(self) -> timedelta:
        """How long a claim holds without a heartbeat."""
        return timedelta(seconds=self.settings.lease)

    @property
    def scan_lease(self) -> timedelta:
        """How long nothing may be heard of a scan, or a page of it, before it is taken for dead."""
        return timedelta(seconds=self.settings.scan_lease)

    @property
    def look_again_after(self) -> timedelta:
        """When to look again for an effect that is not known, and for a context that could not be read."""
        return timedelta(seconds=self.settings.look_again_after)

    @property
    def limits(self) -> Limits:
        """The configured limits on compactions under way."""
        return Limits(self.settings.max_in_flight, self.settings.max_in_flight_per_model)

    def close(self) -> None:
        """Cancel what waits for Letta, then give everything back."""
        self.heart.close()
        self.loop.close()
        self.ledger.close()


def announcer(settings: Settings) -> Announcer:
    """Give what puts the settings' outgoing webhooks and sign of life into the ledger."""
    return Announcer(settings.notify_urls, settings.notify_summary, settings.heartbeat_url)


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Letta]:
    """Open the client of the settings' server, on the running event loop."""
    timeouts = Timeouts(read=settings.letta_read_timeout, compact=settings.letta_compact_timeout)
    key = settings.letta_api_key
    try:
        http = open_http(settings.require_letta(), None if key is None else key.get_secret_value(), timeouts=timeouts)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    tracing.watch_client(http)
    async with http:
        yield Letta(http, timeouts)

"""The HTTP door for events: `python -m scheduler.webhook`.

It verifies, commits, answers, and tells the workers; it asks the Letta server nothing. What is answered 202 is in the
ledger. Several may run on one PostgreSQL ledger; each counts its sources' requests for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp

from scheduler.door.app import Door, create_app
from scheduler.door.following import follow
from scheduler.door.intake import Intake
from scheduler.door.keys import Keys
from scheduler.door.lane import Lane
from scheduler.door.publisher import Publisher
from scheduler.door.readiness import Look
from scheduler.door.server import addresses, listen, serve
from scheduler.door.sources import Sources
from scheduler.door.tally import Tally
from worker.audit.database import current
from worker.audit.ledger import Ledger
from worker.broker import CeleryOutbox, answers, make_app
from worker.clock import Clock, utc_now
from worker.logs.masks import Masks
from worker.logs.setup import configure
from worker.policy.forecast import SlidingWindow
from worker.policyfile import PolicyFile
from worker.settings import Settings, SettingsError
from worker.startup import or_exit
from worker.telemetry import tracing

LAST_ROUND = 3.0
"""Seconds that a door which closes takes to hand on what it has not yet; the sweep does it otherwise."""


def require_keys(settings: Settings) -> None:
    """Refuse a door that anyone could walk through. Raises SettingsError."""
    if settings.webhook_open:
        for _, (address, _port) in addresses(settings.webhook_host, settings.webhook_port):
            if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
                raise SettingsError(
                    f"COMPACTOR_WEBHOOK_OPEN is set, but {settings.webhook_host} is not loopback: "
                    "a door without a key must not be reached from elsewhere"
                )
    elif settings.step_complete_key is None and not settings.webhook_secrets:
        raise SettingsError(
            "neither STEP_COMPLETE_KEY nor COMPACTOR_WEBHOOK_SECRETS is set: the door would let nobody in. Set one of "
            "them (`compactor webhooks secret` makes one), or COMPACTOR_WEBHOOK_OPEN=true for loopback alone"
        )


@dataclass(frozen=True, slots=True)
class Behind:
    """What lies behind the door. send: hands ids on to the workers; broker_answers: whether the broker is there."""

    ledger: Ledger
    policies: PolicyFile
    send: Callable[[Sequence[str]], bool]
    broker_answers: Callable[[], bool]
    now: Clock = utc_now

    @classmethod
    def open(cls, settings: Settings) -> Behind:
        """Open it as the settings have it. Raises SettingsError, PolicyError or LedgerError."""
        policies = PolicyFile(settings.policy_file, SlidingWindow(settings.letta_sliding_window))
        broker = make_app("door", settings)
        ledger = Ledger.open(settings.ledger_url)
        tracing.watch_engine(ledger.database.engine)
        return cls(ledger, policies, CeleryOutbox(broker).events, lambda: answers(broker))


def open_door(settings: Settings, behind: Behind) -> ASGIApp:
    """Put the door together."""
    events, now = behind.ledger.events, behind.now
    # What this process writes, it writes in one thread: on SQLite two would only wait for each other.
    writer = Lane("ledger-writer")
    publisher = Publisher(behind.send, lambda ids: events.enqueued(ids, now=now()), writer)
    intake = Intake(lambda arrivals: events.receive(arrivals, now=now()), publisher.add, writer)
    door = Door(
        keys=Keys(settings),
        intake=intake,
        policies=lambda: behind.policies.book().policies,
        follow=partial(follow, behind.ledger),
        reader=Lane("ledger-reader"),
        database=Look("database-look", lambda: current(behind.ledger.database) is not None),
        broker=Look("broker-look", behind.broker_answers),
    )
    tally = Tally(behind.ledger.answers.add, writer)
    return tally.over(create_app(door, Sources(settings.webhook_rate), lambda: _running(intake, publisher, tally)))


@asynccontextmanager
async def _running(intake: Intake, publisher: Publisher, tally: Tally) -> AsyncIterator[None]:
    """Run what commits, what hands on and what counts beside the pages; hand on and count what is left at the end."""
    tasks = [asyncio.create_task(one.run()) for one in (intake, publisher, tally)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(publisher.flush(), tally.flush()), LAST_ROUND)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the door until SIGTERM; ends with a sentence and status 2 where it cannot open."""
    parser = argparse.ArgumentParser(
        "python -m scheduler.webhook",
        description="The HTTP door: takes webhooks, commits them, answers. It is set up by the environment alone.",
    )
    parser.parse_args(arguments)
    settings = or_exit(Settings.load)
    configure(settings)
    tracing.start("door", Masks.of(settings).text)
    or_exit(lambda: require_keys(settings))
    app = or_exit(lambda: open_door(settings, Behind.open(settings)))
    listeners = or_exit(lambda: listen(settings.webhook_host, settings.webhook_port))
    serve(app, listeners)


if __name__ == "__main__":
    main()

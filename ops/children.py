"""The processes of one machine: what `compactor up` starts, in which order, and when each is ready."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ops import door, flower
from ops.broker import Broker
from ops.process import Child
from worker.broker import make_app
from worker.settings import Settings

DEMO_CONVERSATIONS = 40
"""Conversations that a new sandbox is seeded with."""

SUMMARIZER_SECONDS = "0.8:0.4"
"""What the sandbox's summarizer takes, and how much that varies. A real one takes longer; nobody waits for a demo."""

WORKER_GRACE, OTHERS_GRACE = 30.0, 10.0
"""Seconds from SIGTERM to SIGKILL; a worker may have compactions under way."""


@dataclass(frozen=True, slots=True)
class Site:
    """One machine's setting: what runs, where it keeps things, and the environment that ties it together."""

    settings: Settings
    broker: Broker
    environment: Mapping[str, str]
    sandbox: Path | None
    """The sandbox's database file, None where a real server is used."""
    stays: bool
    """Whether it is there to be watched: then it has Flower's pages."""


def children(site: Site) -> list[Child]:
    """Give the processes in the order of their start; they are stopped in reverse.

    The door opens when there is a worker for what comes in, and closes after beat and before the worker.
    """
    found = [] if site.sandbox is None else [_sandbox(site, site.sandbox)]
    if site.broker.command is not None:
        found.append(_broker(site))
    found.append(_worker(site))
    if site.stays:
        found.append(flower.child(site.settings, site.environment))
    if door.can_open(site.settings):
        found.append(door.child(site.settings, site.environment, grace=OTHERS_GRACE))
    return [*found, _beat(site)]


def _sandbox(site: Site, database: Path) -> Child:
    address = str(site.settings.letta_base_url).removeprefix("http://")
    host, _, port = address.partition(":")
    argv = [sys.executable, "-m", "sandbox", "--host", host, "--port", port, "--database", str(database)]
    argv += ["--seed", str(DEMO_CONVERSATIONS), "--compact-latency", SUMMARIZER_SECONDS]
    key = site.environment.get("STEP_COMPLETE_KEY", "")
    environment = {
        "STEP_COMPLETE_WEBHOOK": f"{door.address(site.settings)}{door.STEP_COMPLETE}",
        "STEP_COMPLETE_KEY": key,
    }
    return Child("sandbox", argv, environment, ready=partial(_listens, host, int(port)), grace=OTHERS_GRACE)


def _broker(site: Site) -> Child:
    broker = site.broker
    return Child(
        "broker",
        broker.command or (),
        site.environment,
        ready=broker.ready,
        grace=OTHERS_GRACE,
        pass_fds=broker.pass_fds,
    )


def _worker(site: Site) -> Child:
    app = make_app("up", site.settings)
    options = ["--hostname", "worker@%h", "--without-mingle", "--without-gossip"]
    return Child(
        "worker",
        _celery(site, "worker", "worker", *options),
        site.environment,
        ready=lambda: bool(app.control.ping(timeout=0.5, limit=1)),
        grace=WORKER_GRACE,
    )


def _beat(site: Site) -> Child:
    pidfile = site.settings.state_dir / "beat.pid"
    argv = _celery(site, "scheduler", "beat", "--pidfile", str(pidfile), quiet=True)
    return Child("beat", argv, site.environment, ready=pidfile.exists, grace=OTHERS_GRACE)


def _celery(site: Site, app: str, command: str, *options: str, quiet: bool = False) -> list[str]:
    # Beat prints its banner before any log is set up, between lines that are JSON too.
    started = [sys.executable, "-m", "celery", *(["--quiet"] if quiet else []), "-A", app, command]
    return [*started, "--loglevel", site.settings.log_level, *options]


def _listens(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=1):
        return True

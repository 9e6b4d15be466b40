"""The door as a process of its own, on a ledger and a broker of the test's choice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.network import quiet_port
from tests.support.service import Process, Service, deployed
from tests.support.signing import KEYS

NOBODY = "http://127.0.0.1:9"
"""The door asks no Letta server anything."""

PLENTY = "1000000"


@dataclass
class RunningDoor:
    """A door, where it is, and what lies behind it."""

    service: Service
    base_url: str
    process: Process

    def restart(self) -> None:
        """Start it again, at the same address."""
        self.process = self.service.door()

    def http(self) -> httpx.Client:
        """A plain client."""
        return httpx.Client(base_url=self.base_url, timeout=30, trust_env=False)


@contextmanager
def running_door(folder: Path, *, broker_url: str, database_url: str, **settings: str) -> Iterator[RunningDoor]:
    """Start a door that knows the tests' keys; all of it ends with the block."""
    port = quiet_port()
    environment = {"COMPACTOR_WEBHOOK_PORT": str(port), "COMPACTOR_WEBHOOK_RATE": PLENTY, **KEYS, **settings}
    with deployed(folder, letta_url=NOBODY, broker_url=broker_url, database_url=database_url, **environment) as service:
        yield RunningDoor(service, f"http://127.0.0.1:{port}", service.door())

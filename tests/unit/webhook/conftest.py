"""A door in this process, on a ledger of its own, with an outbox and a broker that a test holds in its hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scheduler.webhook import Behind, open_door
from tests.support.inprocess import Client, running
from tests.support.rows import NOW
from tests.support.signing import KEYS
from worker.audit.database import Database, upgrade
from worker.audit.ledger import Ledger
from worker.policy.forecast import SlidingWindow
from worker.policyfile import PolicyFile
from worker.settings import Settings

POLICY = "[policies.default]\n[policies.eager]\n"


@dataclass
class House:
    """A door and what lies behind it."""

    client: Client
    ledger: Ledger
    sent: list[str] = field(default_factory=list)
    broker_is_there: bool = True

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> Any:
        """POST a body as it is."""
        return self.client.post(path, content=body, headers=headers)


OpenHouse = Callable[..., Any]


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Any]:
    """Open a door: `with opened(COMPACTOR_WEBHOOK_RATE="5") as house`; it knows the tests' keys if not told."""

    @contextmanager
    def open_house(**settings: str) -> Iterator[House]:
        policy = tmp_path / "policy.toml"
        policy.write_text(POLICY)
        environment = {"COMPACTOR_POLICY_FILE": str(policy), "COMPACTOR_STATE_DIR": str(tmp_path), **KEYS, **settings}
        read = Settings.load(environment, directory=tmp_path)
        database = Database(read.ledger_url)
        upgrade(database)
        ledger = Ledger(database)
        house = House(None, ledger)  # type: ignore[arg-type] # the client needs the door, which needs the house

        def send(ids: Sequence[str]) -> bool:
            if house.broker_is_there:
                house.sent.extend(ids)
            return house.broker_is_there

        policies = PolicyFile(policy, SlidingWindow.EVICT)
        app = open_door(read, Behind(ledger, policies, send, lambda: house.broker_is_there, lambda: NOW))
        with running(app) as house.client:
            yield house
        ledger.close()

    return open_house


@pytest.fixture
def house(opened: OpenHouse) -> Iterator[House]:
    """A door that knows the tests' keys."""
    with opened() as made:
        yield made

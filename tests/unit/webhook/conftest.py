"""A door in this process, on a ledger of its own, with an outbox and a broker that a test holds in its hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scheduler.webhook import Behind, open_door
from tests.support.inprocess import Client, running
from tests.support.rows import NOW
from tests.support.signing import KEYS
from worker.audit.database import Database, current, upgrade
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

PLENTY = {"COMPACTOR_WEBHOOK_RATE": "100000"}
"""For the door that all tests knock at: together they ask for more in a second than one source may by default."""


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger's file with the schema and nothing else, to be copied: the migrations take longer than most tests."""
    file = tmp_path_factory.mktemp("empty") / "ledger.db"
    database = Database(f"sqlite:///{file}")
    upgrade(database)
    database.close()
    return file


@contextmanager
def open_house(folder: Path, empty_ledger: Path, settings: dict[str, str]) -> Iterator[House]:
    """Run a door in this process, on a ledger in a folder."""
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    environment = {"COMPACTOR_POLICY_FILE": str(policy), "COMPACTOR_STATE_DIR": str(folder), **KEYS, **settings}
    read = Settings.load(environment, directory=folder)
    database = Database(read.ledger_url)
    if current(database) is None:
        empty(database, empty_ledger)
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


def empty(database: Database, empty_ledger: Path) -> None:
    """Make a ledger as empty as the one that it is copied from, under those who have it open."""
    with closing(sqlite3.connect(empty_ledger)) as source, closing(sqlite3.connect(str(database.url.database))) as own:
        own.execute("pragma busy_timeout = 10000")
        source.backup(own)


@pytest.fixture
def opened(tmp_path: Path, empty_ledger: Path) -> Callable[..., Any]:
    """Open a door: `with opened(COMPACTOR_WEBHOOK_RATE="5") as house`; it knows the tests' keys if not told."""
    return lambda **settings: open_house(tmp_path, empty_ledger, settings)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, empty_ledger: Path) -> Iterator[House]:
    """One door for a module: its pages are put together once."""
    with open_house(tmp_path_factory.mktemp("door"), empty_ledger, PLENTY) as made:
        yield made


@pytest.fixture
def house(shared: House, empty_ledger: Path) -> House:
    """A door that knows the tests' keys, on an empty ledger."""
    empty(shared.ledger.database, empty_ledger)
    return shared

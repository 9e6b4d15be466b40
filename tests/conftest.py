"""Fixtures for every tier: servers to test against, each test with a database of its own, and no way out of here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy.engine import URL

from tests.support import postgres, redis
from tests.support.network import GUARD
from tests.support.sandbox import Option, Sandbox, running_sandbox

# A shared machine may stop any example for a second.
settings.register_profile("compactor", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("compactor")


@pytest.fixture(autouse=True)
def only_loopback() -> Iterator[None]:
    """Fail a test that reaches for another machine, also when the code under test swallowed the refusal."""
    GUARD.attempts.clear()
    yield
    assert not GUARD.attempts, f"tests talk to loopback addresses only: {GUARD.attempts}"


@pytest.fixture
def anyio_backend() -> str:
    """The product runs on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL for the whole run, with a database of the run's own."""
    with postgres.postgres_server() as server, postgres.own_database(server) as database:
        yield database


@pytest.fixture
def postgres_url(postgres_server: URL) -> Iterator[str]:
    """An empty schema of the test's own, which is all that its SQLAlchemy URL sees."""
    with postgres.fresh_schema(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file of the test's own, not made yet, as a SQLAlchemy URL."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind that the ledger runs on; the test runs once on each."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for the whole run."""
    with redis.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """An empty database of that Redis, this test's own, as kombu and Celery read it."""
    with redis.fresh_database(redis_server) as url:
        yield url


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes: `sandbox(seed=40, compact_latency=0.5, fault=["compact:503:0.2"])`; they end with the test."""
    with ExitStack() as running:

        def start(**options: Option) -> Sandbox:
            return running.enter_context(running_sandbox(tmp_path_factory.mktemp("sandbox"), **options))

        yield start

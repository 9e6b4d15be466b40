"""The fixtures of the conformance suite: every test runs against the real server and against the sandbox."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # pytest itself puts only this folder on the path

from tests.conformance.letta_cache import build, letta_cache
from tests.conformance.seeding import Seeded, seed_conversation
from tests.conformance.servers import KEY, RealServer, ServerUnderTest, running_real, running_sandbox
from worker.letta.client import Letta
from worker.letta.transport import open_http

REQUIRED = os.environ.get("COMPACTOR_CONFORMANCE") == "require"

NOT_BUILT = (
    "the real Letta is not built: `python -m tests.conformance.real_letta build` builds it (1.2 GB, three minutes), or "
    "COMPACTOR_CONFORMANCE=require lets this run build it"
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Build the real server before the first test, where it is required: no test's time-out runs meanwhile."""
    if REQUIRED and not config.option.collectonly and any("[real" in item.nodeid for item in items):
        build(letta_cache())


@pytest.fixture(scope="session", params=["real", "sandbox"])
def letta_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """One server of each kind for the whole run; tests make their own agents on it."""
    if request.param == "real":
        if not letta_cache().is_ready:
            pytest.skip(NOT_BUILT)
        with running_real() as real:
            yield real
    else:
        with running_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
            yield sandbox


@pytest.fixture
def real_server(letta_server: ServerUnderTest) -> RealServer:
    """For tests of what the sandbox does not pretend to do: they ask for the real server alone."""
    assert isinstance(letta_server, RealServer)
    return letta_server


@pytest.fixture
def seeded(letta_server: ServerUnderTest) -> Seeded:
    """Twenty questions and answers with an agent of their own: 41 messages in a window of 16,000 tokens."""
    return seed_conversation(letta_server)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def letta(letta_server: ServerUnderTest) -> AsyncIterator[Letta]:
    """The service's own client, on connections of its own; no test leaves its latency to the next."""
    async with open_http(letta_server.base_url, KEY) as http:
        yield Letta(http)
    letta_server.calm()

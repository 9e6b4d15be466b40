"""The fault campaign in short: each kind with a few compactions, the databases in turn; the whole is `make faults`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy.engine import URL

from tests.faults.campaign import NAMES, RANDOM, databases_of, run
from tests.faults.verdict import HEAD, Tally

SEED = 1

SIZE, RANDOM_SIZE = 3, 24

AT_ONCE = 3
"""Stages at a time: most of a stage's time is waiting."""


@pytest.fixture(scope="module")
def campaign(postgres_server: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Tally]]]:
    """Every kind's tally to come."""
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def start(number: int, name: str) -> Future[Tally]:
            databases = databases_of(name)
            database = databases[number % len(databases)]
            folder = tmp_path_factory.mktemp("faults") / name
            size = RANDOM_SIZE if name == RANDOM else SIZE
            return pool.submit(run, name, database, folder, seed=SEED + number, size=size, server=postgres_server)

        # The longest one first, so that it does not run alone at the end.
        order = sorted(enumerate(NAMES), key=lambda one: one[1] != RANDOM)
        running = {name: start(number, name) for number, name in order}
        yield running
        for future in running.values():
            future.cancel()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_doubled_lost_left_open_or_told_wrong_under(name: str, campaign: dict[str, Future[Tally]]) -> None:
    tally = campaign[name].result()
    assert tally.is_clean, "\n".join([HEAD, tally.line(), *tally.complaints])
    assert tally.counts["decided"] >= SIZE
    assert tally.counts["succeeded"] > 0

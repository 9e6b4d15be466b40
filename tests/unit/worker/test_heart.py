"""The heart renews what its process is at, and nothing else, whatever becomes of the database meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.bench import Bench, bench
from tests.support.race import race
from worker.audit.database import LedgerUnavailable
from worker.clock import utc_now
from worker.heart import Heart

LEASE = timedelta(seconds=0.15)
"""A beat each 50 ms."""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as service:
        yield service


@contextmanager
def beating(at: Bench, owner: str) -> Iterator[Heart]:
    heart = Heart(at.service.ledger, owner, LEASE, utc_now)
    try:
        yield heart
    finally:
        heart.close()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_row_is_renewed_while_the_block_runs_and_not_after_it(at: Bench) -> None:
    row = at.claimed(owner="me")
    with beating(at, "me") as heart:
        with heart.over(row.id):
            wait_until(lambda: at.row(row.id).heartbeats >= 3)
            assert abs((at.row(row.id).lease_until or utc_now()) - utc_now()) < timedelta(seconds=5)
        time.sleep(0.1)
        after = at.row(row.id).heartbeats
        time.sleep(0.3)
        assert at.row(row.id).heartbeats == after


def test_a_row_of_another_process_is_never_renewed(at: Bench) -> None:
    row, mine = at.claimed(owner="another"), at.plan(conversation_id="conv-2")
    assert at.service.ledger.compactions.claim(mine, now=at.time.now(), owner="me", lease=LEASE)
    with beating(at, "me") as heart, heart.over(row.id), heart.over(mine):
        wait_until(lambda: at.row(mine).heartbeats >= 3)
    assert at.row(row.id).heartbeats == 0


def test_a_row_is_let_go_when_the_block_fails(at: Bench) -> None:
    with beating(at, "me") as heart:
        with pytest.raises(ZeroDivisionError), heart.over("cmp-1"):
            raise ZeroDivisionError
        with heart.over("cmp-1") as alone:
            assert alone


def test_only_one_thread_of_a_process_is_at_a_row(at: Bench) -> None:
    arrived = threading.Barrier(8)
    with beating(at, "me") as heart:

        def enter(_: int) -> bool:
            with heart.over("cmp-1") as alone:
                arrived.wait(10)
                return alone

        assert sorted(race(enter)) == [False] * 7 + [True]


def test_who_was_not_alone_does_not_end_the_others_heartbeat(at: Bench) -> None:
    row = at.claimed(owner="me")
    with beating(at, "me") as heart, heart.over(row.id):
        with heart.over(row.id) as alone:
            assert not alone
        before = at.row(row.id).heartbeats
        wait_until(lambda: at.row(row.id).heartbeats > before + 1)


def test_a_database_that_is_away_for_a_while_does_not_stop_the_heart(
    at: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, missed = at.claimed(owner="me"), list[str]()

    def away(ids: Sequence[str], *, owner: str, lease_until: datetime) -> None:
        missed.extend(ids)
        raise LedgerUnavailable("the ledger is away")

    with beating(at, "me") as heart, heart.over(row.id):
        with monkeypatch.context() as patched:
            patched.setattr(at.service.ledger.compactions, "renew", away)
            wait_until(lambda: len(missed) >= 3)
        before = at.row(row.id).heartbeats
        wait_until(lambda: at.row(row.id).heartbeats > before)


def test_a_database_without_a_free_connection_is_away_like_any_other(
    at: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at.service.ledger.database.engine.pool, "_timeout", 0.05)
    with ExitStack() as users:

        def take_all() -> None:
            for _ in range(1000):
                users.enter_context(at.service.ledger.database.read())

        with pytest.raises(LedgerUnavailable, match="lower COMPACTOR_CONCURRENCY"):
            take_all()


def test_a_closed_heart_is_still(at: Bench) -> None:
    row = at.claimed(owner="me")
    heart = Heart(at.service.ledger, "me", LEASE, utc_now)
    heart.close()
    with heart.over(row.id):
        time.sleep(0.2)
    assert at.row(row.id).heartbeats == 0

"""A shutdown cuts short what waits for Letta, and what was cut short is left so that the sweep finds it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.bench import Bench, bench
from worker import compaction
from worker.audit.records import State
from worker.letta.client import Letta
from worker.loop import Interrupted
from worker.reconcile import sweep


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as service:
        yield service


def test_a_result_and_an_error_come_back_to_the_thread_that_asked(at: Bench) -> None:
    async def answer(_: Letta) -> str:
        return threading.current_thread().name

    async def fail(_: Letta) -> None:
        raise ZeroDivisionError

    assert at.service.loop.call(answer) != threading.current_thread().name
    with pytest.raises(ZeroDivisionError):
        at.service.loop.call(fail)


def test_letting_go_interrupts_what_is_under_way_and_refuses_what_comes_after(at: Bench) -> None:
    waiting = threading.Event()

    async def wait(_: Letta) -> None:
        waiting.set()
        await asyncio.sleep(600)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(at.service.loop.call, wait)
        assert waiting.wait(10)
        at.service.loop.let_go()
        with pytest.raises(Interrupted):
            asked.result(10)
    with pytest.raises(Interrupted):
        at.service.loop.call(wait)


def test_a_walk_is_interrupted_between_two_items_and_its_generator_is_closed(at: Bench) -> None:
    closed = threading.Event()

    async def count(_: Letta) -> AsyncGenerator[int, None]:
        try:
            for number in range(100):
                yield number
        finally:
            closed.set()

    walk = at.service.loop.walk(count)
    assert [next(walk), next(walk)] == [0, 1]
    at.service.loop.let_go()
    with pytest.raises(Interrupted):
        next(walk)
    assert closed.wait(10)


def interrupted_at(at: Bench, endpoint: str, id_: str) -> str:
    """Run a compaction and let go of it while the server is asked for something."""
    at.letta.hangs_at = endpoint
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(compaction.run, at.service, id_)
        assert at.letta.hanging.wait(10)
        at.service.loop.let_go()
        return running.result(10)


def test_a_compaction_interrupted_before_its_post_is_planned_again_at_once(at: Bench) -> None:
    id_ = at.plan()
    assert interrupted_at(at, "context", id_) == "released"
    row = at.row(id_)
    assert (row.state, row.not_before, row.lease_owner) == (State.PLANNED, at.time.now(), None)
    assert (id_, 0) in at.outbox.sent


def test_a_shutdown_spends_none_of_a_rows_attempts(at: Bench) -> None:
    id_ = at.plan()
    with at.service.ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE compactions SET attempts = 7")
    assert interrupted_at(at, "context", id_) == "released"
    assert at.row(id_).state == State.PLANNED


def test_a_compaction_interrupted_during_its_post_is_left_for_the_sweep_at_once(at: Bench) -> None:
    id_ = at.plan()
    assert interrupted_at(at, "compact", id_) == "left"
    row = at.row(id_)
    assert (row.state, row.lease_owner, row.lease_until) == (State.RUNNING, None, at.time.now())
    assert row.posted_at is not None
    at.time.passes(1)
    assert [found.id for found in at.service.ledger.open_rows.abandoned(now=at.time.now(), limit=10)] == [id_]


def test_a_sweep_during_a_shutdown_leaves_what_it_cannot_look_at(at: Bench) -> None:
    row = at.left()
    at.service.loop.let_go()
    assert sweep(at.service) == {"left": 1}
    assert at.row(row.id).state == State.RUNNING

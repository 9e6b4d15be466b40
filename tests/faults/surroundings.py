"""Broker, database and schedulers that fail, lose, repeat and double."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from tests.faults.servers import OwnPostgres
from tests.faults.stage import Stage
from tests.support.service import Process

QUEUES = ("scan", "compact")

RESTARTS = 3

TIMES = 5

RECEIVED = re.compile(r"Task compactor\.compact\[\S+\] received")


def flushed(stage: Stage) -> None:
    """FLUSHALL with work queued."""
    _until_queued(stage)
    stage.redis.flush()
    stage.settle()


def redis_restarted(stage: Stage) -> None:
    """Redis is killed with work queued, and started again on what it has written down; several times."""
    _until_queued(stage)
    for _ in range(RESTARTS):
        stage.redis.kill()
        stage.redis.start()
        stage.add_conversations(max(1, stage.size // RESTARTS))
        stage.until(lambda: stage.under_way() or stage.redis.queued("compact"), what="work under way again")
    stage.settle()


def redis_away(stage: Stage) -> None:
    """Redis is killed with work queued and comes back empty, after its clients have noticed."""
    worker = _until_queued(stage)
    stage.redis.flush()
    stage.redis.kill()
    stage.until(lambda: "Connection to broker lost" in worker.text(), what="the worker to notice")
    stage.redis.start()
    stage.settle()


def _until_queued(stage: Stage) -> Process:
    worker = stage.worker()
    stage.beat()
    stage.until(lambda: stage.redis.queued("compact") > 0, what="work to be queued")
    return worker


def postgres_restarted(stage: Stage, server: OwnPostgres) -> None:
    """PostgreSQL is stopped with compactions under way, until the worker has noticed, and started again."""
    worker = stage.worker()
    stage.beat()
    stage.until(stage.under_way, what="a compaction under way")
    server.stop()
    stage.until(lambda: "not available" in worker.text(), what="the worker to notice")
    server.start()
    stage.settle()


def delivered_five_times(stage: Stage) -> None:
    """Each message is sent five times, to two workers."""
    for _ in range(2):
        stage.worker(repeat=TIMES)
    stage.beat()
    stage.settle(repeat=TIMES)
    stage.until(lambda: not any(map(stage.redis.queued, QUEUES)), what="the queues to be empty")
    told = len(RECEIVED.findall(stage.service.logs()))
    stage.expect(told >= TIMES * stage.size, f"{told} messages came for {stage.size} compactions")


def two_schedulers(stage: Stage) -> None:
    """Two beats, as from two machines: every tick and every sweep comes twice."""
    for _ in range(2):
        stage.worker()
    stage.beat()
    stage.service.environment["COMPACTOR_STATE_DIR"] = str(stage.folder / "other-state")
    (stage.folder / "other-state").mkdir()
    stage.beat()
    stage.settle()


def two_scans(stage: Stage) -> None:
    """Two scans of everything are ordered by hand at once, beside the schedule's."""
    for _ in range(2):
        stage.worker()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: stage.service.compactor("scan"), range(2)))
    stage.beat()
    stage.settle()

"""One stage of the campaign: a sandbox, a broker, a ledger, real processes, and conversations that need compacting."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.seeding import SYSTEM, history
from tests.faults.servers import OwnRedis, own_redis
from tests.faults.verdict import Tally, judge
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.service import Process, Service, deployed
from worker.audit.database import LedgerUnavailable
from worker.audit.ledger import Ledger
from worker.audit.records import OPEN_STATES, Compaction
from worker.audit.reports import Wanted

ROOT = Path(__file__).parents[2]
HOOK = Path(__file__).parent / "hook"

LONG_AGO = "2026-01-01T00:00:00Z"

WINDOW, PAIRS, TEXT_CHARS = 5_000, 14, 600
"""A conversation over the trigger that is quick to measure: 29 messages, about 0.87 of its window."""

SUMMARY_SECONDS = 0.5
"""How long the sandbox takes for a compaction, unless a kind says otherwise: time to be struck in."""

POLICY = """
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "1s"
cooldown = "6h"

[schedules.often]
policy = "default"
every = "2s"
"""

SETTINGS = {
    "LETTA_COMPACT_TIMEOUT": "4",
    "LETTA_SERVER_LIMIT": "6",
    "LETTA_DEFAULT_CONVERSATIONS": "false",
    "COMPACTOR_CONCURRENCY": "6",
    "COMPACTOR_LEASE": "1.5",
    "COMPACTOR_RECONCILE_EVERY": "1",
    "COMPACTOR_LOOK_AGAIN_AFTER": "1",
    "COMPACTOR_MESSAGE_PATIENCE": "5",
    "COMPACTOR_SCAN_LEASE": "5",
    "COMPACTOR_SHUTDOWN_GRACE": "1",
    "COMPACTOR_STALE_RUN_AFTER": "1",
}
"""The service's own waits, shortened. The server's limit exceeds every latency of the sandbox that a kind sets."""

SETTLE_SECONDS = 240.0

UPGRADING = threading.Lock()
"""Alembic upgrades one database of a process at a time."""


@dataclass
class Stage:
    """Where one kind of fault strikes. wanted: the conversations to be compacted, by id; seen: rows ever planned."""

    folder: Path
    sandbox: Sandbox
    redis: OwnRedis
    service: Service
    ledger: Ledger
    dice: random.Random
    tally: Tally
    size: int
    wanted: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    fleet: list[Process] = field(default_factory=list)

    def add_conversations(self, number: int) -> None:
        """Make conversations over the trigger, each with an agent of its own, long idle."""
        with self.sandbox.http() as http:
            for _ in range(number):
                body = {
                    "name": f"agent {uuid.uuid4().hex}",
                    "model": "openai-proxy/gpt-4o-mini",
                    "system": SYSTEM,
                    "context_window_limit": WINDOW,
                    "memory_blocks": [],
                    "include_base_tools": False,
                    "agent_type": "letta_v1_agent",
                }
                agent = http.post("/v1/agents/", json=body).raise_for_status().json()["id"]
                made = http.post("/v1/conversations/", params={"agent_id": agent}, json={}).raise_for_status()
                id_ = made.json()["id"]
                said = {"messages": list(history(PAIRS, TEXT_CHARS)), "streaming": False}
                http.post(f"/v1/conversations/{id_}/messages", json=said).raise_for_status()
                http.patch(f"/v1/conversations/{id_}", json={"last_message_at": LONG_AGO}).raise_for_status()
                self.wanted[id_] = agent

    def worker(self, *, kill: dict[str, int] | None = None, **told: Any) -> Process:
        """Start a worker, perhaps one that is to die at certain points, or is misled."""
        faults = {"kill": kill or {}, "folder": str(self.folder), "seed": self.dice.random(), **told}
        self.service.environment |= {"FAULTS": json.dumps(faults), "FAULTS_PROCESS": str(len(self.service.processes))}
        try:
            process = self.service.worker()
        except AssertionError:
            # One that died before it said that it was ready has met its fate early.
            process = self.service.processes[-1]
            if process.popen.returncode is None or process.popen.returncode > 0:
                raise
        finally:
            del self.service.environment["FAULTS"]
        self.fleet.append(process)
        return process

    def beat(self) -> Process:
        """Start a beat: from now on the conversations are scanned, and what is stuck is swept up."""
        return self.service.beat()

    def replace_the_dead(self, **told: Any) -> None:
        """Start a worker for each that is gone."""
        for process in [one for one in self.fleet if one.popen.poll() is not None]:
            self.fleet.remove(process)
            status = process.popen.returncode
            self.expect(status <= 0, f"a worker ended by itself with status {status}: {process.log}")
            self.worker(**told)

    def rows(self) -> list[Compaction]:
        """The ledger's rows; none while the database is away. Remembers which there were."""
        try:
            rows = list(self.ledger.reports.compactions(Wanted(), limit=None, oldest_first=True))
        except LedgerUnavailable:
            return []
        self.seen |= {row.id for row in rows}
        return rows

    def closed(self) -> int:
        """How many rows have come to their end."""
        return sum(row.finished_at is not None for row in self.rows())

    def under_way(self) -> list[str]:
        """The conversations that the server is compacting at this moment."""
        return [name for name, log in self.sandbox.compactions().items() if any(map(_is_open, log["history"]))]

    def until(self, holds: Callable[[], Any], seconds: float = 60.0, *, what: str = "") -> None:
        """Wait until something holds; a wait in vain is a complaint, not the end: the verdict tells the rest."""
        deadline = time.monotonic() + seconds
        while not holds():
            self.rows()
            if time.monotonic() > deadline:
                self.tally.complaints.append(f"waited {seconds:g} s in vain for {what or 'a condition'}")
                return
            time.sleep(0.1)

    def settle(
        self, seconds: float = SETTLE_SECONDS, *, meanwhile: Callable[[], None] = lambda: None, **told: Any
    ) -> None:
        """Go on, with new workers for dead ones, until every conversation was decided and nothing is open."""

        def settled() -> bool:
            meanwhile()
            self.replace_the_dead(**told)
            rows = self.rows()
            decided = {row.conversation_id for row in rows}
            return set(self.wanted) <= decided and not any(row.state in OPEN_STATES for row in rows)

        self.until(settled, seconds, what="every row to be closed")

    def judge(self) -> None:
        """Wait for what the server still has under way, then hold the ledger against it."""
        self.sandbox.set_faults()
        self.until(lambda: not self.under_way(), 30, what="the server to finish")
        judge(self.tally, self.sandbox, self.rows(), wanted=self.wanted, seen=self.seen)

    def expect(self, holds: object, sentence: str) -> None:
        """Complain unless the fault struck as it was meant to: a campaign without faults proves nothing."""
        if not holds:
            self.tally.complaints.append(sentence)


def _is_open(entry: dict[str, Any]) -> bool:
    return not entry["committed"] and entry["refused"] is None


@contextmanager
def staged(
    folder: Path, tally: Tally, *, database_url: str, seed: int, size: int, begin_with: int, settings: dict[str, str]
) -> Iterator[Stage]:
    """Set a stage up; everything ends with the block. size: conversations in all; begin_with: made at once."""
    (folder / "redis").mkdir()
    with ExitStack() as stack:
        sandbox = stack.enter_context(running_sandbox(folder, compact_latency=SUMMARY_SECONDS, seed_value=seed))
        redis = stack.enter_context(own_redis(folder / "redis"))
        deployment = deployed(
            folder,
            letta_url=sandbox.base_url,
            broker_url=redis.url,
            database_url=database_url,
            policy=POLICY,
            **{"PYTHONPATH": f"{HOOK}:{ROOT}", **SETTINGS, **settings},
        )
        with UPGRADING:
            service = stack.enter_context(deployment)
        ledger = stack.enter_context(closing(service.ledger()))
        stage = Stage(folder, sandbox, redis, service, ledger, random.Random(seed), tally, size)
        stage.add_conversations(begin_with)
        yield stage

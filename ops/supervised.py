"""One child's history under the supervisor: its present process, its state, its restarts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ops.guardian import Guardian
from ops.process import Child, Process

POLL_SECONDS = 0.05
"""How often a child that stops is looked at."""


class State(StrEnum):
    """What a child is doing."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "restarting"
    STOPPED = "stopped"
    DEAD = "dead"


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a dead child is started again: doubling from `first` to `longest` seconds.

    A child that lived `calm` seconds starts over at `first`.
    """

    first: float = 1.0
    longest: float = 30.0
    calm: float = 60.0

    def after(self, previous: float, lived: float) -> float:
        """Give the next delay, after a child that waited `previous` seconds (0: never) and lived `lived` seconds."""
        if previous <= 0 or lived >= self.calm:
            return self.first
        return min(previous * 2, self.longest)


DEFAULT_BACKOFF = Backoff()
"""1, 2, 4, ... 30 seconds, and from 1 again after a minute of life."""


@dataclass(frozen=True)
class ChildStatus:
    """One child at a glance; `uptime` in seconds, 0 when it does not run."""

    name: str
    pid: int | None
    state: State
    uptime: float
    restarts: int


class Supervised:
    """A child, from its first start to its last stop.

    `write` takes its lines, `say` what happens to it; the guardian learns of every process.
    """

    def __init__(
        self,
        child: Child,
        *,
        backoff: Backoff,
        guardian: Guardian,
        write: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.child = child
        self.state = State.PENDING
        self.why_not_ready = ""
        self._process: Process | None = None
        self._backoff = backoff
        self._guardian = guardian
        self._write = write
        self._say = say
        self._restarts = 0
        self._delay = 0.0
        self._start_at = 0.0

    def spawn(self) -> None:
        """Start its process; raises OSError when it cannot be started."""
        self._process = Process(self.child, self._write)
        self.state = State.STARTING
        self._guardian.watch(self._process.pid, self.child.grace)
        if self.child.ready is None:
            self.state = State.RUNNING
            self._say(f"{self.child.name} is started (pid {self._process.pid})")

    def look(self) -> None:
        """Notice what became of it: dead (start it again when its delay is over), or ready by now."""
        process = self._process
        if self.state is State.WAITING and time.monotonic() >= self._start_at:
            self._restart()
        elif self.state in {State.STARTING, State.RUNNING} and process is not None:
            if process.ended():
                self._died(process)
            elif self.state is State.STARTING and self._is_ready():
                self.state = State.RUNNING
                again = " again" if self._restarts else ""
                self._say(f"{self.child.name} is ready{again} after {process.uptime:.1f} s (pid {process.pid})")

    def ended(self) -> str | None:
        """Say how its present process ended; None while it runs."""
        if self._process is not None and self._process.ended():
            return self._process.how_it_ended()
        return None

    def stop(self, hurried: Callable[[], bool]) -> None:
        """SIGTERM, its grace time (none when hurried), then SIGKILL to its group."""
        process, running = self._process, self.state in {State.STARTING, State.RUNNING}
        if self.state is not State.DEAD:
            self.state = State.STOPPED
        if process is None or not running:
            return
        if not process.ended():
            process.terminate()
            deadline = time.monotonic() + self.child.grace
            while not hurried() and time.monotonic() < deadline and not process.wait(POLL_SECONDS):
                continue
            if not process.ended():
                self._say(f"{self.child.name} did not end {'at once' if hurried() else f'in {self.child.grace:g} s'}")
                process.kill()
                process.wait(self.child.grace)
        self._guardian.forget(process.pid)
        self._say(f"{self.child.name} {process.how_it_ended()}")

    def status(self) -> ChildStatus:
        """Its line in the table."""
        process = self._process if self.state in {State.STARTING, State.RUNNING} else None
        pid, uptime = (process.pid, process.uptime) if process else (None, 0.0)
        return ChildStatus(self.child.name, pid, self.state, uptime, self._restarts)

    def _is_ready(self) -> bool:
        try:
            return self.child.ready is None or self.child.ready()
        except Exception as error:  # the check is not ours: whatever it raises is a no
            self.why_not_ready = str(error) or type(error).__name__
            return False

    def _died(self, process: Process) -> None:
        self._guardian.forget(process.pid)
        what = f"{self.child.name} {process.how_it_ended()} after {process.uptime:.0f} s"
        if self.child.restart:
            self._restart_later(what, lived=process.uptime)
        else:
            self.state = State.DEAD
            self._say(what)

    def _restart_later(self, what: str, lived: float) -> None:
        self._delay = self._backoff.after(self._delay, lived)
        self._start_at = time.monotonic() + self._delay
        self.state = State.WAITING
        self._say(f"{what}; starting it again in {self._delay:g} s")

    def _restart(self) -> None:
        self._restarts += 1
        try:
            self.spawn()
        except OSError as error:
            self._restart_later(f"{self.child.name} could not be started: {error.strerror}", lived=0)

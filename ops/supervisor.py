"""Runs the service's processes on one machine: starts them in order, restarts what dies, stops them in reverse.

Why our own: common process managers signal all children at once, and then the broker goes before the worker that still
has to give its messages back.
"""

import atexit
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from rich.table import Table

from ops.childlog import ChildLog
from ops.guardian import Guardian
from ops.interruption import Interruption
from ops.process import Child
from ops.supervised import DEFAULT_BACKOFF, Backoff, ChildStatus, State, Supervised

TICK_SECONDS = 0.1
"""How often the children are looked at, and how soon a signal is acted on."""

START_TICK_SECONDS = 0.05
"""How often a starting child is asked whether it is ready."""

OWN_NAME = "up"
"""The supervisor's own name in the log; no child may have it."""


class SupervisorError(Exception):
    """A child could not be started; the message names it, says why and quotes its last lines."""


class Supervisor:
    """A context manager around the children: inside it they run, after it none is left.

    Entering starts them in order, each when the one before is ready, and raises SupervisorError when one does not get
    ready. Leaving stops them in reverse. SIGINT, SIGTERM and SIGHUP lead there too: `wait` and `run_until` return,
    other code in the block (and the start) gets a KeyboardInterrupt, and `interrupted_by` tells the signal. A second
    signal hurries the stop: no more grace. Enter it in the main thread, or no signal is looked after.
    Nothing survives a supervisor that is killed outright either: see `ops.guardian`.

    The log must have been made for the children's names and OWN_NAME (`log_names`).
    """

    def __init__(self, children: Sequence[Child], log: ChildLog, backoff: Backoff = DEFAULT_BACKOFF) -> None:
        self._children = children
        self._log = log
        self._backoff = backoff
        self._supervised: list[Supervised] = []
        self._started: list[Supervised] = []
        self._interruption = Interruption()
        self._guardian: Guardian | None = None
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._interruption.install()
        atexit.register(self.stop)
        try:
            guardian = self._guardian = Guardian()
            self._supervised = [self._supervise(child, guardian) for child in self._children]
            self._watcher.start()
            for supervised in self._supervised:
                self._start(supervised)
                self._started.append(supervised)
        except BaseException:
            self._leave()
            raise
        self._interruption.raising = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def interrupted_by(self) -> signal.Signals | None:
        """The signal that asked for the end, if one did."""
        return self._interruption.signal

    def status(self) -> tuple[ChildStatus, ...]:
        """Every child at a glance, in the order of their start."""
        return tuple(supervised.status() for supervised in self._supervised)

    def status_table(self) -> Table:
        """Every child at a glance, for a terminal."""
        table = Table("process", "pid", "state", "up", "restarts")
        for one in self.status():
            table.add_row(one.name, str(one.pid or "-"), one.state, f"{one.uptime:.0f} s", str(one.restarts))
        return table

    def wait(self) -> None:
        """Stay until a signal asks for the end."""
        self.run_until(lambda: False)

    def run_until(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Stay until the predicate holds (True), or a signal came or `timeout` seconds have passed (False)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not self.interrupted_by:
                if predicate():
                    return True
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                time.sleep(TICK_SECONDS)
        except KeyboardInterrupt:
            if not self.interrupted_by:
                raise
        return False

    def stop(self) -> None:
        """Stop the children in reverse order, each with its grace time; again is harmless."""
        if self._stopping.is_set():
            return
        self._interruption.raising = False
        self._stopping.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for supervised in reversed(self._supervised):
            supervised.stop(lambda: self._interruption.hurried)
        if self._guardian is not None:
            self._guardian.dismiss()

    def _leave(self) -> None:
        self._interruption.raising = False
        try:
            self.stop()
        finally:
            atexit.unregister(self.stop)
            self._interruption.restore()

    def _supervise(self, child: Child, guardian: Guardian) -> Supervised:
        write, say = partial(self._log.write, child.name), partial(self._log.write, OWN_NAME)
        return Supervised(child, backoff=self._backoff, guardian=guardian, write=write, say=say)

    def _start(self, supervised: Supervised) -> None:
        child = supervised.child
        self._interruption.check()
        try:
            supervised.spawn()
        except OSError as error:
            raise SupervisorError(f"{child.name} could not be started: {child.argv[0]}: {error.strerror}") from error
        if supervised.state is not State.RUNNING:
            self._await_ready(supervised)

    def _await_ready(self, supervised: Supervised) -> None:
        child, deadline = supervised.child, time.monotonic() + supervised.child.ready_within
        while True:
            self._interruption.check()
            if how := supervised.ended():
                raise SupervisorError(self._with_last_lines(child, f"{child.name} {how} before it was ready."))
            supervised.look()
            if supervised.state is State.RUNNING:
                return
            if time.monotonic() >= deadline:
                reason = f" ({supervised.why_not_ready})" if supervised.why_not_ready else ""
                text = f"{child.name} was not ready within {child.ready_within:g} s{reason}."
                raise SupervisorError(self._with_last_lines(child, text))
            time.sleep(START_TICK_SECONDS)

    def _with_last_lines(self, child: Child, text: str) -> str:
        lines = self._log.tail(child.name)
        if not lines:
            return f"{text} It wrote nothing."
        return "\n".join([f"{text} Its last lines:", *(f"  {line}" for line in lines)])

    def _watch(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            if self._guardian is not None:
                self._guardian.keep()
            for supervised in tuple(self._started):
                if not self._stopping.is_set():
                    supervised.look()


def log_names(children: Sequence[Child]) -> list[str]:
    """Names for the log: the supervisor's own and the children's; raises ValueError when one is used twice."""
    names = [OWN_NAME, *(child.name for child in children)]
    if len(set(names)) != len(names):
        raise ValueError(f"two processes of one name among: {', '.join(names)}")
    return names

"""One child of the supervisor: what to run, and the running process with its pipe."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

MAX_LINE_BYTES = 65_536
"""A longer line is cut into pieces of this size, so that a child that never ends its line cannot fill the memory."""


@dataclass(frozen=True)
class Child:
    """What to run, and how to treat it.

    `env` is added to the environment of the supervisor. `ready` answers within a second or so whether the child does
    its work by now (it may raise: that is a no, with a reason); without it a child is ready once started.
    `ready_within` and `grace` are seconds: the longest start, and from SIGTERM to SIGKILL.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready: Callable[[], bool] | None = None
    ready_within: float = 30.0
    grace: float = 10.0
    restart: bool = True
    pass_fds: Sequence[int] = ()


class Process:
    """A started child, the leader of a session and a process group of its own."""

    def __init__(self, child: Child, write: Callable[[str], None]) -> None:
        """Start it; its output goes to `write` line by line. Raises OSError when it cannot be started."""
        self.child = child
        self.started_at = time.monotonic()
        self._cleared = False
        self._popen = subprocess.Popen(
            list(child.argv),
            # The environment is handed on, not read: the settings are read elsewhere.
            env={**os.environ, "PYTHONUNBUFFERED": "1", **child.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(child.pass_fds),
            start_new_session=True,
        )
        self._reader = threading.Thread(
            target=_read_lines, args=(self._popen.stdout, write), name=f"log of {child.name}", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """The child's process id, which is its group's id as well."""
        return self._popen.pid

    @property
    def uptime(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started_at

    def ended(self) -> bool:
        """Whether it has ended; the rest of its group is killed and its last lines are in the log by then."""
        if self._popen.poll() is None:
            return False
        if not self._cleared:
            self._cleared = True  # once: the group's number may be another's later
            self.kill()
        # A process that left the group may hold the pipe for ever.
        self._reader.join(timeout=1.0)
        return True

    def terminate(self) -> None:
        """Ask the child alone to end: what it started is its own to end."""
        with suppress(ProcessLookupError):
            self._popen.terminate()

    def kill(self) -> None:
        """Kill the whole group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; whether it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)
        return self.ended()

    def how_it_ended(self) -> str:
        """Its exit code or signal, in words."""
        code = self._popen.returncode
        if code is None:
            return "is running"
        if code >= 0:
            return f"ended with exit code {code}"
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"


def _read_lines(pipe: IO[bytes] | None, write: Callable[[str], None]) -> None:
    if pipe is None:
        return
    with pipe:
        while raw := pipe.readline(MAX_LINE_BYTES):
            write(raw.decode("utf-8", errors="replace").rstrip("\r\n"))

"""Ends a supervisor's children when the supervisor itself was killed and could not.

A process of its own that holds the reading end of a pipe. The supervisor writes down each child it starts; when the
pipe closes, for whatever reason, the guardian stops the children that are still written down: last started first,
each with its grace time, as the supervisor would have.

Why not PR_SET_PDEATHSIG: it is Linux alone, fires when the *thread* that forked ends, needs code between fork and exec
in a process with threads, signals all children at once (the broker goes before the worker that still needs it) and
does not reach grandchildren. What this leaves open: a supervisor killed in the microseconds between starting a child
and writing it down.

Run as a script with nothing but the standard library, so that it starts in a few milliseconds.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

POLL_SECONDS = 0.05
"""How often a stopping child is looked at."""


class Guardian:
    """The supervisor's side: starts the guardian's process and tells it what runs."""

    def __init__(self) -> None:
        self._children: dict[int, float] = {}
        self._lock = threading.Lock()
        self._process = self._spawn()

    @property
    def pid(self) -> int:
        """The guardian's process id."""
        return self._process.pid

    def watch(self, pid: int, grace: float) -> None:
        """Write down a child, the leader of its process group, with its grace time in seconds."""
        with self._lock:
            self._children[pid] = grace
            self._tell(f"+{pid} {grace}\n")

    def forget(self, pid: int) -> None:
        """Cross out a child that has ended."""
        with self._lock:
            if self._children.pop(pid, None) is not None:
                self._tell(f"-{pid}\n")

    def keep(self) -> None:
        """Start the guardian again when somebody killed it."""
        with self._lock:
            if self._process.poll() is not None:
                self._replace()

    def dismiss(self) -> None:
        """Close the pipe and wait for the guardian; what is still written down is stopped by it."""
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError):
                stdin.close()
        self._process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is not for it
        )

    def _tell(self, notes: str) -> None:
        if self._process.stdin is None:
            return
        try:
            self._process.stdin.write(notes.encode())
        except OSError:
            self._process.wait()
            self._replace()

    def _replace(self) -> None:
        self._process = self._spawn()
        if self._process.stdin is not None:
            self._process.stdin.write("".join(f"+{pid} {grace}\n" for pid, grace in self._children.items()).encode())


def read_children(lines: Iterable[str]) -> dict[int, float]:
    """Follow the supervisor's notes to their end; what remains is still running.

    Pid to grace in seconds, oldest first.
    """
    children: dict[int, float] = {}
    for line in lines:
        sign, note = line[:1], line[1:].split()
        if sign == "+":
            children[int(note[0])] = float(note[1])
        elif sign == "-":
            children.pop(int(note[0]), None)
    return children


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _zombie(pid)


def _zombie(pid: int) -> bool:
    """Whether a process has ended and waits for a parent that never reaps it, as PID 1 of a bare container."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return False


def stop(pid: int, grace: float) -> None:
    """SIGTERM to a group's leader, its grace time in seconds, then SIGKILL to what is left of the group."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def main() -> None:
    """Wait for the pipe to close, then stop what is still written down."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    children = read_children(sys.stdin)
    for pid, grace in reversed(children.items()):
        stop(pid, grace)


if __name__ == "__main__":
    main()

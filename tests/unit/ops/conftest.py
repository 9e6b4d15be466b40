"""Little Python children for the supervisor, and ways to ask after them."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.childlog import ChildLog
from ops.process import Child
from ops.supervisor import Backoff, Supervisor, log_names

PYTHON = (sys.executable, "-I", "-S", "-u", "-c")

OBEDIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open({journal!r}, "a").write("stop {name}\\n"), sys.exit(0)))
open({journal!r}, "a").write("start {name}\\n")
print("{name} runs", flush=True)
while True: time.sleep(60)
"""

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal, time; time.sleep(600)"])
open({journal!r}, "a").write(f"start {name}\\npid {{grandchild.pid}}\\n")
while True: time.sleep(60)
"""


class Workshop:
    """Makes children that write into one journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal_path = folder / "journal"
        self.journal_path.touch()

    def obedient(self, name: str, **options: object) -> Child:
        return self.child(name, OBEDIENT.format(journal=str(self.journal_path), name=name), **options)

    def stubborn(self, name: str, **options: object) -> Child:
        return self.child(name, STUBBORN.format(journal=str(self.journal_path), name=name), **options)

    def child(self, name: str, script: str, **options: object) -> Child:
        return Child(name, (*PYTHON, script), **options)  # type: ignore[arg-type]

    def journal(self) -> list[str]:
        return self.journal_path.read_text().splitlines()

    def written(self, line: str) -> Callable[[], bool]:
        return lambda: line in self.journal()

    def supervisor(self, *children: Child, backoff: Backoff | None = None) -> Supervisor:
        self.log = ChildLog(self.folder / "log", log_names(children))
        return Supervisor(children, self.log, backoff or Backoff(first=0.05, longest=0.4, calm=60))

    def lines(self, name: str) -> list[str]:
        """What stands in a child's file, without the times."""
        text = (self.folder / "log" / f"{name}.log").read_text()
        return [line.split(" ", 2)[2] for line in text.splitlines()]


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path)
    made.log = None  # type: ignore[assignment]
    yield made
    if made.log is not None:
        made.log.close()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture
def gone() -> Callable[[int, float], bool]:
    """A function that waits for a process to be gone, at most so many seconds; whether it is."""

    def wait(pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not is_alive(pid)

    return wait

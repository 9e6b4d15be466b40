"""A Redis of a test's own that asks for a password, and everything that passes through it."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.support.needs import missing
from tests.support.network import quiet_port

START_SECONDS = 20.0


@dataclass
class Guarded:
    """url: with its password; passed: every command that it was given, as it came."""

    url: str
    client: redis.Redis
    passed: list[str] = field(default_factory=list)

    def kept(self) -> list[bytes]:
        """Give every key and every value that it holds now."""
        found: list[bytes] = []
        for key in self.client.scan_iter():
            found += [key, self.client.dump(key) or b"", *self._values(key)]
        return found

    def _values(self, key: bytes) -> list[bytes]:
        kind = self.client.type(key)
        if kind == b"list":
            return list(self.client.lrange(key, 0, -1))
        if kind == b"hash":
            return [one for pair in self.client.hgetall(key).items() for one in pair]
        if kind == b"set":
            return list(self.client.smembers(key))
        if kind == b"zset":
            return list(self.client.zrange(key, 0, -1))
        return [self.client.get(key) or b""]

    def listen(self) -> None:
        """Keep every command until the server ends."""
        with suppress(redis.ConnectionError), self.client.monitor() as monitor:
            for command in monitor.listen():
                self.passed.append(str(command["command"]))


@contextmanager
def guarded_redis(folder: Path, password: str) -> Iterator[Guarded]:
    """Run one; without a redis-server on this machine the test is skipped."""
    program = shutil.which("redis-server")
    if program is None:
        missing("no redis-server on this machine (Debian's package redis-server)")
    port = quiet_port()
    configuration = f'bind 127.0.0.1\nport {port}\nrequirepass "{password}"\nsave ""\ndir "{folder}"\n'
    with (folder / "redis-server.log").open("wb") as output:
        process = subprocess.Popen([program, "-"], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
    assert process.stdin is not None
    process.stdin.write(configuration.encode())
    process.stdin.close()
    # A listener may hear nothing for long.
    client = redis.Redis(port=port, password=password, socket_timeout=None)
    guarded = Guarded(f"redis://:{password}@127.0.0.1:{port}/0", client)
    try:
        _await(guarded.client)
        listener = threading.Thread(target=guarded.listen, daemon=True)
        listener.start()
        yield guarded
    finally:
        process.terminate()
        process.wait(START_SECONDS)
        guarded.client.close()


def _await(client: redis.Redis) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(redis.ConnectionError):
            client.ping()
            return
        if time.monotonic() > deadline:
            raise RuntimeError("the Redis did not come up")
        time.sleep(0.05)

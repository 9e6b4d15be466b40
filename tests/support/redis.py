"""A Redis for the tests: the one that is named, the one that runs here, or one of our own; and a database of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import redis

from ops.broker import BrokerUnavailable, choose_broker
from tests.support.needs import missing

SETTING = "COMPACTOR_TEST_REDIS_URL"

LOCAL = "redis://127.0.0.1:6379"

CLAIM = "compactor-test-claim"

CLAIM_SECONDS = 3600
"""After this long a claim counts as left behind by a run that was killed."""

DATABASES = range(15, 0, -1)
"""A Redis has sixteen; number 0 is where others work."""

START_SECONDS = 20.0


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Give the address of a Redis, as kombu writes it; ours ends with the block. Else the test is skipped."""
    named = os.environ.get(SETTING)
    if named:
        if not _answers(named):
            raise RuntimeError(f"{SETTING} names a Redis that does not answer")
        yield named
    elif _answers(LOCAL):
        yield LOCAL
    else:
        with own_redis(folder) as url:
            yield url


@contextmanager
def own_redis(folder: Path) -> Iterator[str]:
    """Run an embedded broker as `compactor up` would choose it, the pure-Python stand-in left out."""
    try:
        broker = choose_broker(None, folder)
    except BrokerUnavailable as error:
        missing(f"no Redis: {error} For tests, {SETTING} does.")
    assert broker.command is not None
    with (folder / "redis.log").open("ab") as output:
        process = subprocess.Popen(
            broker.command, stdout=output, stderr=subprocess.STDOUT, pass_fds=broker.pass_fds, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not broker.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{broker.note} did not come up: {(folder / 'redis.log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield broker.url
    finally:
        process.terminate()
        process.wait(20)
        broker.close()


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """Claim an empty database of the server and give its URL; it alone is emptied again at the end."""
    for number in DATABASES:
        url = _numbered(server, number)
        with _client(url) as client:
            mine = uuid4().hex
            if not client.set(CLAIM, mine, nx=True, ex=CLAIM_SECONDS):
                continue
            if client.dbsize() != 1:
                client.delete(CLAIM)
                continue
            try:
                yield url
            finally:
                client.flushdb()
            return
    missing(f"no empty database among the numbers 1 to 15 of the Redis at {_shown(server)}: name another in {SETTING}")


def _numbered(server: str, number: int) -> str:
    """Name one database, in the form that kombu reads for each kind of address."""
    parts = urlsplit(server)
    if parts.scheme == "redis+socket":
        return f"redis+socket://{parts.path}?virtual_host={number}"
    return parts._replace(path=f"/{number}").geturl()


def _client(url: str) -> redis.Redis:
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return redis.Redis.from_url(url, socket_connect_timeout=2)
    number = parts.query.removeprefix("virtual_host=") or "0"
    return redis.Redis(unix_socket_path=parts.path, db=int(number))


def _answers(url: str) -> bool:
    with suppress(redis.RedisError, OSError), _client(url) as client:
        return bool(client.ping())
    return False


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

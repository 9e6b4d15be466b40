"""The real Letta server, started from the cache on free loopback ports, with its database and a stand-in model.

    with running_letta() as server:
        httpx.get(server.base_url + "/v1/health/")

As a program, from the project's folder:

    python -m tests.conformance.real_letta build    build the cache, or say that it is built
    python -m tests.conformance.real_letta serve    start it, print its address, stay until Ctrl-C
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.conformance.letta_cache import BuildError, LettaCache, build, letta_cache, scratch_folder
from tests.conformance.model_standin import ModelStandin, running_standin
from tests.conformance.postgres_child import (
    binaries,
    free_port,
    give_to_postgres_user,
    running_postgres,
    stop,
    tail,
)

START_SECONDS = 120.0
"""How long Letta may take to answer its health check; it took 13 to 20 s on two cores."""


@dataclass(frozen=True)
class RealLetta:
    """A running server: where it is, the model behind it, and its log."""

    base_url: str
    model: ModelStandin
    log: Path


@contextmanager
def running_letta(cache: LettaCache | None = None, **extra_environment: str) -> Iterator[RealLetta]:
    """Start everything on a fresh copy of the database, and end it all with the block; builds the cache if need be."""
    cache = cache or letta_cache()
    build(cache)
    with scratch_folder("letta-run-") as scratch, running_standin() as model:
        data = scratch / "database"
        shutil.copytree(cache.database, data)
        data.chmod(0o700)
        give_to_postgres_user(data)
        bin_folder = binaries(cache.site_packages, scratch)
        with running_postgres(bin_folder, data, scratch / "postgres.log") as postgres:
            environment = letta_environment(scratch, postgres.url("postgresql"), model) | extra_environment
            with letta_process(cache, scratch, environment) as base_url:
                yield RealLetta(base_url, model, scratch / "letta.log")


def letta_environment(scratch: Path, database: str, model: ModelStandin) -> dict[str, str]:
    """What the server reads; nothing of the caller's own Letta, model keys or proxies comes through."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(scratch),
        "LETTA_DIR": str(scratch / "letta"),
        "LETTA_PG_URI": f"{database}?sslmode=disable",
        "OPENAI_API_KEY": "sk-standin",
        "OPENAI_API_BASE": model.base_url,
        # At its start the server fetches data that no test needs; a proxy that is not there keeps it on this machine.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }


@contextmanager
def letta_process(cache: LettaCache, scratch: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `letta server` and yield its address once it answers; RuntimeError with its log's tail if it does not."""
    port, log = free_port(), scratch / "letta.log"
    (scratch / "letta").mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [cache.letta, "server", "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=scratch,
            start_new_session=True,
        )
    base_url = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(base_url, process, log)
        yield base_url
    finally:
        stop(process)


def wait_until_healthy(base_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the health check is answered with 200."""
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get(f"{base_url}/v1/health/").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
    how = f"ended with status {process.returncode}" if process.returncode is not None else "does not answer"
    raise RuntimeError(f"The real Letta {how} after its start. The end of its log:\n{tail(log)}")


def main(arguments: list[str]) -> int:
    """The program: 0 done, 1 could not be built or started, 2 wrong use."""
    if arguments not in (["build"], ["serve"]):
        print(__doc__, file=sys.stderr)  # noqa: T201 - a program's own output
        return 2
    cache, ended = letta_cache(), threading.Event()
    try:
        build(cache)
        print(f"built: {cache.folder}", flush=True)  # noqa: T201
        if arguments == ["build"]:
            return 0
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: ended.set())
        with running_letta(cache) as server:
            print(f"letta ready at {server.base_url} (its log: {server.log}; Ctrl-C ends it)", flush=True)  # noqa: T201
            ended.wait()
    except (BuildError, RuntimeError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

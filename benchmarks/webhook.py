"""How many webhooks one door process takes in a second, beside a bare FastAPI handler that does nothing, in one run.

    python -m benchmarks.webhook [--seconds 1.5] [--rounds 3] [--at-once 1,16,64,256]

Both run as processes of their own on the same uvicorn, loop and parser; the load comes from a third. The rounds take
turns, so that a machine that slows down slows both. `accepted` are the answers 202, each in the ledger before it was
given; `ratio` is accepted webhooks over what the bare handler answers in the same time. Prints medians over the
rounds, and exits with 1 when a webhook was answered anything else, or the ledger holds another number than was
accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from uuid import uuid4

import aiohttp
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from benchmarks.databases import KINDS, database
from ops.door import DoorUnreachable, ask
from scheduler.door.server import listen, serve
from tests.support.door import running_door
from tests.support.network import quiet_port
from tests.support.redis import fresh_database, redis_server
from tests.support.service import wait_until
from tests.support.signing import BEARER, STEP_COMPLETE

WARM_UP = 0.5
READY_SECONDS = 30.0

HEAD = " at once  accepted/s   p50 ms   p99 ms      bare/s   p50 ms   p99 ms   ratio"


@dataclass(frozen=True)
class Figures:
    """One round: answers in a second, and milliseconds that half and 99 of 100 took at most."""

    rate: float
    p50: float
    p99: float


async def load(url: str, seconds: float, at_once: int) -> tuple[int, list[float], set[int]]:
    """POST steps from so many senders for so long; how many were answered 202, how long each took, other answers."""
    took: list[float] = []
    others: set[int] = set()
    accepted = 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=BEARER) as session:
        end = time.perf_counter() + seconds

        async def sender() -> None:
            nonlocal accepted
            while (begun := time.perf_counter()) < end:
                async with session.post(url, json={"step_id": f"step-{uuid4()}"}) as answer:
                    await answer.read()
                took.append(time.perf_counter() - begun)
                if answer.status == 202:
                    accepted += 1
                else:
                    others.add(answer.status)

        await asyncio.gather(*(sender() for _ in range(at_once)))
    return accepted, took, others


def _load(url: str, seconds: float, at_once: int) -> tuple[int, list[float], set[int]]:
    return asyncio.run(load(url, seconds, at_once))


def measure(senders: ProcessPoolExecutor, url: str, seconds: float, at_once: int) -> tuple[int, Figures]:
    """Run the load in its process; how many were accepted, and the figures."""
    accepted, took, others = senders.submit(_load, url, seconds, at_once).result()
    if others:
        raise SystemExit(f"{url} answered {sorted(others)} too")
    took.sort()
    return accepted, Figures(accepted / seconds, 1e3 * took[len(took) // 2], 1e3 * took[len(took) * 99 // 100])


def bare(port: int) -> None:
    """Serve a handler that does nothing, as the door is served."""
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.post(STEP_COMPLETE, status_code=202)
    async def nothing(_: Request) -> JSONResponse:
        return JSONResponse({"event_id": "evt-" + "0" * 36, "follow": "/compactions/evt-" + "0" * 36}, 202)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({})

    serve(app, listen("127.0.0.1", port))


@contextmanager
def running_bare() -> Iterator[str]:
    """The bare handler's process, and its address."""
    port = quiet_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.webhook", "--bare", str(port)])
    try:
        wait_until(lambda: _answers(url), READY_SECONDS)
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return ask(url, "/healthz", within=1.0).status == 200
    except DoorUnreachable:
        return False


def compare(name: str, database_url: str, options: argparse.Namespace, folder: Path, broker_url: str) -> None:
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as senders,
        running_bare() as idle,
        running_door(folder, broker_url=broker_url, database_url=database_url) as door,
    ):
        accepted = 0
        print(f"\n{name}\n{HEAD}", flush=True)
        for at_once in (int(number) for number in options.at_once.split(",")):
            rounds: list[tuple[Figures, Figures]] = []
            for number in range(options.rounds + 1):
                # The first one warms both up.
                seconds = options.seconds if number else WARM_UP
                count, ours = measure(senders, door.base_url + STEP_COMPLETE, seconds, at_once)
                accepted += count
                rounds.append((ours, measure(senders, idle + STEP_COMPLETE, seconds, at_once)[1]))
            report(at_once, rounds[1:])
        ledger = door.service.ledger()
        kept = sum(ledger.events.count_by_state().values())
        ledger.close()
    if kept != accepted:
        raise SystemExit(f"{accepted} webhooks were accepted, and {kept} are in the ledger")
    print(f"{accepted} were accepted, {kept} are in the ledger")


def report(at_once: int, rounds: list[tuple[Figures, Figures]]) -> None:
    ours, idle = (middle([pair[index] for pair in rounds]) for index in (0, 1))
    ratio = statistics.median(own.rate / other.rate for own, other in rounds)
    print(
        f"{at_once:>8} {ours.rate:>11.0f} {ours.p50:>8.1f} {ours.p99:>8.1f}"
        f" {idle.rate:>11.0f} {idle.p50:>8.1f} {idle.p99:>8.1f} {ratio:>7.2f}",
        flush=True,
    )


def middle(rounds: list[Figures]) -> Figures:
    """Each figure's median over the rounds."""
    return Figures(*(statistics.median(column) for column in zip(*map(astuple, rounds), strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (default: %(default)s)")
    parser.add_argument("--at-once", default="1,16,64,256", help="senders at once (default: %(default)s)")
    parser.add_argument("--bare", type=int, metavar="PORT", help="serve the bare handler on a port, nothing else")
    options = parser.parse_args()
    if options.bare is not None:
        bare(options.bare)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with redis_server(folder) as server:
            for kind in KINDS:
                (folder / kind).mkdir()
                with database(kind, folder / kind) as url, fresh_database(server) as broker_url:
                    compare(kind, url, options, folder / kind, broker_url)


if __name__ == "__main__":
    main()

"""What a request costs us in CPU, beside the official SDK, in the same process and the same run.

    python -m benchmarks.client [--requests 400] [--rounds 5] [--at-once 1,16,64]

Both clients ask one sandbox for the same pages of conversations and read them whole; the rounds take turns, so that a
machine that slows down slows both. Prints medians over the rounds and their ratio, and exits with 1 when a client got
less than it asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from letta_client import AsyncLetta

from tests.support.sandbox import running_sandbox
from worker.letta.client import Letta
from worker.letta.transport import open_http

PAGE = 50
Ask = Callable[[], Awaitable[int]]


async def cost(ask: Ask, requests: int, at_once: int) -> tuple[float, float]:
    """Microseconds of CPU and of wall time for each request, so many under way at once."""
    gate = asyncio.Semaphore(at_once)

    async def one() -> int:
        async with gate:
            return await ask()

    cpu, wall = time.process_time(), time.perf_counter()
    got = await asyncio.gather(*(one() for _ in range(requests)))
    spent = time.process_time() - cpu, time.perf_counter() - wall
    if set(got) != {PAGE}:
        raise SystemExit(f"a page had {sorted(set(got))} rows, not {PAGE}")
    return spent[0] / requests * 1e6, spent[1] / requests * 1e6


async def compare(base_url: str, requests: int, rounds: int, at_once: int) -> None:
    sdk = AsyncLetta(base_url=base_url, api_key="none", max_retries=0)
    async with open_http(base_url) as http:
        letta = Letta(http)

        async def ours() -> int:
            return len(await letta.list_conversations(limit=PAGE))

        async def theirs() -> int:
            return len(await sdk.conversations.list(limit=PAGE, order_by="last_message_at", order="desc"))

        await cost(ours, at_once * 2, at_once)
        await cost(theirs, at_once * 2, at_once)
        figures = [(await cost(ours, requests, at_once), await cost(theirs, requests, at_once)) for _ in range(rounds)]
    await sdk.close()
    cpu = statistics.median(own[0] for own, _ in figures), statistics.median(other[0] for _, other in figures)
    wall = statistics.median(own[1] for own, _ in figures), statistics.median(other[1] for _, other in figures)
    ratio = statistics.median(other[0] / own[0] for own, other in figures)
    print(
        f"{at_once:>4} at once   cpu us/request: ours {cpu[0]:7.0f}  sdk {cpu[1]:7.0f}  ratio {ratio:5.2f}"
        f"   wall us/request: ours {wall[0]:7.0f}  sdk {wall[1]:7.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", default="1,16,64")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_sandbox(Path(folder), seed=PAGE + 10) as server:
        for at_once in (int(number) for number in options.at_once.split(",")):
            asyncio.run(compare(server.base_url, options.requests, options.rounds, at_once))


if __name__ == "__main__":
    main()

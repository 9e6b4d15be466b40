"""The fault campaign: the service under faults, with real processes, held against what the server says happened.

`python -m tests.faults --seed 1` prints one line for each kind; status 1 when one is not clean.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.faults.campaign import NAMES, POSTGRESQL, RANDOM, SQLITE, databases_of, run
from tests.faults.verdict import COLUMNS, HEAD, MUST_BE_ZERO, Tally
from tests.support.postgres import postgres_server

SIZE, RANDOM_SIZE = 8, 260


def main() -> int:
    """Run what was asked for."""
    asked = _arguments()
    databases = (SQLITE, POSTGRESQL) if asked.database == "both" else (asked.database,)
    plan = [(name, database) for name in asked.kinds for database in databases_of(name) if database in databases]
    print(f"seed {asked.seed}, {len(plan)} stages, {asked.jobs} at a time", flush=True)  # noqa: T201
    print(HEAD, flush=True)  # noqa: T201
    tallies: list[Tally] = []
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server()) if POSTGRESQL in databases else None
        folder = Path(asked.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="compactor-faults-")))
        pool = stack.enter_context(ThreadPoolExecutor(asked.jobs))

        def one(number: int, name: str, database: str) -> Tally:
            size = asked.random_size if name == RANDOM else asked.size
            place = folder / f"{number:02d}-{name}-{database}"
            return run(name, database, place, seed=asked.seed * 1000 + number, size=size, server=server)

        running = [pool.submit(one, number, *stage) for number, stage in enumerate(plan)]
        for future in running:
            tally = future.result()
            tallies.append(tally)
            print(tally.line(), flush=True)  # noqa: T201
            for complaint in tally.complaints:
                print(f"    {complaint}", flush=True)  # noqa: T201
    print(_summed(tallies).line())  # noqa: T201
    return 0 if all(tally.is_clean for tally in tallies) else 1


def _summed(tallies: list[Tally]) -> Tally:
    total = Tally("all", "/".join(sorted({tally.database for tally in tallies})))
    for name in (*COLUMNS, *MUST_BE_ZERO):
        total.counts[name] = sum(tally.counts[name] for tally in tallies)
    total.seconds = sum(tally.seconds for tally in tallies)
    return total


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="throws the dice: what is struck, when, and where")
    parser.add_argument("--database", choices=(SQLITE, POSTGRESQL, "both"), default="both")
    parser.add_argument("--kinds", nargs="+", choices=NAMES, default=list(NAMES), metavar="KIND", help=", ".join(NAMES))
    parser.add_argument("--size", type=int, default=SIZE, help=f"conversations for each kind (default {SIZE})")
    parser.add_argument(
        "--random-size", type=int, default=RANDOM_SIZE, help=f"conversations for `random` (default {RANDOM_SIZE})"
    )
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time (default 2)")
    parser.add_argument("--folder", help="keep every process's log and the ledgers here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

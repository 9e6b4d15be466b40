"""How long the commands that read the ledger take on a year of work: every one of them, on both databases.

    python -m benchmarks.ledger [--conversations 200000] [--rows 1000000] [--runs 7]
                                [--database URL ...] [--postgres URL]

Fills each empty database first (a database that is filled already is measured as it is), then runs every `audit` and
`conversations` command, and a scrape of the metrics, in this process: what an interpreter takes to start is not
counted, opening the ledger is. An export streams: what counts is its first line. Prints the median and the worst of
the runs in milliseconds, and exits with 1 when a median is over the limit: 300 on PostgreSQL, 500 on SQLite.

Without --database it is a SQLite file in a temporary folder, and a database of its own, dropped at the end, on the
PostgreSQL server that --postgres names, or the one that the tests find or bring. The full size needs about 4 GB of disk
for each.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import typer
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import func, inspect, select
from sqlalchemy.engine import make_url

from benchmarks.ledgerfill import fill
from benchmarks.ledgerrows import Year
from ops.cli import app
from ops.metrics import LedgerCollector
from tests.support import postgres
from worker.audit.database import Database
from worker.audit.tables import compactions
from worker.policy.proof import Flag
from worker.settings import Settings

LIMITS = {"postgresql": 300, "sqlite": 500}
COMMANDS = typer.main.get_command(app)
"""The command line as it is once the process has started."""

SCRAPE = "scrape of /metrics"


class FirstLine(io.StringIO):
    """Standard output that has seen enough after one line, as a reader that closes the pipe."""

    def write(self, text: str) -> int:
        super().write(text)
        if "\n" in text:
            raise BrokenPipeError
        return len(text)


def commands(year: Year) -> Iterator[list[str]]:
    """Every command that reads, in every way of narrowing it, and some ways together."""
    agent, conversation = year.key(0)
    small_agent, other = year.key(17)
    id_ = year.compaction_id(year.compactions // 2)
    night = next(iter(year.scans()))[0]
    narrowed = [
        [],
        ["--json"],
        *(["--state", state] for state in ("planned", "running", "succeeded", "refused", "failed")),
        ["--conversation", conversation],
        ["--conversation", "conv-unknown"],
        ["--agent", agent],
        ["--agent", small_agent],
        ["--agent", "agent-unknown"],
        ["--scan", night],
        *(["--flag", flag] for flag in Flag),
        ["--since", "24h"],
        ["--since", "90d"],
        ["--conversation", other, "--state", "failed"],
        ["--agent", agent, "--state", "failed", "--since", "30d"],
        ["--agent", agent, "--flag", Flag.MESSAGES_DROPPED],
        ["--agent", small_agent, "--flag", Flag.TARGET_MISSED],
        ["--conversation", conversation, "--flag", Flag.TARGET_MISSED],
        ["--scan", night, "--flag", Flag.TARGET_MISSED],
        ["--state", "failed", "--flag", Flag.TARGET_MISSED],
        ["--state", "failed", "--since", "2h"],
    ]
    yield from (["audit", "list", *options] for options in narrowed)
    yield from (["audit", "export", *options] for options in narrowed if options and options[0] != "--json")
    yield from (["audit", "export", "--format", form] for form in ("jsonl", "csv"))
    yield from (["audit", "show", given] for given in (id_, id_[:9], "cmp-", "cmp-unknown"))
    yield ["audit", "show", id_, "--json"]
    for options in ([], ["--json"], ["--check"], ["--since", "2h"], ["--since", "24h"], ["--since", "90d"]):
        yield ["audit", "stats", *options]
    for options in ([], ["--json"], ["--put-off"], ["--stuck"], ["--stuck", "--json"]):
        yield ["conversations", *options]
    reasons = ("empty", "too_few_messages", "not_idle", "below_trigger", "cooldown", "safety_copy")
    yield from (["conversations", "--reason", reason] for reason in reasons)
    yield ["conversations", "--reason", "cooldown", "--put-off"]
    yield ["conversations", "--reason", "safety_copy", "--put-off"]


def measure(words: Sequence[str]) -> float:
    """Milliseconds that one command takes in this process."""
    output = FirstLine() if "export" in words else io.StringIO()
    began = time.perf_counter()
    with redirect_stdout(output), redirect_stderr(io.StringIO()), suppress(BrokenPipeError, typer.Exit, SystemExit):
        COMMANDS.main(list(words), prog_name="compactor", standalone_mode=False)
    return (time.perf_counter() - began) * 1_000


def scrapes(settings: Settings, runs: int) -> list[float]:
    """Milliseconds that each page takes of a process that is up, none of it kept from the last."""
    collector = LedgerCollector(settings, keep_for=0)
    registry = CollectorRegistry()
    registry.register(collector)
    taken = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        page = generate_latest(registry)
        taken.append((time.perf_counter() - began) * 1_000)
        assert b"compactor_ledger_up 1.0" in page
    collector.close()
    return taken[1:]


def compare(url: str, year: Year, runs: int) -> bool:
    """Measure one database and print its table. Gives whether everything was within the limit."""
    kind = make_url(url).get_backend_name()
    # The settings are read anew by each command, as they are by each command's process.
    os.environ["COMPACTOR_DATABASE_URL"] = url
    settings = Settings.load()
    taken = {" ".join(words): [measure(words) for _ in range(runs)] for words in commands(year)}
    taken[SCRAPE] = scrapes(settings, runs)
    print(f"\n{kind}, the limit is {LIMITS[kind]} ms\n{'median':>8} {'worst':>8}")
    for what, times in taken.items():
        median = statistics.median(times)
        print(f"{median:8.0f} {max(times):8.0f}  {what}{'   OVER' if median > LIMITS[kind] else ''}")
    return all(statistics.median(times) <= LIMITS[kind] for times in taken.values())


def filled(url: str) -> int:
    """How many compactions a database holds."""
    database = Database(url)
    with database.read() as connection:
        there = inspect(connection).has_table("compactions")
        count = connection.scalar(select(func.count()).select_from(compactions)) if there else 0
    database.close()
    return count or 0


@contextmanager
def databases(options: argparse.Namespace) -> Iterator[list[str]]:
    """The databases to measure; those that are not named are made, and go at the end."""
    if options.database:
        yield options.database
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        urls = [f"sqlite:///{Path(folder) / 'ledger.db'}"]
        named = make_url(options.postgres) if options.postgres else None
        server = named or stack.enter_context(postgres.postgres_server())
        own = stack.enter_context(postgres.own_database(server))
        yield [*urls, own.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--conversations", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="compactions")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--database", action="append", help="a database of your own, kept as it is afterwards")
    parser.add_argument("--postgres", help="a server to make a database on, as postgresql://user@host/name")
    options = parser.parse_args()
    year = Year(options.conversations, options.rows)
    within = True
    with databases(options) as urls:
        for url in urls:
            if not filled(url):
                print(f"filling {make_url(url).render_as_string(hide_password=True)} ...", flush=True)
                fill(url, year)
            within = compare(url, year, options.runs) and within
    raise SystemExit(0 if within else 1)


if __name__ == "__main__":
    main()

"""The kinds of faults, and the running of one: its stage set up, struck, settled, judged."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy.engine import URL

from tests.faults import answers, chaos, crashes, surroundings
from tests.faults.servers import OwnPostgres, own_postgres
from tests.faults.stage import Stage, staged
from tests.faults.verdict import Tally
from tests.support.postgres import end_connections, own_database

SQLITE, POSTGRESQL = "sqlite", "postgresql"

RANDOM = "random"
"""The kind that takes everything together."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault: what it does to a stage, and under which settings beside the usual ones."""

    name: str
    strike: Callable[[Stage], None]
    settings: Mapping[str, str] = field(default_factory=dict)


FEW_AT_ONCE = {"COMPACTOR_CONCURRENCY": "2"}
"""So that work is queued on the broker, not in a worker."""

PATIENT = {"LETTA_COMPACT_TIMEOUT": "5"}

SIMPLE = (
    *(Kind(name, crashes.killed_at(point)) for name, point in crashes.POINTS.items()),
    Kind("kill-beat", crashes.beat_killed),
    Kind("sigterm-under-load", crashes.stopped_under_load, settings=PATIENT),
    Kind("clock-jumps", crashes.clock_jumps),
    Kind("time-out-and-late-commit", answers.late_commit, settings={"LETTA_COMPACT_TIMEOUT": "2"}),
    Kind("reset-after-commit", answers.reset_after_commit),
    Kind("garbled-after-commit", answers.garbled_after_commit),
    Kind("storm-of-429", answers.storm_of_429),
    Kind("storm-of-503", answers.storm_of_503),
    Kind("message-during-compaction", answers.message_during_compaction),
    Kind("flushall", surroundings.flushed, settings=FEW_AT_ONCE),
    Kind("redis-restart", surroundings.redis_restarted, settings=FEW_AT_ONCE),
    Kind("redis-away-and-empty", surroundings.redis_away, settings=FEW_AT_ONCE),
    Kind("delivered-five-times", surroundings.delivered_five_times),
    Kind("two-schedulers", surroundings.two_schedulers),
    Kind("two-scans", surroundings.two_scans),
)
"""The kinds that need nothing but the stage."""

POSTGRES_RESTART = "postgres-restart"

NAMES = (*(kind.name for kind in SIMPLE), POSTGRES_RESTART, RANDOM)


def databases_of(name: str) -> tuple[str, ...]:
    """Give the databases that a kind runs on."""
    return (POSTGRESQL,) if name == POSTGRES_RESTART else (SQLITE, POSTGRESQL)


def run(name: str, database: str, folder: Path, *, seed: int, size: int, server: URL | None) -> Tally:
    """Run one kind on one database and judge it. size: conversations to compact; server: a PostgreSQL to use.

    What goes wrong with the stage itself is a complaint of the tally, with where it happened.
    """
    tally, began = Tally(name, database), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _ready(name, database, folder, server) as (kind, url):
            begin_with = chaos.trickle(size) if name == RANDOM else size
            with staged(
                folder,
                tally,
                database_url=url,
                seed=seed,
                size=size,
                begin_with=begin_with,
                settings=dict(kind.settings),
            ) as stage:
                kind.strike(stage)
                stage.judge()
    except Exception:
        tally.complaints.append(traceback.format_exc())
    tally.seconds = time.monotonic() - began
    return tally


@contextmanager
def _ready(name: str, database: str, folder: Path, server: URL | None) -> Iterator[tuple[Kind, str]]:
    """Give the kind, bound to what it strikes at, and the ledger's URL on a database of its own."""
    if name == POSTGRES_RESTART:
        with own_postgres() as own:
            yield Kind(name, _restarting(own)), own.url
    elif database == SQLITE:
        yield _kind(name, None), f"sqlite:///{folder / 'ledger.db'}"
    else:
        assert server is not None
        with own_database(server) as made:
            url = made.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
            yield _kind(name, partial(end_connections, made)), url


def _kind(name: str, cut_database: Callable[[], None] | None) -> Kind:
    if name == RANDOM:
        return Kind(name, lambda stage: chaos.chaos(stage, cut_database))
    return next(kind for kind in SIMPLE if kind.name == name)


def _restarting(server: OwnPostgres) -> Callable[[Stage], None]:
    return lambda stage: surroundings.postgres_restarted(stage, server)

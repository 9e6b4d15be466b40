"""What becomes of webhooks whose broker dies while they come in: real processes, and a look at every one of them after.

    python -m benchmarks.deliveries [--deliveries 20000] [--database sqlite --database postgresql] [--outage 3]

A door, a worker and a beat, on a sandbox that knows the steps. Steps are delivered, one in twenty of them twice. When
half is answered the broker is killed; deliveries go on; some seconds after the last one the broker is started again on
what it had written down. Most steps are far under the trigger, some are of conversations near it or over it.

Prints what came of it, and exits with 1 unless each answer was a 202, the ledger has each step once and closed it as
done, each step was looked up once, and each conversation over the trigger, no other, was compacted once because of it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.databases import KINDS, database
from benchmarks.deliverysend import Sender, Sent
from benchmarks.deliverysteps import Steps, make_steps
from tests.faults.servers import OwnRedis, own_redis
from tests.support.network import quiet_port
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.service import Service, deployed
from tests.support.signing import KEYS, STEP_COMPLETE
from worker.audit.events import Event
from worker.audit.ledger import Ledger
from worker.audit.records import Compaction, EventState
from worker.policy.watch import TRIGGER

REPEATED = 20
"""One step in so many is delivered twice."""

LONGEST = 600.0
"""Seconds after which what is still open counts as stuck."""

IDLE_FOR = timedelta(seconds=3)

POLICY = f"""
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "{IDLE_FOR.seconds}s"
cooldown = "0s"
"""

SETTINGS = {
    **KEYS,
    "COMPACTOR_WEBHOOK_RATE": "1000000",
    "COMPACTOR_ATTEND_EVERY": "1",
    "COMPACTOR_RECONCILE_EVERY": "5",
    # What the broker took along when it died is sent again after this: by default ten minutes, too long to watch.
    "COMPACTOR_MESSAGE_PATIENCE": "30",
}

LOG_END = 6_000
"""Characters of the processes' logs that are printed when something is off."""

ENDS = (EventState.DONE, EventState.FAILED)


@dataclass(frozen=True)
class Outcome:
    """What was sent, what the ledger holds and what the server saw when all was over.

    back_at: when the broker was back; closed_before: events that were closed by then; seconds: from then to the end of
    the last.
    """

    sent: Sent
    events: list[Event]
    compactions: list[Compaction]
    effective: Counter[str]
    asked: Counter[str]
    back_at: datetime
    closed_before: int
    seconds: float


def deliveries(steps: Steps, chance: random.Random) -> list[str]:
    """Every step once, and some again at any other time."""
    order = [*steps.ids, *chance.sample(steps.ids, len(steps.ids) // REPEATED)]
    chance.shuffle(order)
    return order


def run(service: Service, sandbox: Sandbox, broker: OwnRedis, order: list[str], outage: float) -> Outcome:
    """Deliver, with the broker killed in the middle, and wait until everything is over."""
    before = Counter(sandbox.requests())
    url = f"http://127.0.0.1:{service.environment['COMPACTOR_WEBHOOK_PORT']}{STEP_COMPLETE}"
    with closing(service.ledger()) as ledger:
        with Sender(url, order) as sender:
            sender.half()
            broker.kill()
            sent = sender.all()
        time.sleep(outage)
        closed_before = _closed(ledger)
        broker.start()
        back_at, begun = datetime.now(UTC), time.monotonic()
        while not _over(service, ledger) and time.monotonic() < begun + LONGEST:
            time.sleep(0.5)
        seconds = time.monotonic() - begun
        events = ledger.events.recent(10 * len(order))
    return Outcome(
        sent,
        events,
        service.rows(),
        Counter({conversation: log["effective"] for conversation, log in sandbox.compactions().items()}),
        Counter(sandbox.requests()) - before,
        back_at,
        closed_before,
        seconds,
    )


def _closed(ledger: Ledger) -> int:
    counts = ledger.events.count_by_state()
    return sum(counts.get(state, 0) for state in ENDS)


def _over(service: Service, ledger: Ledger) -> bool:
    """Whether every event is closed, and every compaction that came of them."""
    return not set(ledger.events.count_by_state()) - set(ENDS) and service.all_closed()


def findings(steps: Steps, outcome: Outcome) -> Iterator[tuple[str, object, object]]:
    """What was counted: in words, what there is, and what there should be."""
    count, given = len(steps.ids), outcome.sent.event_ids
    in_ledger = {event.key: {event.id} for event in outcome.events}
    yield "answers", dict(outcome.sent.statuses), {202: count + count // REPEATED}
    yield "events in the ledger", len(outcome.events), count
    yield "of them with the id that each answer gave", sum(given[key] == in_ledger.get(key) for key in given), count
    yield "closed as", dict(Counter(event.state for event in outcome.events)), {str(EventState.DONE): count}
    yield "look-ups of steps", outcome.asked["GET /v1/steps/{step_id}"], count
    runs = outcome.asked["GET /v1/runs/{run_id}"]
    yield "look-ups of runs, beyond those of closer looks", max(runs - len(steps.closer), 0), 0
    ends = Counter(f"{row.state}, by {row.trigger}" for row in outcome.compactions)
    yield "compactions", dict(ends), {f"succeeded, by {TRIGGER}": len(steps.over)}
    yield "conversations compacted once", sum(times == 1 for times in outcome.effective.values()), len(steps.over)
    yield "of them over the trigger", len(steps.over & set(outcome.effective)), len(steps.over)


def longest_wait(outcome: Outcome) -> float:
    """The most seconds from a conversation's falling idle to the decision about it, the outage left out."""
    told: dict[str | None, datetime] = {}
    for event in outcome.events:
        told[event.compaction_id] = max(told.get(event.compaction_id, event.received_at), event.received_at)
    waits = [timedelta()]
    for row in [row for row in outcome.compactions if row.id in told]:
        idle_at = told[row.id] + IDLE_FOR
        waits.append(row.planned_at - (max(idle_at, outcome.back_at) if row.planned_at > outcome.back_at else idle_at))
    return max(waits).total_seconds()


def report(kind: str, steps: Steps, outcome: Outcome) -> bool:
    """Print the table. Gives whether everything is as it should be."""
    sent, count = outcome.sent, len(steps.ids)
    print(f"\n{kind}: {count} steps delivered, {count // REPEATED} of them twice, the broker killed after half")
    print(f"  {sent.statuses.total() / sent.seconds:.0f} answers a second, the slowest after {sent.slowest:.1f} s")
    print(f"  {outcome.closed_before} events closed when it came back, the last one {outcome.seconds:.0f} s later")
    print(f"  {longest_wait(outcome):.0f} s at most from falling idle to the decision, the outage left out")
    rows = list(findings(steps, outcome))
    for what, found, wanted in rows:
        print(f"  {what:<48} {found!s:>32}{'' if found == wanted else f'   OFF: should be {wanted}'}")
    for reason, times in Counter(event.reason for event in outcome.events).most_common():
        print(f"    {reason or 'open':<46} {times:>32}")
    return all(found == wanted for _, found, wanted in rows)


def measure(kind: str, steps: Steps, server: Path, folder: Path, options: argparse.Namespace) -> bool:
    """Run all of it on one kind of database."""
    shutil.copytree(server, folder / "server")
    order = deliveries(steps, random.Random(options.seed))
    with (
        running_sandbox(folder / "server") as sandbox,
        own_redis(folder) as broker,
        database(kind, folder) as database_url,
        deployed(
            folder,
            letta_url=sandbox.base_url,
            broker_url=broker.url,
            database_url=database_url,
            policy=POLICY,
            COMPACTOR_WEBHOOK_PORT=str(quiet_port()),
            **SETTINGS,
        ) as service,
    ):
        for start in (service.door, service.worker, service.beat):
            start()
        if report(kind, steps, run(service, sandbox, broker, order, options.outage)):
            return True
        print(service.logs()[-LOG_END:])
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--deliveries", type=int, default=20_000, help="steps to deliver (default: %(default)s)")
    add("--database", action="append", choices=KINDS, help="which of them; may be given twice (default: both)")
    add("--outage", type=float, default=3.0, help="seconds from the last answer to the broker's return")
    add("--seed", type=int, default=1, help="of the steps' usage and order (default: %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "server").mkdir()
        with running_sandbox(root / "server") as sandbox:
            steps = make_steps(sandbox, root / "server" / "sandbox.db", options.deliveries, random.Random(options.seed))
        well = True
        for kind in options.database or KINDS:
            (root / kind).mkdir()
            well = measure(kind, steps, root / "server", root / kind, options) and well
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()

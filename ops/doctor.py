"""The command that finds out what is wrong: one line for each thing the service needs, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

from rich.text import Text

from ops import desk, webhookcheck
from ops.broker import BrokerUnavailable, choose_broker
from ops.findings import Finding, fine, note, wrong
from ops.scanning import Json
from worker.audit.database import Database, LedgerError, require_head
from worker.audit.ledger import Ledger
from worker.audit.throttles import FLEET, Limits
from worker.broker import make_app
from worker.clock import utc_now
from worker.letta.client import Letta
from worker.letta.errors import Forbidden, LettaError, Unauthorized
from worker.letta.models import Health
from worker.loop import LettaLoop
from worker.policy.forecast import SlidingWindow
from worker.policy.load import PolicyError
from worker.policyfile import read_policy
from worker.service import connect
from worker.settings import Settings, SettingsError
from worker.throttle import Breaker

MOST_SKEW = timedelta(seconds=30)
"""More than this between the server's clock and ours, and idle times are judged wrongly."""

PING_TIMEOUT = 2.0


def doctor_command(as_json: Json = False) -> None:
    """Check everything that the service needs, and say what to do about what is wrong.

    Letta reachable and which version, key accepted, clocks alike, database at its schema, broker reachable, a worker
    answering, the door open and its events looked into, policy file valid. Exit status 1 where something that is
    needed is not right.
    """
    settings = desk.settings()
    findings = []
    for check in CHECKS:
        for finding in check(settings):
            findings.append(finding)
            if not as_json:
                _show(finding)
    if as_json:
        desk.show_json(findings)
    if any(not finding.fine and finding.needed for finding in findings):
        raise SystemExit(desk.FAILED)


def _show(finding: Finding) -> None:
    mark = ("ok   ", "green") if finding.fine else ("wrong", "red") if finding.needed else ("note ", "yellow")
    desk.out.print(Text.assemble(mark, f"  {finding.name:<14} {finding.sentence}"), soft_wrap=True)
    if finding.remedy:
        desk.out.print(f"       {'':<14} -> {finding.remedy}", markup=False, soft_wrap=True)


def letta(settings: Settings) -> Iterator[Finding]:
    """Look at the server: whether it is there, takes our key, and has our time."""
    try:
        address = settings.require_letta()
        loop = LettaLoop(lambda: connect(settings))
    except SettingsError as error:
        yield wrong("letta", str(error))
        return
    try:
        health = loop.call(lambda letta: letta.health())
        yield fine("letta", f"version {health.version} at {address}")
        yield _clock(health)
        yield _key(loop)
    except LettaError as error:
        asks = "a Letta server? look at its log" if error.status else "up?"
        yield wrong("letta", str(error), f"is the server at {address} {asks} LETTA_BASE_URL names it")
    finally:
        loop.close()


def _key(loop: LettaLoop) -> Finding:
    async def ask(letta: Letta) -> object:
        return await letta.list_conversations(limit=1)

    try:
        loop.call(ask)
    except (Unauthorized, Forbidden) as error:
        return wrong("letta key", str(error), "set LETTA_API_KEY to a key that this server accepts")
    except LettaError as error:
        return wrong("letta key", f"conversations cannot be listed: {error}", "look at the server's log")
    return fine("letta key", "conversations can be listed")


def _clock(health: Health) -> Finding:
    if health.date is None:
        return fine("clock", "the server does not tell its time")
    skew = abs(utc_now() - health.date)
    sentence = f"{skew.total_seconds():.0f} s between the server's clock and ours"
    if skew <= MOST_SKEW:
        return fine("clock", sentence)
    remedy = "set both clocks by NTP: idle times are told by the server and judged by us"
    return wrong("clock", sentence, remedy)


def ledger(settings: Settings) -> Iterator[Finding]:
    """Look at the database: whether it is there, and at this release's schema."""
    try:
        with closing(Database(settings.ledger_url)) as database:
            require_head(database)
    except LedgerError as error:
        yield wrong("ledger", str(error), "check COMPACTOR_DATABASE_URL, then run `compactor db upgrade`")
    else:
        yield fine("ledger", f"at its schema: {database.shown_url}")


def throttles(settings: Settings) -> Iterator[Finding]:
    """Look at the limits: whether a model's breaker is open, or the server asked us to wait."""
    try:
        opened = Ledger.open(settings.ledger_url)
    except LedgerError:
        return
    now, limits = utc_now(), Limits(settings.max_in_flight, settings.max_in_flight_per_model)
    try:
        for handle, throttle in opened.throttles.all(limits).items():
            name = "fleet" if handle == FLEET else handle or "agents' own"
            breaker = throttle.breaker(now)
            sentence = f"{name}: breaker {breaker.replace('_', ' ')}, at most {int(throttle.limit)} at once"
            if breaker is Breaker.CLOSED:
                yield fine("limit", sentence)
            else:
                since = f"{throttle.failures_in_row} failures in a row, tried again at {throttle.open_until}"
                remedy = "look at the errors: `compactor audit list --state failed`"
                yield note("limit", f"{sentence}; {since}", remedy)
    except LedgerError as error:
        yield wrong("limit", str(error))
    finally:
        opened.close()


def broker(settings: Settings) -> Iterator[Finding]:
    """Look at the broker, and whether a worker listens to it."""
    if settings.broker_url is None:
        try:
            chosen = choose_broker(None, settings.state_dir)
        except BrokerUnavailable as error:
            yield wrong("broker", str(error))
        else:
            yield fine("broker", f"none is set; `compactor up` would start {chosen.note}")
            chosen.close()
        return
    try:
        configured = choose_broker(settings.require_broker(), settings.state_dir)
    except BrokerUnavailable as error:
        yield wrong("broker", str(error))
        return
    trouble = configured.trouble()
    if trouble is not None:
        remedy = "is Redis up? set COMPACTOR_BROKER_URL to the right one"
        yield wrong("broker", f"{configured.shown_url} does not answer: {trouble}", remedy)
        return
    yield fine("broker", f"{configured.shown_url} answers")
    answers = make_app("doctor", settings).control.ping(timeout=PING_TIMEOUT)
    count = len(answers or [])
    remedy = "" if count else "start one: `celery -A worker worker`, or `compactor up`"
    yield Finding("workers", f"{count} answer", remedy, fine=bool(count), needed=False)


def policy(settings: Settings) -> Iterator[Finding]:
    """Look at the policy file."""
    try:
        book = read_policy(settings.policy_file, SlidingWindow(settings.letta_sliding_window))
    except PolicyError as error:
        for problem in error.problems:
            yield wrong("policy", f"{error.source}: {problem}", "correct the file, or name another one")
        return
    counts = f"{len(book.policies)} policies, {len(book.schedules)} schedules"
    yield fine("policy", f"{settings.policy_file}: {counts}")


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    letta,
    ledger,
    throttles,
    broker,
    webhookcheck.door,
    webhookcheck.webhooks,
    policy,
)

"""The command that brings everything up on one machine, in one terminal: `compactor up`."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ops import desk
from ops.broker import Broker, BrokerKind, choose_broker
from ops.childlog import ChildLog
from ops.place import alone_in
from ops.process import Child
from ops.scanning import show_scan
from ops.supervisor import Supervisor, log_names
from worker import scan
from worker.audit.database import Database, upgrade
from worker.broker import CeleryOutbox, make_app
from worker.policy.forecast import SlidingWindow
from worker.policy.rules import PolicyBook
from worker.policyfile import read_policy
from worker.service import Service
from worker.settings import RUNTIME_FILE, RUNTIME_PID, Settings

DEMO_CONVERSATIONS = 40
"""Conversations that a new sandbox is seeded with."""

SUMMARIZER_SECONDS = "0.8:0.4"
"""What the sandbox's summarizer takes, and how much that varies. A real one takes longer; nobody waits for a demo."""

PASS_SECONDS = 90.0
"""How long `--once` waits for its pass before it stops everything and says what is still open."""

WORKER_GRACE, OTHERS_GRACE = 30.0, 10.0
"""Seconds from SIGTERM to SIGKILL; a worker may have compactions under way."""

FIRST_SCHEDULE = "nightly"


@dataclass(frozen=True, slots=True)
class Site:
    """One machine's setting: what runs, where it keeps things, and the environment that ties it together."""

    settings: Settings
    broker: Broker
    environment: Mapping[str, str]
    sandbox: Path | None
    """The sandbox's database file, None where a real server is used."""


def up_command(
    once: Annotated[bool, typer.Option("--once", help="Run one pass now, show what it did, stop everything.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin with a new sandbox and its new ledger; a real server's are kept.")
    ] = False,
) -> None:
    """Run the whole service here: broker, worker and beat; and a sandbox while no LETTA_BASE_URL is set.

    It upgrades the ledger, starts everything in order, runs the nightly pass now, shows what it did, and then stays
    until Ctrl-C while the schedules go on. A process that dies is started again. Everything is kept in
    COMPACTOR_STATE_DIR: the ledger, the broker's data, a log for each process.

    Examples: `compactor up`, `compactor up --once`, `LETTA_BASE_URL=http://localhost:8283 compactor up`.
    """
    # What an `up` that was killed has left behind must not pass for a server and a broker of the operator's.
    settings = desk.settings(join=False)
    book = read_policy(settings.policy_file, SlidingWindow(settings.letta_sliding_window))
    settings.make_state_dir()
    with alone_in(settings.state_dir):
        if fresh and settings.letta_base_url is None:
            _begin_afresh(settings)
        _up(settings, book, once=once)


def _up(settings: Settings, book: PolicyBook, *, once: bool) -> None:
    with _site(settings, allow_stand_in=once) as site:
        desk.out.print(f"ledger   {site.settings.shown_ledger_url}", markup=False, soft_wrap=True)
        upgrade(Database(site.settings.ledger_url))
        children = _children(site)
        log = ChildLog(settings.state_dir / "log", log_names(children), None if once else desk.err)
        with closing(log), Supervisor(children, log) as supervisor:
            desk.out.print(supervisor.status_table())
            schedule = FIRST_SCHEDULE if FIRST_SCHEDULE in book.schedules else next(iter(book.schedules), None)
            over = _run_pass(site, schedule)
            _say_what_next(site, stays=not once)
            if not once:
                supervisor.wait()
    if once and not over:
        desk.fail(f"the pass did not end within {PASS_SECONDS:g} s; what is open stays planned in the ledger")


@contextmanager
def _site(settings: Settings, *, allow_stand_in: bool) -> Iterator[Site]:
    """Choose what is not set, and leave it for other terminals to find while it runs."""
    configured = None if settings.broker_url is None else settings.require_broker()
    with ExitStack() as stack:
        broker = choose_broker(configured, settings.state_dir, allow_stand_in=allow_stand_in)
        stack.callback(broker.close)
        desk.out.print(f"broker   {broker.note}", markup=False, soft_wrap=True)
        chosen: dict[str, str] = {}
        sandbox = None
        if settings.letta_base_url is None:
            sandbox = settings.state_dir / "sandbox.db"
            chosen["LETTA_BASE_URL"] = f"http://127.0.0.1:{_free_port()}"
        if broker.kind is not BrokerKind.CONFIGURED:
            chosen["COMPACTOR_BROKER_URL"] = broker.url
        resolved = settings.with_values(
            chosen
            | {
                "COMPACTOR_STATE_DIR": str(settings.state_dir.absolute()),
                "COMPACTOR_DATABASE_URL": settings.absolute_ledger_url,
                "COMPACTOR_POLICY_FILE": str(settings.policy_file.absolute()),
            }
        )
        what = "a stand-in for Letta (sandbox/)" if sandbox else "Letta"
        desk.out.print(f"server   {what} at {resolved.letta_base_url}", markup=False, soft_wrap=True)
        _leave_runtime_file(stack, settings.state_dir / RUNTIME_FILE, {RUNTIME_PID: str(os.getpid())} | chosen)
        yield Site(resolved, broker, resolved.environment(), sandbox)


def _leave_runtime_file(stack: ExitStack, path: Path, values: Mapping[str, str]) -> None:
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    stack.callback(path.unlink, missing_ok=True)


def _children(site: Site) -> list[Child]:
    """Give the processes in the order of their start; they are stopped in reverse."""
    settings, environment = site.settings, dict(site.environment)
    python = sys.executable
    app = make_app("up", settings)
    children = []
    if site.sandbox is not None:
        address = str(settings.letta_base_url).removeprefix("http://")
        host, _, port = address.partition(":")
        argv = [python, "-m", "sandbox", "--host", host, "--port", port, "--database", str(site.sandbox)]
        argv += ["--seed", str(DEMO_CONVERSATIONS), "--compact-latency", SUMMARIZER_SECONDS]
        children.append(Child("sandbox", argv, ready=partial(_listens, host, int(port)), grace=OTHERS_GRACE))
    if site.broker.command is not None:
        children.append(
            Child(
                "broker",
                site.broker.command,
                environment,
                ready=site.broker.ready,
                grace=OTHERS_GRACE,
                pass_fds=site.broker.pass_fds,
            )
        )
    celery = [python, "-m", "celery", "-A"]
    level = ["--loglevel", settings.log_level]
    return [
        *children,
        Child(
            "worker",
            [*celery, "worker", "worker", *level, "--hostname", "worker@%h", "--without-mingle", "--without-gossip"],
            environment,
            ready=lambda: bool(app.control.ping(timeout=0.5, limit=1)),
            grace=WORKER_GRACE,
        ),
        Child(
            "beat",
            [*celery, "scheduler", "beat", *level, "--pidfile", str(settings.state_dir / "beat.pid")],
            environment,
            ready=(settings.state_dir / "beat.pid").exists,
            grace=OTHERS_GRACE,
        ),
    ]


def _run_pass(site: Site, schedule: str | None) -> bool:
    """Run one pass now. Gives whether it ended in time."""
    service = Service.open(site.settings, CeleryOutbox(make_app("up", site.settings)))
    try:
        order = scan.order(service, trigger="cli", schedule=schedule)
        row, opened = service.ledger.scans.begin(order, now=service.now())
        if not opened:
            desk.out.print(f"no pass now: {row.sentence}", markup=False)
            return True
        service.outbox.scan(row.id)
        return show_scan(service, row.id, patience=PASS_SECONDS)
    finally:
        service.close()


def _say_what_next(site: Site, *, stays: bool) -> None:
    desk.out.print(f"\nThe ledger is {site.settings.shown_ledger_url}. Next:", markup=False, soft_wrap=True)
    # As it was called itself: a demo's user has not activated any environment.
    ours = sys.argv[0] if sys.argv[0].endswith("compactor") else "compactor"
    for command, what in (
        (f"{ours} audit list", "what was done, the latest first"),
        (f"{ours} conversations", "every conversation, its usage and its last decision"),
        (f"{ours} audit export --format jsonl", "the whole proof, one object a line"),
    ):
        desk.out.print(f"  {command:<50} {what}", markup=False, soft_wrap=True)
    if site.sandbox is not None:
        desk.out.print(
            f"  {'LETTA_BASE_URL=http://... make up':<50} the same, on your own server", markup=False, soft_wrap=True
        )
    if stays:
        desk.out.print("The schedules go on; Ctrl-C stops everything.\n")


def _begin_afresh(settings: Settings) -> None:
    """Put the last trial away: its sandbox, its ledger, what its broker and its beat still had in mind."""
    for pattern in ("sandbox.db*", "ledger.db*", "beat-schedule*"):
        for path in settings.state_dir.glob(pattern):
            path.unlink(missing_ok=True)
    shutil.rmtree(settings.state_dir / "redis", ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _listens(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=1):
        return True

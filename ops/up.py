"""The command that brings everything up on one machine, in one terminal: `compactor up`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ops import desk, door, flower
from ops.broker import BrokerKind, choose_broker
from ops.childlog import ChildLog
from ops.children import Site, children
from ops.listening import free_port
from ops.place import alone_in
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

PASS_SECONDS = 90.0
"""How long `--once` waits for its pass before it stops everything and says what is still open."""

FIRST_SCHEDULE = "nightly"


def up_command(
    once: Annotated[bool, typer.Option("--once", help="Run one pass now, show what it did, stop everything.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin with a new sandbox and its new ledger; a real server's are kept.")
    ] = False,
) -> None:
    """Run the whole service here: broker, worker, Flower, door and beat; and a sandbox while no LETTA_BASE_URL is set.

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
    with _site(settings, once=once) as site:
        desk.out.print(f"ledger   {site.settings.shown_ledger_url}", markup=False, soft_wrap=True)
        upgrade(Database(site.settings.ledger_url))
        processes = children(site)
        log = ChildLog(settings.state_dir / "log", log_names(processes), None if once else desk.err)
        with closing(log), Supervisor(processes, log) as supervisor:
            desk.out.print(supervisor.status_table())
            schedule = FIRST_SCHEDULE if FIRST_SCHEDULE in book.schedules else next(iter(book.schedules), None)
            over = _run_pass(site, schedule)
            _say_what_next(site, stays=not once)
            if not once:
                supervisor.wait()
    if once and not over:
        desk.fail(f"the pass did not end within {PASS_SECONDS:g} s; what is open stays planned in the ledger")


@contextmanager
def _site(settings: Settings, *, once: bool) -> Iterator[Site]:
    """Choose what is not set, and leave it for other terminals to find while it runs."""
    configured = None if settings.broker_url is None else settings.require_broker()
    with ExitStack() as stack:
        broker = choose_broker(configured, settings.state_dir, allow_stand_in=once)
        stack.callback(broker.close)
        desk.out.print(f"broker   {broker.note}", markup=False, soft_wrap=True)
        chosen: dict[str, str] = {}
        sandbox = None
        if settings.letta_base_url is None:
            sandbox = settings.state_dir / "sandbox.db"
            chosen["LETTA_BASE_URL"] = f"http://127.0.0.1:{free_port()}"
            chosen |= door.for_a_trial(settings)
        if broker.kind is not BrokerKind.CONFIGURED:
            chosen["COMPACTOR_BROKER_URL"] = broker.url
        resolved = settings.with_values(
            chosen
            | ({} if once else flower.for_up(settings))
            | {
                "COMPACTOR_STATE_DIR": str(settings.state_dir.absolute()),
                "COMPACTOR_LOG_FORMAT": "text" if settings.log_format == "auto" else settings.log_format,
                "COMPACTOR_DATABASE_URL": settings.absolute_ledger_url,
                "COMPACTOR_POLICY_FILE": str(settings.policy_file.absolute()),
            }
        )
        what = "a stand-in for Letta (sandbox/)" if sandbox else "Letta"
        desk.out.print(f"server   {what} at {resolved.letta_base_url}", markup=False, soft_wrap=True)
        _say_where_the_door_is(resolved, usual=settings)
        if not once:
            desk.out.print(f"flower   {flower.way_in(resolved, usual=settings)}", markup=False, soft_wrap=True)
        _leave_runtime_file(stack, settings.state_dir / RUNTIME_FILE, {RUNTIME_PID: str(os.getpid())} | chosen)
        yield Site(resolved, broker, resolved.environment(), sandbox, stays=not once)


def _say_where_the_door_is(settings: Settings, *, usual: Settings) -> None:
    if not door.can_open(settings):
        line = "off, no webhooks are taken: STEP_COMPLETE_KEY or COMPACTOR_WEBHOOK_SECRETS opens it"
    elif settings.webhook_port != usual.webhook_port:
        line = f"webhooks are taken at {door.address(settings)}, since port {usual.webhook_port} is taken"
    else:
        line = f"webhooks are taken at {door.address(settings)}"
    desk.out.print(f"door     {line}", markup=False, soft_wrap=True)


def _leave_runtime_file(stack: ExitStack, path: Path, values: Mapping[str, str]) -> None:
    # It holds keys: for its owner alone from the start, whoever made it.
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    stack.callback(path.unlink, missing_ok=True)


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
    for pattern in ("sandbox.db*", "ledger.db*", "beat-schedule*", "flower*"):
        for path in settings.state_dir.glob(pattern):
            path.unlink(missing_ok=True)
    shutil.rmtree(settings.state_dir / "redis", ignore_errors=True)

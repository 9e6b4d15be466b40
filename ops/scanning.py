"""The commands that act: `scan` and `compact`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from ops import desk
from ops.view import show_compactions
from ops.watch import watch_compaction, watch_scan
from worker import asked, assess, scan
from worker.audit.records import ScanState, State
from worker.audit.reports import Wanted
from worker.audit.scans import ScanOrder
from worker.broker import CeleryOutbox, make_app
from worker.letta.client import DEFAULT
from worker.policy.decide import Compact, Reason
from worker.policy.rules import Policy
from worker.policy.snapshot import Snapshot
from worker.service import Service
from worker.telemetry.telling import conversation_name, counts_line

PING_TIMEOUT = 2.0
"""Seconds to wait for any worker to answer before a waiting command says that none does."""

SHOWN_UNREADABLE = 3
"""Conversations that could not be measured of which a scan's end shows the reason; the ledger has it of all."""

UNMEASURED = frozenset(
    {
        Reason.UNREADABLE,
        Reason.EMPTY,
        Reason.UNCHANGED,
        Reason.NOT_IDLE,
        Reason.TOO_FEW_MESSAGES,
        Reason.COOLDOWN,
        Reason.PUT_OFF,
        Reason.IN_PROGRESS,
        Reason.SAFETY_COPY,
    }
)
"""Reasons that a decision without a measurement can have: a scan that knows no other has measured nothing."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Wait = Annotated[bool, typer.Option("--wait", help="Stay until it has ended, and show what was done.")]


def scan_command(
    schedule: Annotated[str | None, typer.Option(help="Run this schedule of the policy file now.")] = None,
    policy: Annotated[str | None, typer.Option(help="Scan with this policy. Default: `default`.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, but do nothing and write nothing.")] = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Look at every conversation of the server now, and compact those that need it.

    The scan itself is run by the workers; this command orders it. `--dry-run` needs no worker: it measures and
    decides here, shows what a scan would do, and changes nothing.

    Examples: `compactor scan --dry-run`, `compactor scan --schedule nightly --wait`.
    """
    if schedule is not None and policy is not None:
        desk.fail("give --schedule or --policy, not both: a schedule has its policy", desk.WRONG_USE)
    settings = desk.settings()
    if dry_run:
        with desk.service(settings) as looking:
            _preview(looking, scan.order(looking, trigger="cli", schedule=schedule, policy=policy), as_json=as_json)
        return
    app = make_app("cli", settings)
    outbox = CeleryOutbox(app)
    with desk.service(settings, outbox) as service:
        wanted = scan.order(service, trigger="cli", schedule=schedule, policy=policy)
        row, opened = service.ledger.scans.begin(wanted, now=service.now())
        if not opened:
            desk.fail(f"{row.sentence}; this one is recorded as skipped ({row.id})")
        outbox.scan(row.id)
        _say_if_unheard(outbox, app, row.id)
        if wait:
            show_scan(service, row.id, as_json=as_json)
        elif as_json:
            desk.show_json({"scan_id": row.id})
        else:
            desk.out.print(f"{row.id} is ordered; follow it with `compactor audit list --scan {row.id}`")


def compact_command(
    conversation_id: Annotated[str, typer.Argument(help="`conv-...`, or `default` together with --agent.")],
    agent: Annotated[str | None, typer.Option(help="The agent; needed for its default conversation alone.")] = None,
    policy: Annotated[str, typer.Option(help="The policy whose target and settings hold.")] = "default",
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Compact one conversation, whatever its usage.

    The policy's trigger and cooldown do not count, since you ask for it. What protects a conversation does: it must
    be idle, without an active run, and the settings must not wipe it.

    Example: `compactor compact conv-5054fb3c-5b85-4720-8a84-8fa0b0f06c84 --wait`.
    """
    if conversation_id == DEFAULT and agent is None:
        desk.fail("the conversation 'default' is an agent's own: name the agent with --agent", desk.WRONG_USE)
    settings = desk.settings()
    app = make_app("cli", settings)
    outbox = CeleryOutbox(app)
    with desk.service(settings, outbox) as service:
        ref = asked.resolve(service, conversation_id, agent)
        answer = asked.ask(service, ref, policy_name=policy, trigger="cli")
        if answer.compaction_id is None:
            desk.fail(f"{conversation_name(ref.agent_id, ref.conversation_id)} was not compacted: {answer.sentence}")
        _say_if_unheard(outbox, app, answer.compaction_id)
        if not wait:
            if as_json:
                desk.show_json({"compaction_id": answer.compaction_id})
            else:
                desk.out.print(f"{answer.compaction_id} is planned; see `compactor audit show {answer.compaction_id}`")
            return
        row = watch_compaction(service.ledger, answer.compaction_id)
    if as_json:
        desk.show_json(row)
    else:
        show_compactions(desk.out, [row])
    if row.state != State.SUCCEEDED:
        raise typer.Exit(desk.FAILED)


def show_scan(service: Service, scan_id: str, *, as_json: bool = False, patience: float | None = None) -> bool:
    """Wait for a scan, show what it did; ends the command where something failed. Gives whether all of it ended."""
    watched = watch_scan(service.ledger, scan_id, patience=patience)
    rows = list(service.ledger.reports.compactions(Wanted(scan_id=scan_id), limit=None, oldest_first=True))
    if as_json:
        desk.show_json({"scan": watched.scan, "compactions": rows})
    else:
        show_compactions(desk.out, rows)
        found = watched.scan
        desk.out.print(
            f"{found.listed} conversations looked at: {counts_line(found.reasons) or 'none'}",
            markup=False,
            soft_wrap=True,
        )
        ends = Counter(row.state for row in rows)
        desk.out.print(f"{len(rows)} compactions: {counts_line(ends) or 'none was needed'}", markup=False)
    _say_unreadable(_unreadable_of(service, scan_id), watched.scan.reasons.get(Reason.UNREADABLE, 0))
    if watched.scan.state == ScanState.FAILED:
        desk.fail(f"{scan_id} failed: {watched.scan.sentence}")
    unmeasured = watched.scan.reasons.get(Reason.UNREADABLE, 0)
    if unmeasured and set(watched.scan.reasons) <= UNMEASURED:
        desk.fail(f"not one of the {unmeasured} conversations that were to be measured could be")
    if any(row.state == State.FAILED for row in rows):
        raise typer.Exit(desk.FAILED)
    return watched.over


def _preview(service: Service, order: ScanOrder, *, as_json: bool) -> None:
    reasons: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    with desk.err.status("measuring ...") as status:
        for page in assess.preview(service, Policy.model_validate(order.policy_body)):
            for candidate, measured, decision in page:
                reasons[decision.reason] += 1
                snapshot = measured if isinstance(measured, Snapshot) else None
                found.append(
                    {
                        "agent_id": candidate.ref.agent_id,
                        "conversation_id": candidate.ref.conversation_id,
                        "usage": None if snapshot is None else round(snapshot.usage, 4),
                        "decision": "compact" if isinstance(decision, Compact) else "skip",
                        "reason": decision.reason,
                        "sentence": decision.sentence,
                        "settings": decision.settings.body() if isinstance(decision, Compact) else None,
                    }
                )
            status.update(f"measuring ... {len(found)} conversations decided")
    unreadable = [
        f"{conversation_name(row['agent_id'], row['conversation_id'])}: {row['sentence']}"
        for row in found
        if row["reason"] == Reason.UNREADABLE
    ]
    _say_unreadable(unreadable, len(unreadable))
    if as_json:
        desk.show_json({"policy": order.policy, "policy_version": order.policy_version, "decisions": found})
        return
    for row in (row for row in found if row["decision"] == "compact"):
        name = conversation_name(row["agent_id"], row["conversation_id"])
        desk.out.print(f"would compact {name}: {row['sentence']}", markup=False, soft_wrap=True)
    desk.out.print(
        f"{len(found)} conversations looked at: {counts_line(reasons) or 'none'}", markup=False, soft_wrap=True
    )


def _unreadable_of(service: Service, scan_id: str) -> list[str]:
    rows = service.ledger.conversations.listing(reason=Reason.UNREADABLE)
    of_it = (row for row in rows if row.scan_id == scan_id)
    names = ((conversation_name(row.agent_id, row.conversation_id), row.sentence) for row in of_it)
    return [f"{name}: {sentence}" for name, sentence in islice(names, SHOWN_UNREADABLE)]


def _say_unreadable(first: Sequence[str], count: int) -> None:
    """Say why conversations could not be measured: they stopped nothing, but somebody must hear of it."""
    for line in first[:SHOWN_UNREADABLE]:
        desk.err.print(line, style="yellow", markup=False, soft_wrap=True)
    if count > SHOWN_UNREADABLE:
        more = f"{count - SHOWN_UNREADABLE} more could not be measured"
        desk.err.print(f"{more}; `compactor conversations --reason unreadable` shows what a scan recorded")


def _say_if_unheard(outbox: CeleryOutbox, app: Any, what: str) -> None:
    """Say when the order is written down but nobody takes it at the moment."""
    if outbox.failed:
        desk.fail(f"{what} is in the ledger, but the broker is away: it begins by itself once the broker is back")
    if not app.control.ping(timeout=PING_TIMEOUT, limit=1):
        desk.err.print(
            f"{what} is ordered, but no worker answers: it begins once one runs (`celery -A worker worker`)",
            style="yellow",
            markup=False,
        )

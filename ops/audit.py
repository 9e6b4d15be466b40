"""The commands that tell: `audit list | show | export | stats` and `conversations`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ops import desk
from ops.view import age, bar, list_compactions, show_conversations
from worker.audit.records import Compaction, State
from worker.audit.reports import Wanted
from worker.audit.stats import Stats
from worker.policy.decide import Reason
from worker.policy.durations import parse_duration
from worker.policy.proof import Flag
from worker.telemetry.telling import conversation_name, counts_line

app = typer.Typer(no_args_is_help=True, help="What was decided and done, and the proof of it.")

INTERNAL = frozenset({"lease_owner", "lease_until", "policy_body"})
"""Columns that an export leaves out: they say how the service works, not what it did."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Limit = Annotated[int, typer.Option(min=1, help="The most rows to show.")]


SHOWN_IDS = 3
"""Message ids of each list that `audit show` prints; there may be hundreds."""

STUCK_AFTER = 3
"""Failures in a row after which a conversation is put off for days (`worker.policy.delays`)."""


class Format(StrEnum):
    """The forms of an export."""

    JSONL = "jsonl"
    CSV = "csv"


def _since(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.now(UTC) - parse_duration(value)
    except ValueError as error:
        raise typer.BadParameter(f"{value!r} {error}", param_hint="--since") from None


StateOption = Annotated[State | None, typer.Option(help="Only those in this state.")]
ConversationOption = Annotated[str | None, typer.Option(help="Only those of this conversation.")]
AgentOption = Annotated[str | None, typer.Option(help="Only those of this agent.")]
ScanOption = Annotated[str | None, typer.Option(help="Only those that this scan planned.")]
FlagOption = Annotated[Flag | None, typer.Option(help="Only those with this flag.")]
SinceOption = Annotated[str | None, typer.Option(help="Only those planned within this time, such as 24h or 7d.")]


@app.command("list")
def list_command(
    state: StateOption = None,
    conversation: ConversationOption = None,
    agent: AgentOption = None,
    scan: ScanOption = None,
    flag: FlagOption = None,
    since: SinceOption = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List compactions, the latest first.

    Examples: `compactor audit list --since 24h`, `compactor audit list --state failed`,
    `compactor audit list --flag full_wipe`.
    """
    wanted = Wanted(state, conversation, agent, scan, flag, _since(since))
    with desk.ledger() as ledger:
        rows = list(ledger.reports.compactions(wanted, limit=limit))
    if as_json:
        desk.show_json([exported(row) for row in rows])
        return
    if rows:
        list_compactions(desk.out, rows)
    else:
        desk.out.print("no compaction in the ledger is like that")


@app.command()
def show(
    compaction_id: Annotated[str, typer.Argument(help="The id, or the beginning of one.")],
    as_json: Json = False,
) -> None:
    """Show one compaction whole: what was seen, decided, sent, answered, and found afterwards."""
    with desk.ledger() as ledger:
        ids = ledger.reports.ids_like(compaction_id)
        row = ledger.compactions.get(ids[0]) if len(ids) == 1 or compaction_id in ids else None
    if row is None and ids:
        desk.fail(f"several compactions begin with {compaction_id}: {', '.join(ids)} ...", desk.WRONG_USE)
    if row is None:
        desk.fail(f"there is no compaction {compaction_id} in the ledger; see `compactor audit list`")
    if as_json:
        desk.show_json(exported(row))
        return
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in exported(row).items():
        table.add_row(name, _cell(name, value))
    desk.out.print(table)


@app.command()
def export(
    form: Annotated[Format, typer.Option("--format", help="One JSON object a line, or a table.")] = Format.JSONL,
    state: StateOption = None,
    conversation: ConversationOption = None,
    agent: AgentOption = None,
    scan: ScanOption = None,
    flag: FlagOption = None,
    since: SinceOption = None,
    output: Annotated[Path | None, typer.Option(help="The file to write; default: standard output.")] = None,
) -> None:
    """Export compactions, the oldest first, with everything that is known of each.

    Example: `compactor audit export --format jsonl --since 30d > audit.jsonl`.
    """
    wanted = Wanted(state, conversation, agent, scan, flag, _since(since))
    with desk.ledger() as ledger, _target(output) as target:
        rows = ledger.reports.compactions(wanted, limit=None, oldest_first=True)
        if form is Format.JSONL:
            for row in rows:
                target.write(desk.json_line(exported(row)) + "\n")
        else:
            names = [field.name for field in fields(Compaction) if field.name not in INTERNAL]
            writer = csv.DictWriter(target, names, lineterminator="\n")
            writer.writeheader()
            for row in rows:
                writer.writerow({name: _flat(value) for name, value in exported(row).items()})


@app.command()
def stats(
    since: SinceOption = None,
    check: Annotated[bool, typer.Option("--check", help="Exit status 1 where a compaction dropped messages.")] = False,
    as_json: Json = False,
) -> None:
    """Sum up what was done: how many, how they ended, what was freed, what went wrong.

    `--check` is for a monitor: status 1 where messages that should have stayed were dropped from a context.
    Example: `compactor audit stats --check --since 24h`.
    """
    with desk.ledger() as ledger:
        sums = ledger.reports.stats(since=_since(since), flags=[flag.value for flag in Flag])
    if as_json:
        desk.show_json(sums)
    else:
        desk.out.print(_stats_table(sums))
    dropped = sums.by_flag[Flag.MESSAGES_DROPPED]
    if check and dropped:
        desk.fail(f"{dropped} compactions dropped messages: `compactor audit list --flag {Flag.MESSAGES_DROPPED}`")


def conversations_command(
    reason: Annotated[Reason | None, typer.Option(help="Only those whose last decision fell for this reason.")] = None,
    put_off: Annotated[bool, typer.Option("--put-off", help="Only those that are put off, with until when.")] = False,
    stuck: Annotated[
        bool, typer.Option("--stuck", help="Only those that failed three times in a row, with why.")
    ] = False,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show the ledger's view of conversations, the fullest first: usage, last decision and its reason.

    It is what the last scans saw; nothing is asked of the server. A conversation that is stuck is put off for days,
    not for ever; `compactor compact` tries it at once.
    """
    now = datetime.now(UTC)
    with desk.ledger() as ledger:
        found = ledger.conversations.listing(
            reason=reason, put_off_at=now if put_off else None, failures=STUCK_AFTER if stuck else None, limit=limit
        )
        rows = list(found)
        why = ledger.reports.errors([row.last_compaction_id or "" for row in rows]) if stuck else {}
    errors = {row: why.get(row.last_compaction_id or "") for row in rows} if stuck else {}
    if as_json:
        desk.show_json([asdict(row) | ({"last_error": errors[row]} if stuck else {}) for row in rows])
        return
    if not rows:
        desk.out.print("no conversation in the ledger is like that")
        return
    show_conversations(desk.out, rows)
    for row, error in errors.items():
        name = conversation_name(row.agent_id, row.conversation_id)
        until = "-" if row.not_before is None else f"{row.not_before:%Y-%m-%d %H:%M} UTC"
        told = f"{name}: {row.failures_in_row} failures in a row, put off until {until}: {error or '-'}"
        desk.out.print(told, markup=False)


def exported(row: Compaction) -> dict[str, Any]:
    """Give a row as an export shows it."""
    return {name: value for name, value in asdict(row).items() if name not in INTERNAL}


@contextmanager
def _target(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        file = output.open("w", encoding="utf-8", newline="")
    except OSError as error:
        desk.fail(f"{output} cannot be written: {error.strerror}", desk.WRONG_USE)
    with file:
        yield file


def _flat(value: Any) -> Any:
    """Give a value as one cell of a CSV file."""
    if isinstance(value, list | dict):
        return desk.json_line(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _cell(name: str, value: Any) -> Text:
    if name.startswith("usage_") and isinstance(value, float):
        return bar(value)
    if isinstance(value, datetime):
        return Text(f"{value:%Y-%m-%d %H:%M:%S} UTC ({age(value)} ago)")
    if isinstance(value, list) and name.startswith("ids_"):
        shown = ", ".join(value[:SHOWN_IDS]) + (" ... (--json shows all)" if len(value) > SHOWN_IDS else "")
        return Text(f"{len(value)}{': ' if value else ''}{shown}")
    if value is None:
        return Text("-", style="dim")
    return Text(desk.json_line(value) if isinstance(value, list | dict) else str(value))


def _stats_table(sums: Stats) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, counts in (
        ("compactions", sums.by_state),
        ("outcomes", sums.by_outcome),
        ("triggers", sums.by_trigger),
        ("flags", {flag: count for flag, count in sums.by_flag.items() if count}),
    ):
        table.add_row(name, Text(counts_line(counts) or "none"))
    table.add_row("tokens freed", f"{sums.tokens_freed:,}")
    table.add_row("messages evicted", f"{sums.messages_evicted:,}")
    table.add_row("mean usage before", bar(sums.usage_before))
    table.add_row("mean usage after", bar(sums.usage_after))
    table.add_row("first planned", f"{age(sums.first_planned_at)} ago" if sums.first_planned_at else "-")
    table.add_row("last finished", f"{age(sums.last_finished_at)} ago" if sums.last_finished_at else "-")
    return table

"""How webhooks look on a terminal: what came in, what is watched for it, what was sent."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ops.view import ROOMY, SHORT_ID, age, bar, new_table, short_name
from worker.audit.deliveries import Delivery
from worker.audit.events import Event
from worker.audit.records import DeliveryState, EventState
from worker.audit.watches import Watch
from worker.clock import utc_now
from worker.telemetry.telling import conversation_name
from worker.webhooks.courier import shown

BESIDE_WHY = 112
"""Columns that a line about an event takes without its sentence, where there is room for one."""

_COLOURS = {
    EventState.RECEIVED: "cyan",
    EventState.RUNNING: "cyan",
    EventState.WATCHED: "cyan",
    EventState.DONE: "green",
    EventState.FAILED: "red",
}

_DELIVERY_COLOURS = {DeliveryState.PENDING: "cyan", DeliveryState.DELIVERED: "green", DeliveryState.DEAD: "red"}


def show_events(console: Console, rows: Sequence[Event]) -> None:
    """Show events, a line each; as much of the sentences as there is room for, and those of failed ones whole below."""
    table, roomy = new_table(), _roomy(console)
    for name in ("came", "from", "about", "state", "reason", "compaction"):
        table.add_column(name, no_wrap=True)
    if roomy:
        # One line an event: a burst has thirty with the same long sentence.
        table.add_column("why", no_wrap=True, max_width=console.width - BESIDE_WHY)
    for row in rows:
        table.add_row(
            age(row.received_at),
            row.source,
            _cut(_about(row), console),
            Text(row.state, style=_COLOURS.get(EventState(row.state), "")),
            Text(row.reason or "-"),
            (row.compaction_id or "-")[:SHORT_ID],
            *([Text(row.sentence or "")] if roomy else []),
        )
    console.print(table)
    failed = [row for row in rows if row.state == EventState.FAILED]
    _say_below(console, [(_about(row), row.sentence) for row in failed])


def show_waiting(console: Console, rows: Sequence[Watch]) -> None:
    """Show watched conversations, a line each."""
    table, roomy = new_table(), _roomy(console)
    table.add_column("conversation", no_wrap=True)
    table.add_column("policy", no_wrap=True)
    table.add_column("due", justify="right", no_wrap=True)
    table.add_column("usage", no_wrap=True)
    table.add_column("events", justify="right", no_wrap=True)
    table.add_column("held back by", no_wrap=True)
    if roomy:
        table.add_column("why", overflow="fold")
    now = utc_now()
    for row in rows:
        table.add_row(
            short_name(row.agent_id, row.conversation_id, console),
            row.policy,
            age(row.due_at) if row.due_at > now else "now",
            bar(row.usage),
            str(row.events),
            Text(row.reason or "-"),
            *([Text(row.sentence or "")] if roomy else []),
        )
    console.print(table)


def show_deliveries(console: Console, rows: Sequence[Delivery]) -> None:
    """Show deliveries, a line each, and below them why those failed that were not taken, with their whole ids."""
    table, roomy = new_table(), _roomy(console)
    for name in ("made", "type", *(["about"] if roomy else []), "to", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("tries", justify="right", no_wrap=True)
    table.add_column("next", no_wrap=True)
    for row in rows:
        table.add_row(
            age(row.created_at),
            row.type,
            *([row.subject_id] if roomy else []),
            shown(row.endpoint),
            Text(row.state, style=_DELIVERY_COLOURS.get(DeliveryState(row.state), "")),
            str(row.attempts),
            _next(row),
        )
    console.print(table)
    untaken = [row for row in rows if row.state != DeliveryState.DELIVERED and row.last_error]
    _say_below(console, [(row.id, row.last_error) for row in untaken])


def _next(row: Delivery) -> str:
    if row.state != DeliveryState.PENDING or row.next_at is None:
        return "-"
    return age(row.next_at) if row.next_at > utc_now() else "now"


def _about(row: Event) -> str:
    """Name what an event is about, as closely as it is known: a conversation, or else the step that was told of."""
    if row.conversation_id is not None:
        return conversation_name(row.agent_id or "an agent", row.conversation_id)
    return row.agent_id or row.key


def _cut(name: str, console: Console) -> str:
    """Shorten an id where there is no room; what names an agent's own conversation is its agent's id."""
    return name if _roomy(console) else name.removeprefix("default of ")[:SHORT_ID]


def _roomy(console: Console) -> bool:
    return console.width >= ROOMY


def _say_below(console: Console, said: Sequence[tuple[str, str | None]]) -> None:
    for name, sentence in said:
        console.print(Text.assemble((f"{name}: ", "yellow"), sentence or "-"), soft_wrap=True)

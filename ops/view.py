"""How the ledger looks on a terminal: usages as bars, times as ages, outcomes in colours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.audit.records import Compaction, Conversation, State
from worker.telemetry.telling import conversation_name

BAR_WIDTH = 6

ROOMY = 140
"""Columns from which on a terminal shows whole ids and sentences."""

SHORT_ID = 14
"""Characters of an id on a narrow one: `conv-` or `agent-` and the first eight digits."""

SHORT_COMPACTION = 12
"""The same of a compaction's: `cmp-` and eight digits, which `audit show` takes."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"

_COLOURS = {
    State.SUCCEEDED: "green",
    State.RUNNING: "cyan",
    State.PLANNED: "cyan",
    State.REFUSED: "yellow",
    State.FAILED: "red",
}


def bar(usage: float | None) -> Text:
    """Draw a usage: `██████▍    0.64`; nothing where it is not known."""
    if usage is None:
        return Text("-", style="dim")
    filled = max(0, min(round(usage * BAR_WIDTH * 8), BAR_WIDTH * 8))
    drawn = "█" * (filled // 8) + (_EIGHTHS[filled % 8] if filled % 8 else "")
    colour = "red" if usage >= 0.85 else "yellow" if usage >= 0.6 else "green"  # noqa: PLR2004 - only colours
    return Text.assemble((f"{drawn:<{BAR_WIDTH}}", colour), f" {usage:.2f}")


def age(moment: datetime | None) -> str:
    """Tell how long ago something was: `3d`, `12m`, `now`."""
    if moment is None:
        return "-"
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    if seconds < 0:
        return f"in {_unit(-seconds)}"
    return _unit(seconds) if seconds else "now"


def _unit(seconds: int) -> str:
    for name, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{name}"
    return f"{seconds}s"


def show_compactions(console: Console, rows: Sequence[Compaction]) -> None:
    """Show compactions, a line each, and below them what is to be said of single ones."""
    if not rows:
        return
    table = new_table()
    _add_name(table)
    table.add_column("usage before", no_wrap=True)
    table.add_column("after", no_wrap=True)
    table.add_column("messages", justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    for row in rows:
        table.add_row(
            short_name(row.agent_id, row.conversation_id, console),
            bar(row.usage_before),
            bar(row.usage_after),
            f"{_count(row.num_messages_before)} → {_count(row.num_messages_after)}",
            Text(row.outcome or row.state, style=_COLOURS.get(State(row.state), "")),
            Text(row.reason),
        )
    console.print(table)
    _say_below(console, rows)


def _say_below(console: Console, rows: Sequence[Compaction]) -> None:
    for row in rows:
        said = [*(flag.replace("_", " ") for flag in row.flags), *([row.error] if row.error else [])]
        if said:
            name = conversation_name(row.agent_id, row.conversation_id)
            console.print(Text.assemble((f"{name}: ", "yellow"), "; ".join(said)), soft_wrap=True)


def list_compactions(console: Console, rows: Sequence[Compaction]) -> None:
    """List what the ledger holds, a line each: when it was planned and by which id `audit show` knows it, too."""
    table, roomy = new_table(), console.width >= ROOMY
    for name in ("when", "compaction", "conversation", "usage", "messages", "outcome", *(["reason"] if roomy else [])):
        table.add_column(name, justify="right" if name in {"when", "messages"} else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            age(row.planned_at),
            row.id if roomy else row.id[:SHORT_COMPACTION],
            short_name(row.agent_id, row.conversation_id, console),
            f"{_share(row.usage_before)} → {_share(row.usage_after)}",
            f"{_count(row.num_messages_before)} → {_count(row.num_messages_after)}",
            Text(row.outcome or row.state, style=_COLOURS.get(State(row.state), "")),
            *([Text(row.reason)] if roomy else []),
        )
    console.print(table)
    _say_below(console, rows)


def show_conversations(console: Console, rows: Sequence[Conversation]) -> None:
    """Show what the ledger knows of conversations, a line each; the sentences where there is room for them."""
    table = new_table()
    roomy = console.width >= ROOMY
    _add_name(table)
    table.add_column("usage", no_wrap=True)
    table.add_column("messages", justify="right")
    table.add_column("last message", justify="right", no_wrap=True)
    table.add_column("compacted", justify="right", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    if roomy:
        table.add_column("why", overflow="fold")
    for row in rows:
        table.add_row(
            short_name(row.agent_id, row.conversation_id, console),
            bar(row.usage),
            _count(row.num_messages),
            age(row.last_message_at),
            age(row.last_compacted_at),
            Text(row.reason or "-"),
            *([Text(row.sentence or "")] if roomy else []),
        )
    console.print(table)


def new_table() -> Table:
    """Begin a table in the house's dress."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _add_name(table: Table) -> None:
    table.add_column("conversation", no_wrap=True)


def short_name(agent_id: str, conversation_id: str, console: Console) -> str:
    """Name a conversation in one cell: whole where there is room, else as much of its id as tells it apart."""
    name = agent_id if conversation_id == "default" else conversation_id
    return name if console.width >= ROOMY else name[:SHORT_ID]


def _share(usage: float | None) -> str:
    return "-" if usage is None else f"{usage:.2f}"


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)

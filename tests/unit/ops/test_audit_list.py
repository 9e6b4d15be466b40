"""What `audit list` shows: enough to go on with, on the narrowest terminal that is usual."""

from dataclasses import fields
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from rich.console import Console

from ops.view import list_compactions
from worker.audit.records import Compaction, State

ID = "cmp-9b49cde0-14e3-4e97-86f1-54bfd876b6e4"
CONVERSATION = "conv-714978f8-d9bf-43e3-8f2c-8210abca6478"


def a_row(**values: Any) -> Compaction:
    known: dict[str, Any] = {field.name: None for field in fields(Compaction)}
    known |= {"id": ID, "agent_id": "agent-2", "conversation_id": CONVERSATION, "flags": [], "reason": "over_trigger"}
    return Compaction(**known | {"planned_at": datetime.now(UTC), "state": State.SUCCEEDED} | values)


def shown(width: int, *rows: Compaction) -> list[str]:
    written = StringIO()
    list_compactions(Console(file=written, width=width), rows)
    return written.getvalue().splitlines()


def test_a_line_of_eighty_columns_has_when_it_was_and_an_id_that_audit_show_takes() -> None:
    counts = {"num_messages_before": 249, "num_messages_after": 103}
    row = a_row(outcome="nothing_to_compact", usage_before=0.94, usage_after=0.24, **counts)
    line = next(line for line in shown(80, row) if "conv-" in line)
    assert line.split() == [
        "now", "cmp-9b49cde0", "conv-714978f8-", "0.94", "→", "0.24", "249", "→", "103", "nothing_to_compact",
    ]  # fmt: skip
    assert ID.startswith("cmp-9b49cde0")


def test_a_wide_terminal_has_the_ids_whole() -> None:
    line = next(line for line in shown(160, a_row(outcome="compacted")) if "conv-" in line)
    assert [part for part in line.split() if part in {ID, CONVERSATION, "over_trigger"}] == [
        ID, CONVERSATION, "over_trigger",
    ]  # fmt: skip


def test_why_one_failed_is_told_below_the_table() -> None:
    lines = shown(80, a_row(state=State.FAILED, error="the server answered 500"))
    assert lines[-1] == f"{CONVERSATION}: the server answered 500"

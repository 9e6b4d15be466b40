"""What a stage of the campaign comes to: the ledger's rows held against the sandbox's own log of what it did."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.sandbox import Sandbox
from worker.audit.records import OPEN_STATES, Compaction, State

COLUMNS = ("decided", "effective", "succeeded", "recovered", "refused", "failed")
MUST_BE_ZERO = ("doubled", "lost", "untrue", "open")

HEAD = f"{'kind':<34} {'database':<17} " + " ".join(f"{name:>9}" for name in (*COLUMNS, *MUST_BE_ZERO)) + "  seconds"


@dataclass
class Tally:
    """The counts of one stage. doubled .. open must be 0; complaints: what is wrong, a sentence each.

    doubled: conversations with more effective compactions than succeeded rows. lost: effective compactions without a
    succeeded row of theirs, planned rows that vanished, conversations that were to be compacted and never decided.
    untrue: succeeded rows that differ from what the server says.
    """

    kind: str
    database: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*COLUMNS, *MUST_BE_ZERO), 0))
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was doubled, lost, untrue or left open, and the stage did what it was for."""
        return not self.complaints and not any(self.counts[name] for name in MUST_BE_ZERO)

    def line(self) -> str:
        """The stage's one line."""
        figures = " ".join(f"{self.counts[name]:>9}" for name in (*COLUMNS, *MUST_BE_ZERO))
        return f"{self.kind:<34} {self.database:<17} {figures}  {self.seconds:7.1f}"

    def complain(self, column: str, sentence: str) -> None:
        """Count one thing that is wrong."""
        self.counts[column] += 1
        self.complaints.append(f"{column}: {sentence}")


def judge(
    tally: Tally, sandbox: Sandbox, rows: Sequence[Compaction], *, wanted: Collection[str], seen: Collection[str]
) -> None:
    """Fill a tally in. wanted: the conversations to be compacted; seen: ids of rows that were planned at any time."""
    log = sandbox.compactions()
    committed = {name: [entry for entry in one["history"] if entry["committed"]] for name, one in log.items()}
    states = [row.state for row in rows]
    tally.counts |= {
        "decided": len(rows),
        "effective": sum(map(len, committed.values())),
        "succeeded": states.count(State.SUCCEEDED),
        "recovered": sum(row.recovered for row in rows),
        "refused": states.count(State.REFUSED),
        "failed": states.count(State.FAILED),
    }
    for row in rows:
        if row.state in OPEN_STATES:
            tally.complain("open", f"{row.id} of {row.conversation_id} is {row.state}: {row.error}")
    for vanished in set(seen) - {row.id for row in rows}:
        tally.complain("lost", f"{vanished} was planned and is gone")
    decided = {row.conversation_id for row in rows}
    for name in set(wanted) - decided:
        tally.complain("lost", f"{name} was never decided")
    for name in sorted(decided | set(committed)):
        succeeded = [row for row in rows if row.conversation_id == name and row.state == State.SUCCEEDED]
        _judge_conversation(tally, sandbox, name, committed.get(name, []), succeeded)


def _judge_conversation(
    tally: Tally, sandbox: Sandbox, name: str, effects: list[dict[str, Any]], succeeded: list[Compaction]
) -> None:
    if len(effects) > len(succeeded):
        tally.complain("doubled", f"{name}: {len(effects)} effects, {len(succeeded)} succeeded rows")
    left = list(succeeded)
    for place, effect in enumerate(effects):
        row = next((row for row in left if row.ids_before == effect["before_ids"]), None)
        if row is None:
            tally.complain("lost", f"{name}: the effect of {effect['at']} has no succeeded row")
            continue
        left.remove(row)
        problems = list(_differences(row, effect))
        if place == len(effects) - 1:
            problems += _differences_from_now(row, sandbox, effect)
        if problems:
            tally.complain("untrue", f"{row.id} of {name}: {'; '.join(problems)}")
    for row in left:
        tally.complain("untrue", f"{row.id} of {name} succeeded, and the server knows of no such compaction")


def _differences(row: Compaction, effect: dict[str, Any]) -> Iterable[str]:
    """Hold a row against the server's log of the compaction that it tells of."""
    before, after = effect["before_ids"], effect["after_ids"]
    dropped = effect["dropped_ids"]
    told = {
        "num_messages_before": (row.num_messages_before, len(before)),
        "num_messages_after": (row.num_messages_after, len(after)),
        "ids_kept": (row.ids_kept, [id_ for id_ in before if id_ in after]),
        "ids_lost": (row.ids_lost, [id_ for id_ in before if id_ not in after]),
        "ids_dropped": (sorted(row.ids_dropped or []), sorted(dropped)),
        "messages_dropped": ("messages_dropped" in row.flags, bool(dropped)),
        "mode_used": (row.mode_used, effect["mode_used"]),
    }
    if row.response is not None:
        response = json.loads(row.response)
        told["response"] = (
            [response["num_messages_before"], response["num_messages_after"], response["summary"]],
            [len(before), len(after), row.summary],
        )
    elif not row.recovered:
        yield "it has no response and does not say that it was recovered"
    for name, (said, true) in told.items():
        if said != true:
            yield f"{name} says {said}, the server {true}"


def _differences_from_now(row: Compaction, sandbox: Sandbox, effect: dict[str, Any]) -> list[str]:
    """Hold the last row of a conversation against what the server says of it now, with what was written since."""
    conversation = sandbox.get(f"/v1/conversations/{row.conversation_id}")
    overview = sandbox.get(f"/v1/agents/{row.agent_id}/context", conversation_id=row.conversation_id)
    usage = overview["context_window_size_current"] / overview["context_window_size_max"]
    listed = sandbox.get(f"/v1/conversations/{row.conversation_id}/messages", limit=1000)
    summary = next((item["content"] for item in listed if item["id"] == effect["after_ids"][1]), "")
    now, problems = conversation["in_context_message_ids"], []
    if row.summary is None or json.dumps(row.summary)[1:-1] not in json.dumps(json.loads(summary)["message"]):
        problems.append("its summary is not the one in the context")
    if row.ids_after is None or now[: len(row.ids_after)] != row.ids_after:
        problems.append(f"ids_after say {row.ids_after}, the server {now}")
    elif now != row.ids_after:
        # Somebody wrote after the row was closed.
        return problems
    elif row.usage_after is None or abs(row.usage_after - usage) > 1e-9:
        problems.append(f"usage_after says {row.usage_after}, the server {usage}")
    return problems

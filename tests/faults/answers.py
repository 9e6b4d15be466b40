"""A server whose answers come late, are lost, are garbled, or are refusals; and users who do not wait."""

from __future__ import annotations

from typing import Any

from tests.conformance.seeding import user
from tests.faults.stage import Stage

LOST_AFTER_COMMIT = ("reset-after", "truncated", "html-after", "502-after", "reset-mid")


def late_commit(stage: Stage) -> None:
    """The client's time-out ends before the server begins to compact; it carries on."""
    _strike(stage, [_fault("hang:3", stage.size // 2)])
    stage.expect(any(row.recovered for row in stage.rows()), "no compaction was late")


def reset_after_commit(stage: Stage) -> None:
    """The connection is reset when the compaction has taken effect."""
    _strike(stage, [_fault("reset-after", stage.size // 2)])
    stage.expect(any(row.recovered for row in stage.rows()), "no answer was lost")


def garbled_after_commit(stage: Stage) -> None:
    """The answer is cut short, or is a gateway's page, when the compaction has taken effect."""
    times = max(1, stage.size // 8)
    _strike(stage, [_fault(kind, times) for kind in LOST_AFTER_COMMIT])
    stage.expect(any(row.recovered for row in stage.rows()), "no answer was garbled")


def storm_of_429(stage: Stage) -> None:
    """Most compactions are answered 429 with Retry-After."""
    _strike(stage, [_fault("429", stage.size, probability=0.7, retry_after=1)])


def storm_of_503(stage: Stage) -> None:
    """Many requests of any kind are answered 503 with Retry-After."""
    _strike(stage, [_fault("503", stage.size * 3, probability=0.4, retry_after=1, endpoint="any")])


def message_during_compaction(stage: Stage) -> None:
    """A user writes while a compaction runs: the message falls out of the context, and the row says which."""
    stage.sandbox.set_latency(compact_latency=1.5)
    stage.worker()
    stage.beat()
    written: set[str] = set()

    def write() -> None:
        for name in set(stage.under_way()) - written:
            say(stage, name)
            written.add(name)

    stage.settle(meanwhile=write)
    stage.expect(any(row.ids_dropped for row in stage.rows()), "no message was dropped")


def say(stage: Stage, conversation_id: str) -> None:
    """Send one message; the agent answers at once."""
    body = {"messages": [user("are you still there?")], "streaming": False}
    stage.sandbox.post(f"/v1/conversations/{conversation_id}/messages", body)


def _strike(stage: Stage, faults: list[dict[str, Any]]) -> None:
    stage.sandbox.set_faults(*faults, seed=stage.dice.randrange(1 << 30))
    stage.worker()
    stage.beat()
    stage.settle()
    stage.expect(any(fault["struck"] for fault in stage.sandbox.get("/sandbox/faults")), "no fault struck")


def _fault(kind: str, times: int, **more: Any) -> dict[str, Any]:
    return {"endpoint": "compact", "kind": kind, "times": max(1, times), "probability": 0.6, **more}

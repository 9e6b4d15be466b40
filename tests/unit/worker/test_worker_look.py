"""Whether a run still occupies a conversation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.letta.models import Run
from worker.look import CLOCK_SLACK, occupies
from worker.measure import Ref
from worker.policy.snapshot import ContextMessage, Sighting, Snapshot, UsageSource

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
STALE = timedelta(hours=1)
HERE, DEFAULT = Ref("agent-1", "conv-1"), Ref("agent-1", "default")

ASKED = ContextMessage("m1", "user", 10)
ANSWERED = ContextMessage("m2", "assistant", 10)
CALLING = ContextMessage("m2", "assistant", 10, has_tool_calls=True)
RETURNED = ContextMessage("m3", "tool", 10)


def run(**changes: Any) -> Run:
    fields = {"id": "run-1", "status": "running", "conversation_id": None, "created_at": NOW - timedelta(minutes=5)}
    return Run.model_validate(fields | changes)


def snapshot(*messages: ContextMessage, last: datetime | None = NOW - timedelta(minutes=5)) -> Snapshot:
    return Snapshot(Sighting(last_message_at=last), 16_000, 12_000, 500, messages, UsageSource.CONTEXT_OVERVIEW)


WAITING = snapshot(ASKED)

CASES: dict[str, tuple[bool, Run, Ref, Snapshot]] = {
    "it names this conversation": (True, run(conversation_id="conv-1"), HERE, WAITING),
    "it names this conversation, which has an answer already": (
        True,
        run(conversation_id="conv-1"),
        HERE,
        snapshot(ASKED, ANSWERED),
    ),
    "it names another one": (False, run(conversation_id="conv-2"), HERE, WAITING),
    "it has ended": (False, run(conversation_id="conv-1", status="completed"), HERE, WAITING),
    "it failed": (False, run(conversation_id="conv-1", status="failed"), HERE, WAITING),
    "its status is unknown": (True, run(conversation_id="conv-1", status="pondering"), HERE, WAITING),
    "it has an end, whatever its status": (
        False,
        run(conversation_id="conv-1", completed_at="2026-11-23T02:59:00"),
        HERE,
        WAITING,
    ),
    "it is stale": (False, run(conversation_id="conv-1", created_at=NOW - STALE - timedelta(seconds=1)), HERE, WAITING),
    "it is nearly stale": (True, run(conversation_id="conv-1", created_at=NOW - STALE), HERE, WAITING),
    "nobody knows when it began": (True, run(created_at=None), HERE, WAITING),
    "it names none and began with the last message": (True, run(), HERE, WAITING),
    "it names none and began within the clocks' slack of it": (
        True,
        run(created_at=NOW - timedelta(minutes=5) + CLOCK_SLACK),
        HERE,
        WAITING,
    ),
    "it names none and began at another time": (False, run(created_at=NOW - timedelta(minutes=2)), HERE, WAITING),
    "it names none and the answer is there": (False, run(), HERE, snapshot(ASKED, ANSWERED)),
    "it names none and a tool is being called": (True, run(), HERE, snapshot(ASKED, CALLING)),
    "it names none and a tool has answered": (True, run(), HERE, snapshot(ASKED, CALLING, RETURNED)),
    "it names none and the conversation is empty": (True, run(), HERE, snapshot()),
    "it names none and nobody knows the last message": (True, run(), HERE, snapshot(ASKED, ANSWERED, last=None)),
    "the default one, at another time": (True, run(created_at=NOW - timedelta(minutes=2)), DEFAULT, WAITING),
    "the default one, with its answer": (False, run(), DEFAULT, snapshot(ASKED, ANSWERED)),
    "the default one, and a run that names a conversation": (False, run(conversation_id="conv-1"), DEFAULT, WAITING),
}


@pytest.mark.parametrize(("busy", "found", "ref", "seen"), CASES.values(), ids=CASES.keys())
def test_a_run_occupies_a_conversation_when(busy: bool, found: Run, ref: Ref, seen: Snapshot) -> None:  # noqa: FBT001
    assert occupies(found, ref, seen, now=NOW, stale_run_after=STALE) is busy

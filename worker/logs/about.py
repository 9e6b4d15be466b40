"""What the lines of a piece of work are about: ids that each of them carries until the work is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from structlog import contextvars


@contextmanager
def about(
    *,
    scan_id: str | None = None,
    compaction_id: str | None = None,
    agent_id: str | None = None,
    conversation_id: str | None = None,
    event_id: str | None = None,
    delivery_id: str | None = None,
) -> Iterator[None]:
    """Have every line of the block, and of what it asks the loop for, carry these ids; those not given stay."""
    given = {
        "scan_id": scan_id,
        "compaction_id": compaction_id,
        "agent_id": agent_id,
        "conversation_id": conversation_id,
        "event_id": event_id,
        "delivery_id": delivery_id,
    }
    with contextvars.bound_contextvars(**{name: value for name, value in given.items() if value is not None}):
        yield


def begin_task(name: str, task_id: str, **ids: str) -> None:
    """Begin a task in this thread, known by its ids: what an earlier one was about is forgotten."""
    contextvars.clear_contextvars()
    contextvars.bind_contextvars(task=name, task_id=task_id, **ids)


def end_task() -> None:
    """End a task: what this thread logs next is about nothing."""
    contextvars.clear_contextvars()

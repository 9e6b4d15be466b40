"""A look at one conversation, close enough to act on: its ids in context, its usage, and whether it is in use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.letta.client import Letta
from worker.letta.errors import LettaStatusError
from worker.letta.messages import Message
from worker.letta.models import Run, Unreadable
from worker.letta.summaries import summary_text
from worker.measure import LIST_LIMIT, NO_OVERVIEW, Ref, in_context_ids, measure
from worker.policy.snapshot import ContextMessage, Sighting, Snapshot

CLOCK_SLACK = timedelta(seconds=30)
"""How far a run and the message that it answers may lie apart, the server noting the one before the other."""


NEWEST_LIMIT = 100
"""Messages looked through for what arrived during a compaction."""


@dataclass(frozen=True, slots=True)
class Look:
    """ids: in context, in order, the conversation's own (an overview shows the agent's system message instead)."""

    ids: tuple[str, ...]
    snapshot: Snapshot


async def look(letta: Letta, ref: Ref, sighting: Sighting, *, now: datetime, stale_run_after: timedelta) -> Look:
    """Look at a conversation before compacting it: three requests at once. Raises LettaError and Unmeasurable."""
    (ids, last_message_at), snapshot, runs = await asyncio.gather(
        in_context_ids(letta, ref), measure(letta, ref, sighting), _active_runs(letta, ref.agent_id)
    )
    snapshot = replace(snapshot, sighting=_active_at(snapshot.sighting, last_message_at))
    busy = next(
        (run.id for run in runs if occupies(run, ref, snapshot, now=now, stale_run_after=stale_run_after)), None
    )
    return Look(tuple(ids), replace(snapshot, active_run=busy))


async def look_again(letta: Letta, ref: Ref) -> Look:
    """Look at a conversation after a compaction: its ids and its usage."""
    unknown = Sighting(activity_known=False)
    (ids, last), snapshot = await asyncio.gather(in_context_ids(letta, ref), measure(letta, ref, unknown))
    return Look(tuple(ids), replace(snapshot, sighting=_active_at(snapshot.sighting, last)))


def _active_at(seen: Sighting, last_message_at: datetime | None) -> Sighting:
    """Take the server's own word for the last activity, where it gives one."""
    return seen if last_message_at is None else replace(seen, last_message_at=last_message_at, activity_known=True)


async def arrivals(letta: Letta, ref: Ref, newest_before: datetime | None) -> list[str]:
    """Give the ids of messages made at or after a time of the server's clock, summaries left out.

    The list's newest rows are asked for without a cursor: a compaction renumbers what stays in context, so that what
    earlier ones evicted comes after it in the list (0.16.8). Such a row is told by its age.
    """
    if newest_before is None:
        return []
    rows = await letta.list_messages(
        ref.conversation_id, agent_id=ref.agent_in_request, limit=NEWEST_LIMIT, order="desc"
    )
    # A list gives whole seconds.
    since = newest_before.replace(microsecond=0)
    recent = [row for row in rows if isinstance(row, Message) and row.date is not None and row.date >= since]
    return list(dict.fromkeys(row.id for row in recent if summary_text(row) is None))


async def find_message(letta: Letta, ref: Ref, message_id: str) -> Message | None:
    """Find one message of a conversation in its list, wherever the list has put it."""
    pages = letta.message_pages(ref.conversation_id, agent_id=ref.agent_in_request, limit=LIST_LIMIT, order="asc")
    async for page in pages:
        for row in page:
            if isinstance(row, Message) and row.id == message_id:
                return row
    return None


def occupies(run: Run, ref: Ref, snapshot: Snapshot, *, now: datetime, stale_run_after: timedelta) -> bool:
    """Tell whether a run may still be writing to the conversation.

    A run that names another conversation does not. One that names none (a send that was not streamed; 0.16.8 leaves
    it `created` for ever) does, unless its time shows that it was another conversation's, or the conversation has
    its answer by now.
    """
    if not run.active or (run.created_at is not None and now - run.created_at > stale_run_after):
        return False
    if run.conversation_id is not None:
        return run.conversation_id == ref.conversation_id
    last_message_at = snapshot.sighting.last_message_at
    if run.created_at is None or last_message_at is None:
        return True
    if not ref.is_default and abs(run.created_at - last_message_at) > CLOCK_SLACK:
        return False
    return not _answered(snapshot.messages)


def _answered(messages: Sequence[ContextMessage]) -> bool:
    """Tell whether the context ends with an answer: then the turn that the last message began is over."""
    return bool(messages) and messages[-1].role == "assistant" and not messages[-1].has_tool_calls


async def _active_runs(letta: Letta, agent_id: str) -> list[Run]:
    """Ask for the agent's unfinished runs; a server without that list simply proves nothing by it."""
    try:
        rows = await letta.list_runs(agent_id=agent_id, active=True)
    except LettaStatusError as error:
        if error.status not in NO_OVERVIEW:
            raise
        return []
    return [row for row in rows if not isinstance(row, Unreadable)]

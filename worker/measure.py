"""How full a conversation is: the server's own count where it gives one, else an estimate from its messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from worker.letta.client import DEFAULT, Letta
from worker.letta.errors import LettaStatusError
from worker.letta.messages import ContextOverview, Message
from worker.letta.models import Agent, Unreadable
from worker.letta.summaries import summary_text
from worker.policy.snapshot import ContextMessage, Sighting, Snapshot, UsageSource

BYTES_PER_TOKEN = 4

LIST_LIMIT = 1000
"""Messages asked for at once: after a compaction a server's pages lose rows at their edges, so few pages are best."""

NO_OVERVIEW = frozenset({404, 405, 410, 501})
"""What a server answers that has no context overview (any more)."""

_ROLES = {
    "system_message": "system",
    "user_message": "user",
    "assistant_message": "assistant",
    "reasoning_message": "assistant",
    "hidden_reasoning_message": "assistant",
    "tool_call_message": "assistant",
    "tool_return_message": "tool",
    "approval_request_message": "approval",
    "approval_response_message": "approval",
    "summary_message": "summary",
}
_CALLS_TOOLS = frozenset({"tool_call_message", "approval_request_message"})


class Unmeasurable(Exception):
    """The server's answers do not say how full a conversation is."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Names one conversation; the agent's own has the id `default`."""

    agent_id: str
    conversation_id: str

    @property
    def is_default(self) -> bool:
        """Whether this is the agent's own conversation."""
        return self.conversation_id == DEFAULT

    @property
    def key(self) -> tuple[str, str]:
        """The ledger's key."""
        return self.agent_id, self.conversation_id

    @property
    def agent_in_request(self) -> str | None:
        """The agent id where the API wants it beside the path: for `default` alone."""
        return self.agent_id if self.is_default else None


async def measure(letta: Letta, ref: Ref, sighting: Sighting) -> Snapshot:
    """Measure one conversation: one request where the server has a context overview.

    Raises LettaError, NotFound among them for a conversation that is gone, and Unmeasurable.
    """
    try:
        overview = await letta.context_overview(ref.agent_id, None if ref.is_default else ref.conversation_id)
    except LettaStatusError as error:
        if error.status not in NO_OVERVIEW:
            raise
        return await _estimate(letta, ref, sighting)
    if (overview.num_messages or 0) <= 1 and not ref.is_default:
        # 0.16.8 shows a deleted conversation as an empty one; only asking for it tells them apart.
        await letta.retrieve_conversation(ref.conversation_id)
    return await _from_overview(letta, ref, sighting, overview)


async def in_context_ids(letta: Letta, ref: Ref) -> tuple[list[str], datetime | None]:
    """Give the ids in context, in order, and the conversation's last activity where the server tells it."""
    if ref.is_default:
        return (await letta.retrieve_agent(ref.agent_id)).message_ids, None
    conversation = await letta.retrieve_conversation(ref.conversation_id)
    return conversation.in_context_message_ids, conversation.last_message_at


async def _from_overview(letta: Letta, ref: Ref, sighting: Sighting, overview: ContextOverview) -> Snapshot:
    window = overview.context_window_size_max
    if window <= 0:
        raise Unmeasurable(f"the server gives {window} tokens as the window of {ref.agent_id}")
    newest: datetime | None
    if overview.messages and not overview.unreadable_messages:
        sized = [(m.id, m.role, m.size, m.has_tool_calls) for m in overview.messages]
        newest = max((m.created_at for m in overview.messages if m.created_at and _spoken(m.role)), default=None)
    else:
        sized, newest = await _listed(letta, ref)
    return Snapshot(
        sighting=_with_activity(sighting, newest),
        window=window,
        tokens=overview.context_window_size_current,
        tokens_fixed=overview.fixed_tokens,
        messages=_scaled(sized, overview.context_window_size_current - overview.fixed_tokens),
        source=UsageSource.CONTEXT_OVERVIEW,
        newest_at=newest,
    )


async def _estimate(letta: Letta, ref: Ref, sighting: Sighting) -> Snapshot:
    """Measure without an overview: about four bytes of content a token, the system message included."""
    agent = await letta.retrieve_agent(ref.agent_id)
    window = _window(agent)
    sized, newest = await _listed(letta, ref)
    if not sized:
        raise Unmeasurable(f"the server lists no message that is in context of {ref.conversation_id}")
    tokens = [-(-size // BYTES_PER_TOKEN) for _, _, size, _ in sized]
    fixed = tokens[0] if sized and sized[0][1] == "system" else 0
    return Snapshot(
        sighting=_with_activity(sighting, newest),
        window=window,
        tokens=sum(tokens),
        tokens_fixed=fixed,
        messages=_scaled(sized, sum(tokens) - fixed),
        source=UsageSource.MESSAGE_ESTIMATE,
        newest_at=newest,
    )


def _window(agent: Agent) -> int:
    if agent.window is None or agent.window <= 0:
        raise Unmeasurable(f"the server does not tell the window of {agent.id}")
    return agent.window


_Sized = tuple[str, str, int, bool]
"""One message in context: its id, role, bytes of content, and whether it calls tools."""


async def _listed(letta: Letta, ref: Ref) -> tuple[list[_Sized], datetime | None]:
    """Read the in-context messages from the list; membership and order come from the ids, never from the list."""
    ids, _ = await in_context_ids(letta, ref)
    wanted, rows = set(ids), dict[str, list[Message]]()
    pages = letta.message_pages(ref.conversation_id, agent_id=ref.agent_in_request, limit=LIST_LIMIT, order="asc")
    async for page in pages:
        for item in page:
            if not isinstance(item, Unreadable) and item.id in wanted:
                rows.setdefault(item.id, []).append(item)
        if len(rows) == len(wanted):
            break
    sized = [_one(id_, rows[id_]) for id_ in ids if id_ in rows]
    dates = [row.date for id_ in ids for row in rows.get(id_, []) if _spoken(_role([row])) and row.date]
    return sized, max(dates, default=None)


def _one(id_: str, rows: Sequence[Message]) -> _Sized:
    """Fold the list's items of one message (reasoning, text and tool call come apart) into one."""
    return id_, _role(rows), sum(row.size for row in rows), any(row.message_type in _CALLS_TOOLS for row in rows)


def _role(rows: Sequence[Message]) -> str:
    roles = [_ROLES.get(row.message_type, "user") for row in rows]
    if any(summary_text(row) is not None for row in rows):
        return "summary"
    return "approval" if "approval" in roles else roles[0]


def _spoken(role: str) -> bool:
    """Whether a message is activity: a compaction's own summary and the system message are not."""
    return role not in ("system", "summary")


def _scaled(sized: Iterable[_Sized], tokens: int) -> tuple[ContextMessage, ...]:
    """Share the server's sum out among the messages by their bytes; the system message is counted as fixed."""
    rows = list(sized)
    total = sum(size for _, role, size, _ in rows if role != "system") or 1
    return tuple(
        ContextMessage(id_, role, 0 if role == "system" else round(size * tokens / total), calls)
        for id_, role, size, calls in rows
    )


def _with_activity(sighting: Sighting, newest: datetime | None) -> Sighting:
    """Take the newest message's time where no list told of any activity."""
    if sighting.activity_known or newest is None:
        return sighting
    return replace(sighting, last_message_at=newest)

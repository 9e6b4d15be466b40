"""What is known of one conversation when a decision about it is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class UsageSource(StrEnum):
    """Where a usage figure comes from, the best one first."""

    CONTEXT_OVERVIEW = "context_overview"
    """The server's own count: `GET /v1/agents/{id}/context`."""
    MESSAGE_ESTIMATE = "message_estimate"
    """The in-context messages of the list endpoint, at about four bytes of content a token."""


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """One message in the context window. tokens: its share of the context, an estimate scaled to the server's sum."""

    id: str
    role: str
    tokens: int
    has_tool_calls: bool = False

    @property
    def can_start_window(self) -> bool:
        """Whether a sliding window may begin here: servers cut on an assistant's message or an approval request."""
        return self.role == "assistant" or self.asks_approval

    @property
    def asks_approval(self) -> bool:
        """Whether this is an approval request; the last message of a context may be one that is pending."""
        return self.role == "approval" and self.has_tool_calls


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the list endpoint and the ledger tell of a conversation, before anything is asked about it alone.

    last_message_at is None both for "never had a message" and for "the server did not say"; activity_known tells
    which. num_messages: messages in context, None where the list does not say. settled_*: the last measurement and
    the activity that it already took into account. is_safety_copy: it is a fork that this service made.
    """

    last_message_at: datetime | None = None
    activity_known: bool = True
    num_messages: int | None = None
    open_compaction: str | None = None
    last_compacted_at: datetime | None = None
    not_before: datetime | None = None
    settled_usage: float | None = None
    settled_at: datetime | None = None
    settled_activity: datetime | None = None
    is_safety_copy: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A measured conversation.

    window and tokens are in tokens; messages are those in context, in order, the system message first;
    tokens_fixed: what no compaction can free (system prompt, memory blocks, tool definitions); newest_at: when the
    newest message was made that is no summary; active_run: a run that may still be writing to it.
    """

    sighting: Sighting
    window: int
    tokens: int
    tokens_fixed: int
    messages: tuple[ContextMessage, ...]
    source: UsageSource
    newest_at: datetime | None = None
    active_run: str | None = None

    @property
    def usage(self) -> float:
        """Tokens in context over the window; above 1 when the server holds more than the model can take."""
        return self.tokens / self.window

"""The bodies of requests; like the real server's models they ignore fields that they do not know."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

Mode = Literal["all", "sliding_window", "self_compact_all", "self_compact_sliding_window"]

PROVIDERS = (
    "openai",
    "sglang",
    "anthropic",
    "google_ai",
    "google_vertex",
    "azure",
    "xai",
    "zai",
    "groq",
    "deepseek",
    "together",
    "bedrock",
    "baseten",
    "openrouter",
    "chatgpt_oauth",
)
"""The values of `model_settings.provider_type` that the real server accepts."""


class CompactionSettings(BaseModel):
    """How to compact; the defaults are the real server's."""

    model: str | None = None
    model_settings: dict[str, Any] | None = None
    prompt: str | None = None
    prompt_acknowledgement: bool = False
    clip_chars: int | None = 50_000
    mode: Mode = "sliding_window"
    sliding_window_percentage: float = 0.3

    @field_validator("model_settings")
    @classmethod
    def provider_is_known(cls, settings: dict[str, Any] | None) -> dict[str, Any] | None:
        """Refuse settings of no known provider, as the discriminated union of the real server does."""
        if settings is not None and settings.get("provider_type") not in PROVIDERS:
            raise ValueError(f"provider_type should be one of {', '.join(PROVIDERS)}")
        return settings


class CompactionRequest(BaseModel):
    """The body of a compaction; all of it may be left out."""

    agent_id: str | None = None
    compaction_settings: CompactionSettings | None = None


class MemoryBlock(BaseModel):
    """A memory block of a new agent."""

    label: str
    value: str
    description: str | None = None
    limit: int = 100_000


class CreateAgent(BaseModel):
    """The body that makes an agent."""

    name: str = "sandbox-agent"
    model: str | None = "openai/gpt-4o-mini"
    system: str | None = None
    context_window_limit: int | None = Field(default=None, gt=0)
    memory_blocks: list[MemoryBlock] | None = None
    agent_type: str = "letta_v1_agent"
    timezone: str = "UTC"
    compaction_settings: CompactionSettings | None = None
    llm_config: dict[str, Any] | None = None
    tags: list[str] | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None


class CreateConversation(BaseModel):
    """The body that makes a conversation; all of it may be left out."""

    summary: str | None = None
    model: str | None = None


class UpdateConversation(BaseModel):
    """The body that changes a conversation; what is left out, or null, stays as it is."""

    summary: str | None = None
    model: str | None = None
    last_message_at: datetime | None = None


class SentMessage(BaseModel):
    """One message that is sent."""

    type: Literal["message", "approval", "tool_return"] = "message"
    role: Literal["user", "system", "assistant"] = "user"
    content: str | list[dict[str, Any]] = ""
    name: str | None = None
    otid: str | None = None
    sender_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def role_and_content_are_given(cls, value: Any) -> Any:
        """Insist on a role and a content for what is a message, and not an answer to an approval."""
        if isinstance(value, dict) and value.get("type", "message") == "message":
            missing = [name for name in ("role", "content") if name not in value]
            if missing:
                raise ValueError(f"Field required: {', '.join(missing)}")
        return value


class SendRequest(BaseModel):
    """The body of a send; it streams unless told not to."""

    messages: list[SentMessage] | None = None
    input: str | list[dict[str, Any]] | None = None
    agent_id: str | None = None
    streaming: bool = True
    stream_tokens: bool = False
    include_pings: bool = True
    background: bool = False
    max_steps: int = 50

    @model_validator(mode="after")
    def either_messages_or_input(self) -> SendRequest:
        """Take exactly one of the two, and treat an input as one message of the user."""
        if self.input is not None and self.messages is not None:
            raise ValueError("Cannot specify both 'input' and 'messages'. Use one or the other.")
        if self.input is None and self.messages is None:
            raise ValueError("Must specify either 'input' or 'messages'.")
        if self.input is not None:
            self.messages = [SentMessage(role="user", content=self.input)]
        return self


class StreamRequest(BaseModel):
    """The body that asks for a stream again."""

    agent_id: str | None = None
    run_id: str | None = None
    otid: str | None = None
    include_pings: bool | None = True
    starting_after: int | None = None

"""Messages, the context overview that carries them, and the answer to a send.

Every type of message is read, known or not: what a message says is whatever is not its envelope.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field, model_validator

from worker.letta.models import Moment, Record, Row, Unreadable, read_rows

_ENVELOPE = frozenset(
    {"id", "date", "name", "message_type", "otid", "sender_id", "step_id", "is_err", "seq_id", "run_id", "status"}
)

_TWICE = (("tool_call", "tool_calls"), ("tool_return", "tool_returns"))
"""Deprecated fields and those that repeat what they say."""

_TEXTS = ("content", "reasoning", "summary", "tool_return", "hidden_reasoning")


def json_size(value: Any) -> int:
    """Return the size of `value` as JSON, in bytes, as the server counts it: ASCII, other letters escaped."""
    return len(json.dumps(value, separators=(",", ":"), default=str))


class Message(Row):
    """A message of the list or of a reply; several may share one id (a thought, a tool call, an answer).

    `said` holds everything but the envelope, as it came.
    """

    message_type: str = "unknown"
    date: Moment | None = None
    run_id: str | None = None
    step_id: str | None = None
    said: dict[str, Any] = Field(default_factory=dict, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "said" in raw:
            return raw
        said = {key: value for key, value in raw.items() if key not in _ENVELOPE and value is not None}
        for deprecated, newer in _TWICE:
            if said.get(newer):
                said.pop(deprecated, None)
        return {key: raw[key] for key in raw.keys() & cls.model_fields.keys()} | {"said": said}

    @property
    def size(self) -> int:
        """Bytes of JSON of what is said, the base of an estimate in tokens."""
        return sum(json_size(value) for value in self.said.values())

    def text(self) -> str:
        """Return what is said where it is text, joined by line ends; empty for a bare tool call."""
        for field in _TEXTS:
            text = _as_text(self.said.get(field))
            if text:
                return text
        return _as_text([item.get("tool_return") for item in _objects(self.said.get("tool_returns"))])


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _as_text(value.get("text"))
    if isinstance(value, list):
        return "\n".join(text for text in map(_as_text, value) if text)
    return ""


class ContextMessage(Row):
    """A message as the overview shows it: not what it says, but how much.

    `size` is in bytes of JSON; images count nothing, as their bytes say nothing of their tokens.
    """

    role: str
    created_at: Moment | None = None
    has_tool_calls: bool = False
    size: int = 0

    @model_validator(mode="before")
    @classmethod
    def _weigh(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "size" in raw:
            return raw
        calls = raw.get("tool_calls")
        # A tool's return comes in both fields.
        size = max(_content_size(raw.get("content")), json_size(raw.get("tool_returns") or ""))
        kept = {key: raw[key] for key in ("id", "role", "created_at") if key in raw}
        return kept | {"has_tool_calls": bool(calls), "size": size + (json_size(calls) if calls else 0)}


def _content_size(content: Any) -> int:
    if not isinstance(content, list):
        return json_size(content) if content else 0
    return sum(json_size(part.get("text") or part) for part in _objects(content) if part.get("type") != "image")


class ContextOverview(Record):
    """What fills an agent's context, for one conversation; all figures in tokens but `num_messages`.

    `messages` are the in-context messages in order. The first is the agent's system message even where the
    conversation has one of its own: compare ids from the second on (seen on 0.16.8).
    """

    context_window_size_max: int
    context_window_size_current: int
    num_messages: int | None = None
    num_tokens_system: int = 0
    num_tokens_core_memory: int = 0
    num_tokens_memory_filesystem: int = 0
    num_tokens_tool_usage_rules: int = 0
    num_tokens_directories: int = 0
    num_tokens_external_memory_summary: int = 0
    num_tokens_summary_memory: int = 0
    num_tokens_functions_definitions: int = 0
    num_tokens_messages: int = 0
    messages: list[ContextMessage] = Field(default_factory=list, repr=False)
    unreadable_messages: int = 0

    @model_validator(mode="before")
    @classmethod
    def _read_messages(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(raw.get("messages"), list):
            return raw
        rows = read_rows(raw["messages"], ContextMessage)
        readable = [row for row in rows if isinstance(row, ContextMessage)]
        return raw | {"messages": readable, "unreadable_messages": len(rows) - len(readable)}

    @property
    def usage(self) -> float | None:
        """Tokens in context / context window, None where the server names no window."""
        return self.context_window_size_current / self.context_window_size_max if self.context_window_size_max else None

    @property
    def fixed_tokens(self) -> int:
        """Tokens that no compaction frees: everything but the messages and the summary."""
        return self.context_window_size_current - self.num_tokens_messages - self.num_tokens_summary_memory


class SendUsage(Record):
    """What a send cost, in tokens; `context_tokens` is what was in context at its end."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    context_tokens: int | None = None
    step_count: int | None = None


class LettaResponse(Record):
    """The whole answer to a send that was not streamed."""

    messages: list[Message | Unreadable] = Field(default_factory=list, repr=False)
    stop_reason: str | None = None
    usage: SendUsage = SendUsage()

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        flat = dict(raw)
        if isinstance(flat.get("messages"), list):
            flat["messages"] = read_rows(flat["messages"], Message)
        if isinstance(flat.get("stop_reason"), dict):
            flat["stop_reason"] = flat["stop_reason"].get("stop_reason")
        if flat.get("usage") is None:
            flat.pop("usage", None)
        return flat

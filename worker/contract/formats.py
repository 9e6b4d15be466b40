"""The response formats and thinking switches that the providers' model settings are built from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from worker.contract.base import Omittable, Request


class TextResponseFormat(Request):
    """Plain text."""

    type: Literal["text"]


class JsonSchemaResponseFormat(Request):
    """JSON that follows a schema; `json_schema` is the schema itself."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any]


class JsonObjectResponseFormat(Request):
    """Any JSON object."""

    type: Literal["json_object"]


ResponseFormat = Annotated[
    TextResponseFormat | JsonSchemaResponseFormat | JsonObjectResponseFormat, Field(discriminator="type")
]


class OpenAIReasoning(Request):
    """How hard an OpenAI-compatible reasoning model is to think."""

    reasoning_effort: Omittable[Literal["none", "minimal", "low", "medium", "high", "xhigh"]] = None


class ChatGPTOAuthReasoning(Request):
    """How hard a model behind ChatGPT's own backend is to think; it knows no `minimal`."""

    reasoning_effort: Omittable[Literal["none", "low", "medium", "high", "xhigh"]] = None


class AnthropicThinking(Request):
    """Extended thinking; `budget_tokens` is the most tokens it may take."""

    budget_tokens: Omittable[int] = None
    type: Omittable[Literal["enabled", "disabled"]] = None


class GoogleThinkingConfig(Request):
    """Google's thinking; `thinking_budget` is in tokens."""

    include_thoughts: Omittable[bool] = None
    thinking_budget: Omittable[int] = None


class ZaiThinking(Request):
    """Thinking of GLM models; `clear_thinking = false` keeps earlier thinking."""

    clear_thinking: Omittable[bool] = None
    type: Omittable[Literal["enabled", "disabled"]] = None

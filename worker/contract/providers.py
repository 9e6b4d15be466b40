"""The model settings of every provider, each with exactly its own fields, told apart by `provider_type`.

Fields and values are those of the API reference, and what the published SDK (letta-client 1.12.1) knows beyond it:
the providers `sglang`, `moonshot`, `moonshot_coding` and `baseten`, and two more values of `effort`.
The reference calls `provider_type` optional; here it is required, because nothing else says which provider is meant.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from worker.contract.base import Omittable, Request
from worker.contract.formats import (
    AnthropicThinking,
    ChatGPTOAuthReasoning,
    GoogleThinkingConfig,
    OpenAIReasoning,
    ResponseFormat,
    ZaiThinking,
)

Level = Literal["low", "medium", "high"]


class _Settings(Request):
    """What every provider has."""

    max_output_tokens: Omittable[Annotated[int, Field(ge=1)]] = None
    parallel_tool_calls: Omittable[bool] = None
    temperature: Omittable[float] = None


class _Formatted(_Settings):
    """What the providers have that take a response format."""

    response_format: ResponseFormat | None = None


class _Google(_Settings):
    """What Google's two doors have in common; their word for a response format is `response_schema`."""

    response_schema: ResponseFormat | None = None
    thinking_config: Omittable[GoogleThinkingConfig] = None


class _OpenAI(_Formatted):
    """What OpenAI and SGLang have in common."""

    reasoning: Omittable[OpenAIReasoning] = None
    strict: Omittable[bool] = None


class _Anthropic(_Formatted):
    """What Anthropic and Kimi's coding endpoint have in common."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    strict: Omittable[bool] = None
    thinking: Omittable[AnthropicThinking] = None
    verbosity: Level | None = None


class OpenAIModelSettings(_OpenAI):
    """OpenAI."""

    provider_type: Literal["openai"]


class SGLangModelSettings(_OpenAI):
    """SGLang, OpenAI-compatible; `tool_call_parser` names its parser, such as `hermes`."""

    provider_type: Literal["sglang"]
    tool_call_parser: str | None = None


class AnthropicModelSettings(_Anthropic):
    """Anthropic."""

    provider_type: Literal["anthropic"]


class MoonshotCodingModelSettings(_Anthropic):
    """Kimi Code, Anthropic-compatible."""

    provider_type: Literal["moonshot_coding"]


class GoogleAIModelSettings(_Google):
    """Google AI."""

    provider_type: Literal["google_ai"]


class GoogleVertexModelSettings(_Google):
    """Google Vertex."""

    provider_type: Literal["google_vertex"]


class AzureModelSettings(_Formatted):
    """Azure OpenAI."""

    provider_type: Literal["azure"]


class XaiModelSettings(_Formatted):
    """The provider xAI."""

    provider_type: Literal["xai"]


class ZaiModelSettings(_Formatted):
    """Z.ai (ZhipuAI)."""

    provider_type: Literal["zai"]
    thinking: Omittable[ZaiThinking] = None


class MoonshotModelSettings(_Formatted):
    """Moonshot, OpenAI-compatible."""

    provider_type: Literal["moonshot"]
    strict: Omittable[bool] = None


class GroqModelSettings(_Formatted):
    """Groq."""

    provider_type: Literal["groq"]


class DeepseekModelSettings(_Formatted):
    """Deepseek."""

    provider_type: Literal["deepseek"]


class TogetherModelSettings(_Formatted):
    """Together AI."""

    provider_type: Literal["together"]


class BedrockModelSettings(_Formatted):
    """AWS Bedrock."""

    provider_type: Literal["bedrock"]


class OpenRouterModelSettings(_Formatted):
    """OpenRouter."""

    provider_type: Literal["openrouter"]


class BasetenModelSettings(_Settings):
    """Baseten, which takes no response format."""

    provider_type: Literal["baseten"]


class ChatGPTOAuthModelSettings(_Settings):
    """ChatGPT's own backend, which takes no response format."""

    provider_type: Literal["chatgpt_oauth"]
    reasoning: Omittable[ChatGPTOAuthReasoning] = None


AnyModelSettings = (
    OpenAIModelSettings
    | SGLangModelSettings
    | AnthropicModelSettings
    | MoonshotCodingModelSettings
    | GoogleAIModelSettings
    | GoogleVertexModelSettings
    | AzureModelSettings
    | XaiModelSettings
    | ZaiModelSettings
    | MoonshotModelSettings
    | GroqModelSettings
    | DeepseekModelSettings
    | TogetherModelSettings
    | BedrockModelSettings
    | OpenRouterModelSettings
    | BasetenModelSettings
    | ChatGPTOAuthModelSettings
)

ModelSettings = Annotated[AnyModelSettings, Field(discriminator="provider_type")]
"""Settings of any one provider, chosen by `provider_type`."""

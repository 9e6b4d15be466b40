"""Where the Letta server is, and what is known of its ways."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from worker.configuration.part import Part, url_parts


class LettaSettings(Part):
    """The server whose conversations are kept compact."""

    letta_base_url: str | None = Field(
        None,
        alias="LETTA_BASE_URL",
        description="The Letta server, as the official SDK names it. Without it, `up` starts the sandbox.",
    )
    letta_api_key: SecretStr | None = Field(
        None, alias="LETTA_API_KEY", description="The key sent as `Authorization: Bearer`. Never logged."
    )
    letta_sliding_window: Literal["evict", "keep"] = Field(
        "evict",
        alias="LETTA_SLIDING_WINDOW",
        description="What the server does with `sliding_window_percentage`: `evict` that share of the messages "
        "(what servers were seen to do) or `keep` it (what the field's documentation says).",
    )
    letta_default_conversations: bool = Field(
        default=True,
        alias="LETTA_DEFAULT_CONVERSATIONS",
        description="Whether scans look at the agents' default conversations too (one list of agents a scan).",
    )
    letta_compact_timeout: float = Field(
        600,
        gt=0,
        allow_inf_nan=False,
        alias="LETTA_COMPACT_TIMEOUT",
        description="Seconds to wait for the answer to one compaction. A summarizer may take minutes.",
    )
    letta_server_limit: float = Field(
        900,
        gt=0,
        allow_inf_nan=False,
        alias="LETTA_SERVER_LIMIT",
        description="Seconds after which a compaction that the server was asked for cannot take effect any more. "
        "A lost one is not repeated earlier: the server carries on after its client has left.",
    )
    letta_read_timeout: float = Field(
        30,
        gt=0,
        allow_inf_nan=False,
        alias="LETTA_READ_TIMEOUT",
        description="Seconds to wait for the answer to any read.",
    )

    @field_validator("letta_base_url")
    @classmethod
    def _base_url_is_http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = url_parts(value)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// address, such as http://localhost:8283")
        if parts.username or parts.password:
            raise ValueError("must not carry a user or a password; put the key in LETTA_API_KEY")
        return value.rstrip("/").removesuffix("/v1")

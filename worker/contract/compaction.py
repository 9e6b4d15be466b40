"""What is sent to `POST /v1/conversations/{id}/compact`, and what it answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from worker.contract.base import Omittable, Request
from worker.contract.providers import ModelSettings


class CompactionMode(StrEnum):
    """How a conversation is summarized; the two `self_compact` modes are beyond the reference, from the SDK."""

    ALL = "all"
    SLIDING_WINDOW = "sliding_window"
    SELF_COMPACT_ALL = "self_compact_all"
    SELF_COMPACT_SLIDING_WINDOW = "self_compact_sliding_window"

    @property
    def slides(self) -> bool:
        """True for the modes that keep the newest messages, the only ones that read `sliding_window_percentage`."""
        return self in {CompactionMode.SLIDING_WINDOW, CompactionMode.SELF_COMPACT_SLIDING_WINDOW}


LONGEST_HANDLE = 140
"""Characters of a model's handle; the ledger's columns are as wide."""


def _handle(model: str) -> str:
    provider, _, name = model.partition("/")
    too_long = len(model) > LONGEST_HANDLE
    if not provider or not name or too_long or any(character.isspace() for character in model):
        raise PydanticCustomError(
            "model_handle", f"must be a handle of the form provider/model-name, at most {LONGEST_HANDLE} characters"
        )
    return model


class CompactionSettings(Request):
    """The API's CompactionSettings, field for field; fields that are left out are not sent.

    The server overrides only the named fields of the agent's own settings. `clip_chars = None`, when set explicitly,
    is sent as null and means no clipping; left out, the server's own limit holds. `model` is a handle such as
    `openai/gpt-4o-mini`: required in the reference, optional on newer servers, optional here; a server falls back
    to another model without a word when it does not know the handle. `sliding_window_percentage` is a fraction, 0..1,
    and what it means (evict, or keep) depends on the server.
    """

    clip_chars: Annotated[int, Field(ge=1)] | None = None
    # Not strict: a policy file has strings only, and an enumeration is otherwise accepted as its member alone.
    mode: Omittable[Annotated[CompactionMode, Field(strict=False)]] = None
    model: Annotated[str, AfterValidator(_handle)] | None = None
    model_settings: ModelSettings | None = None
    prompt: str | None = None
    prompt_acknowledgement: Omittable[bool] = None
    sliding_window_percentage: Omittable[Annotated[float, Field(ge=0, le=1)]] = None


class CompactionRequest(Request):
    """A compaction's body; `agent_id` goes with the conversation `default`, an agent's own conversation."""

    compaction_settings: CompactionSettings | None = None
    agent_id: str | None = None


class CompactionResponse(BaseModel):
    """What the server answers; fields that we do not know are kept in `model_extra`.

    Both counts include the system message, `num_messages_after` also the new summary: 2 means that everything else
    was wiped. It equals the number of in-context ids afterwards (seen on 0.16.8).
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    num_messages_after: int
    num_messages_before: int
    summary: str

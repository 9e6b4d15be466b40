"""What the door is sent: the two bodies, their shapes, and what is wrong with one that has another."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from scheduler.door.ids import AGENT_ID, CONVERSATION_ID, STEP_ID, spelled
from worker.contract.problems import sentences

LONGEST_REASON = 500
"""Characters."""

PRINTABLE = (
    r"^[^\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]*$"
)
"""Text without control characters and without those that change how what stands beside them is shown."""

_REASON = re.compile(PRINTABLE)


class WrongBody(Exception):
    """The body is JSON, but not what the page takes; the message says where, and never echoes a value."""


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)


def _named(kind: str, pattern: str) -> AfterValidator:
    def check(value: str) -> str:
        if not spelled(pattern, value):
            raise ValueError(f"is not the id of {kind}")
        return value

    return AfterValidator(check)


def _printable(value: str) -> str:
    if _REASON.fullmatch(value) is None:
        raise ValueError("must be printable text")
    return value


class StepComplete(_Body):
    """What a Letta server sends after each step; a newer one may say more, which is passed over."""

    step_id: Annotated[str, _named("a step", STEP_ID)]


class CompactionAsked(_Body):
    """What anyone who signs sends: look at this conversation now. An agent's id means its default conversation."""

    model_config = ConfigDict(extra="forbid")

    conversation_id: Annotated[str, _named("a conversation", CONVERSATION_ID)] | None = None
    agent_id: Annotated[str, _named("an agent", AGENT_ID)] | None = None
    policy: str | None = Field(None, min_length=1, max_length=80)
    reason: Annotated[str, Field(max_length=LONGEST_REASON), AfterValidator(_printable)] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.conversation_id is None) == (self.agent_id is None):
            raise ValueError("name exactly one of conversation_id and agent_id")
        return self


BodyT = TypeVar("BodyT", bound=_Body)


def shaped(model: type[BodyT], document: Any) -> BodyT:
    """Take a JSON document for what a page takes. Raises WrongBody."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise WrongBody("; ".join(sentences(error, model))) from None

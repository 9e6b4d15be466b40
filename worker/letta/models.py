"""What the service reads of the server's objects: lean and lenient.

Unknown fields are ignored, times are aware and in UTC, and a field that may be missing on some server is None. Names of
fields are the API's, except `window`, which servers keep in different places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from worker.contract.problems import sentences
from worker.letta.detail import clip


def _as_utc(moment: datetime) -> datetime:
    # Seen on 0.16.8: a run's completed_at has no zone and means UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _none_as_empty(value: Any) -> Any:
    return [] if value is None else value


Moment = Annotated[datetime, AfterValidator(_as_utc)]
Ids = Annotated[list[str], BeforeValidator(_none_as_empty)]


class Record(BaseModel):
    """An object of the server's."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, protected_namespaces=())


class Row(Record):
    """An object that lists hold, and so one with an id."""

    id: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row of a list that could not be read: its id, if at least that could, and what is wrong with it."""

    id: str | None
    error: str


RowT = TypeVar("RowT", bound=Row)

Page = Sequence[RowT | Unreadable]
"""A page of a list: every row, readable or not."""


def read_rows(rows: Sequence[Any], kind: type[RowT]) -> Page[RowT]:
    """Read a page row by row, so that a row that cannot be read costs no other."""
    return [_read_row(row, kind) for row in rows]


def _read_row(row: Any, kind: type[RowT]) -> RowT | Unreadable:
    if not isinstance(row, dict):
        return Unreadable(None, "is not an object")
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        identity = row.get("id")
        return Unreadable(identity if isinstance(identity, str) else None, clip("; ".join(sentences(error, kind))))


class Conversation(Row):
    """A conversation.

    `in_context_message_ids` is filled by retrieve alone; a list leaves it empty, which says nothing.
    `last_message_at` is the time at which the last send started; None with `knows_last_message` means never.
    """

    agent_id: str
    in_context_message_ids: Ids = []
    last_message_at: Moment | None = None
    created_at: Moment | None = None
    updated_at: Moment | None = None
    summary: str | None = None
    model: str | None = None
    context_window_limit: int | None = None
    archived: bool | None = None

    @property
    def knows_last_message(self) -> bool:
        """Tell whether the server sent `last_message_at` at all; older ones do not know it."""
        return "last_message_at" in self.model_fields_set


class Agent(Row):
    """An agent; `message_ids` are the in-context ids of its default conversation, `model` is a handle.

    `window` is the model's context window in tokens; `compaction_settings` are the agent's own, as the server has them.
    """

    name: str = ""
    message_ids: Ids = []
    window: int | None = None
    model: str | None = None
    compaction_settings: dict[str, Any] | None = None
    last_run_completion: Moment | None = None
    created_at: Moment | None = None
    updated_at: Moment | None = None
    hidden: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _find_window(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        config = raw.get("llm_config")
        config = config if isinstance(config, dict) else {}
        window = raw.get("window", raw.get("context_window_limit"))
        return raw | {
            "window": config.get("context_window") if window is None else window,
            "model": raw.get("model") or config.get("handle"),
        }


class Step(Row):
    """One step of an agent; `prompt_tokens` against `context_window_limit` is the truest usage, one step old."""

    run_id: str | None = None
    agent_id: str | None = None
    prompt_tokens: int | None = None
    context_window_limit: int | None = None
    model_handle: str | None = None
    status: str | None = None

    @property
    def usage(self) -> float | None:
        """Prompt tokens / context window, None where the step does not say both."""
        if self.prompt_tokens is None or not self.context_window_limit:
            return None
        return self.prompt_tokens / self.context_window_limit


_ENDED = frozenset({"completed", "failed", "cancelled", "expired"})


class Run(Row):
    """A run of an agent; `conversation_id` is None for sends that were not streamed."""

    status: str
    agent_id: str | None = None
    conversation_id: str | None = None
    created_at: Moment | None = None
    completed_at: Moment | None = None
    background: bool | None = None
    stop_reason: str | None = None

    @property
    def active(self) -> bool:
        """Tell whether the run has not ended; a status that we do not know counts as active.

        An active run may be stale: on 0.16.8 the run of a send that was not streamed stays `created` for ever.
        """
        return self.status not in _ENDED and self.completed_at is None


class Health(Record):
    """The server's health; `date` is its own clock, from the answer's header, None where it sent none."""

    version: str
    status: str
    date: Moment | None = None

"""What an operator writes down: policies and the schedules that run them."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from worker.contract.compaction import CompactionMode, CompactionSettings
from worker.policy.cron import parse_cron, shortest_gap
from worker.policy.durations import Duration

SHORTEST_INTERVAL = timedelta(seconds=1)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError(f"{name!r} is no time zone; write one such as UTC or Europe/Berlin") from None
    return name


class Policy(_Frozen):
    """When to compact a conversation and what to aim at.

    Usages are shares of the window, 0..1. compaction goes to the server field for field; without a
    `sliding_window_percentage` one is computed for each conversation from its usage and the target.
    """

    trigger_usage: float = Field(0.70, gt=0, le=1, allow_inf_nan=False)
    """Usage from which on a conversation is compacted: the high water mark."""
    target_usage: float = Field(0.40, ge=0, lt=1, allow_inf_nan=False)
    """Usage to end at or under: the low water mark."""
    min_messages: int = Field(10, ge=3)
    """Messages in context below which a conversation is left alone: with fewer than three there is nothing to evict."""
    idle_for: Duration = timedelta(minutes=30)
    """How long the last message must be past: the endpoint takes no lock, and what arrives meanwhile is dropped."""
    cooldown: Duration = timedelta(hours=6)
    """The least time between two compactions of one conversation."""
    max_per_scan: int = Field(500, ge=1)
    """The most compactions that one scan plans."""
    safety_copy: bool = False
    """Whether a conversation is forked before it is compacted, so that a person can go back."""
    keep_safety_copies_for: Duration = timedelta(days=7)
    """How long such a fork is kept before it is removed from the server."""
    compaction: CompactionSettings = CompactionSettings()
    """The API's CompactionSettings, field for field."""

    @model_validator(mode="after")
    def _marks_are_in_order(self) -> Self:
        if self.target_usage >= self.trigger_usage:
            raise ValueError(
                f"target_usage {self.target_usage:g} must be below trigger_usage {self.trigger_usage:g}: "
                "it is where a compaction ends, the trigger where it begins"
            )
        mode, fixed = self.compaction.mode, self.compaction.sliding_window_percentage
        if fixed is not None and mode in (CompactionMode.ALL, CompactionMode.SELF_COMPACT_ALL):
            raise ValueError(
                f"compaction.sliding_window_percentage has no effect in mode {mode.value!r}: leave one out"
            )
        return self

    def body(self) -> dict[str, object]:
        """Give the policy as plain JSON values, all of its fields: what the ledger keeps of it."""
        body = self.model_dump(mode="json", exclude={"compaction"})
        return body | {"compaction": self.compaction.body()}

    @property
    def version(self) -> str:
        """A short fingerprint of the policy's content: equal for equal rules, whatever file they stand in."""
        canonical = json.dumps(self.body(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class Schedule(_Frozen):
    """One beat entry: a policy and when to run it, by `cron` or by `every`."""

    policy: str
    cron: Annotated[str, BeforeValidator(parse_cron)] | None = None
    every: Duration | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.cron is None) == (self.every is None):
            raise ValueError("needs exactly one of cron and every")
        if self.every is not None and self.every < SHORTEST_INTERVAL:
            raise ValueError(f"every must be at least {SHORTEST_INTERVAL.total_seconds():g}s")
        return self

    @property
    def interval(self) -> timedelta:
        """The shortest time between two ticks: a tick that waited longer than this is of no use any more."""
        return self.every if self.every is not None else shortest_gap(str(self.cron))


class Webhook(_Frozen):
    """What goes for events that webhooks tell of."""

    policy: str = "default"
    """The policy that they are judged by, unless a request names another."""


class PolicyBook(_Frozen):
    """A whole policy file."""

    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    policies: dict[str, Policy] = Field(min_length=1)
    schedules: dict[str, Schedule] = {}
    webhook: Webhook = Webhook()

"""Conversations to decide about, and policies to decide by."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.windows import dialogue
from worker.contract.compaction import CompactionSettings
from worker.policy.decide import (
    Decision,
    decide,
)
from worker.policy.forecast import SlidingWindow
from worker.policy.rules import Policy
from worker.policy.snapshot import ContextMessage, Sighting, Snapshot, UsageSource

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
WINDOW = 16_000
EVICT, KEEP = SlidingWindow.EVICT, SlidingWindow.KEEP

POLICY = Policy()
QUIET = Sighting(last_message_at=NOW - timedelta(hours=2), num_messages=41)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def full(messages: list[ContextMessage] | None = None, *, sighting: Sighting = QUIET, **changes: Any) -> Snapshot:
    """A conversation at 0.81 of its window, quiet for two hours."""
    messages = dialogue(20, tokens=310) if messages is None else messages
    fixed = 590
    snapshot = Snapshot(
        sighting=sighting,
        window=WINDOW,
        tokens=fixed + sum(one.tokens for one in messages),
        tokens_fixed=fixed,
        messages=tuple(messages),
        source=UsageSource.CONTEXT_OVERVIEW,
    )
    return replace(snapshot, **changes)


def rules(**changes: Any) -> Policy:
    compaction = changes.pop("compaction", {})
    return Policy(**changes, compaction=CompactionSettings(**compaction))


def seen(**changes: Any) -> Sighting:
    return replace(QUIET, **changes)


def verdict(snapshot: Snapshot, policy: Policy = POLICY, **options: Any) -> Decision:
    return decide(snapshot, policy, NOW, **{"server": EVICT, **options})

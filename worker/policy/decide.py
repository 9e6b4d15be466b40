"""The decision: compact this conversation now, with these settings, or leave it, and why.

Pure: a snapshot, a policy and a time go in; a Compact or a Skip comes out, each with a reason for machines and a
sentence for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from worker.contract.compaction import CompactionMode, CompactionSettings
from worker.policy.durations import spell
from worker.policy.forecast import Context, Forecast, SlidingWindow
from worker.policy.rules import Policy
from worker.policy.snapshot import Sighting, Snapshot

TRUST_MEASUREMENT_FOR = timedelta(days=7)
"""How long an unchanged conversation's usage is believed without asking again: its agent's memory or its model's
window may change without a message."""

SMALLEST_GAIN = 0.05
"""A compaction that would free less of the window than this is not worth a summarizer's bill and a lossy step."""

CANDIDATES = tuple(hundredths / 100 for hundredths in range(1, 90))
"""Shares to evict that are tried, the gentlest first, as the two decimals that go over the wire."""

SLIDING_MODES = frozenset({CompactionMode.SLIDING_WINDOW, CompactionMode.SELF_COMPACT_SLIDING_WINDOW})


class Reason(StrEnum):
    """Why a decision fell as it did; a stable word for programs."""

    OVER_TRIGGER = "over_trigger"
    ASKED = "asked"
    EMPTY = "empty"
    TOO_FEW_MESSAGES = "too_few_messages"
    BELOW_TRIGGER = "below_trigger"
    UNCHANGED = "unchanged"
    NOT_IDLE = "not_idle"
    ACTIVE_RUN = "active_run"
    PENDING_APPROVAL = "pending_approval"
    COOLDOWN = "cooldown"
    PUT_OFF = "put_off"
    IN_PROGRESS = "in_progress"
    WOULD_WIPE = "would_wipe"
    NO_GAIN = "no_gain"
    MAX_PER_SCAN = "max_per_scan"
    SAFETY_COPY = "safety_copy"
    BREAKER_OPEN = "breaker_open"
    UNREADABLE = "unreadable"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave the conversation alone."""

    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True)
class Compact:
    """Compact the conversation with exactly these settings. forecast: what they are expected to leave."""

    reason: Reason
    sentence: str
    settings: CompactionSettings
    forecast: Forecast


Decision = Compact | Skip


def screen(seen: Sighting, policy: Policy, now: datetime) -> Skip | None:
    """Tell whether a conversation can be left alone without asking the server anything more about it."""
    held_back = _held_back(seen, policy, now)
    if held_back is not None:
        return held_back
    if seen.activity_known and seen.last_message_at is None:
        return Skip(Reason.EMPTY, "it never had a message")
    if seen.num_messages is not None and seen.num_messages < policy.min_messages:
        return _too_few(seen.num_messages, policy)
    return _still_active(seen, policy, now) or _unchanged(seen, policy, now)


def decide(
    snapshot: Snapshot, policy: Policy, now: datetime, *, server: SlidingWindow, asked: bool = False
) -> Decision:
    """Decide about a measured conversation.

    server: what it does with `sliding_window_percentage`. asked: somebody wants this one compacted now, so that the
    trigger, the cooldown and a put-off do not count; whatever protects the conversation still does.
    """
    seen = snapshot.sighting
    blocked = _protected(snapshot, policy, now) if asked else _screened(snapshot, policy, now)
    if blocked is not None:
        return blocked
    if len(snapshot.messages) < policy.min_messages:
        return _too_few(len(snapshot.messages), policy)
    if not asked and snapshot.usage < policy.trigger_usage:
        return Skip(
            Reason.BELOW_TRIGGER, f"usage {snapshot.usage:.2f} is below the trigger of {policy.trigger_usage:.2f}"
        )
    if not seen.activity_known and seen.last_message_at is None:
        return Skip(Reason.NOT_IDLE, "nobody could say when its last message was, so it may be in use")
    return _settle(snapshot, policy, server=server, asked=asked)


def _held_back(seen: Sighting, policy: Policy, now: datetime) -> Skip | None:
    """What the ledger holds against a conversation, whatever it is like by now."""
    if seen.is_safety_copy:
        return Skip(Reason.SAFETY_COPY, "it is a safety copy that was made before a compaction")
    if seen.open_compaction is not None:
        return Skip(Reason.IN_PROGRESS, f"compaction {seen.open_compaction} of it is still open")
    if seen.not_before is not None and now < seen.not_before:
        return Skip(Reason.PUT_OFF, f"put off until {_clock(seen.not_before)} after what happened last time")
    if seen.last_compacted_at is not None and now - seen.last_compacted_at < policy.cooldown:
        ago, cooldown = spell(now - seen.last_compacted_at), spell(policy.cooldown)
        return Skip(Reason.COOLDOWN, f"compacted {ago} ago, and the cooldown is {cooldown}")
    return None


def _screened(snapshot: Snapshot, policy: Policy, now: datetime) -> Skip | None:
    seen = snapshot.sighting
    skip = screen(seen, policy, now)
    if skip is not None and skip.reason is not Reason.UNCHANGED:
        return skip
    return _protected(snapshot, policy, now)


def _protected(snapshot: Snapshot, policy: Policy, now: datetime) -> Skip | None:
    """What holds for everybody: one compaction at a time, and none of a conversation in use."""
    seen = snapshot.sighting
    if seen.open_compaction is not None:
        return Skip(Reason.IN_PROGRESS, f"compaction {seen.open_compaction} of it is still open")
    if snapshot.active_run is not None:
        return Skip(Reason.ACTIVE_RUN, f"run {snapshot.active_run} is under way")
    if snapshot.messages and snapshot.messages[-1].asks_approval:
        return Skip(Reason.PENDING_APPROVAL, "its last message waits for somebody's approval")
    return _still_active(seen, policy, now)


def _still_active(seen: Sighting, policy: Policy, now: datetime) -> Skip | None:
    if seen.last_message_at is None or now - seen.last_message_at >= policy.idle_for:
        return None
    quiet = spell(max(now - seen.last_message_at, timedelta()))
    return Skip(Reason.NOT_IDLE, f"idle for {quiet} only; the policy waits for {spell(policy.idle_for)}")


def _unchanged(seen: Sighting, policy: Policy, now: datetime) -> Skip | None:
    if seen.settled_usage is None or seen.settled_at is None or seen.settled_usage >= policy.trigger_usage:
        return None
    same_activity = seen.activity_known and seen.last_message_at == seen.settled_activity
    if not same_activity or now - seen.settled_at > TRUST_MEASUREMENT_FOR:
        return None
    return Skip(Reason.UNCHANGED, f"no message since usage {seen.settled_usage:.2f} was measured")


def _too_few(count: int, policy: Policy) -> Skip:
    return Skip(Reason.TOO_FEW_MESSAGES, f"{count} messages in context; the policy wants {policy.min_messages}")


def _settle(snapshot: Snapshot, policy: Policy, *, server: SlidingWindow, asked: bool) -> Decision:
    """Find the settings, and refuse those that would do harm or nothing."""
    settings = policy.compaction
    context = Context(
        snapshot.messages,
        window=snapshot.window,
        tokens_fixed=snapshot.tokens_fixed,
        clip_chars=settings.clip_chars,
    )
    mode = settings.mode or CompactionMode.SLIDING_WINDOW
    if mode in SLIDING_MODES:
        chosen = _percentage(context, snapshot, policy, server)
        if chosen is None:
            return Skip(Reason.WOULD_WIPE, _would_wipe(settings))
        percentage, expected = chosen
        settings = settings.model_copy(update={"mode": mode, "sliding_window_percentage": percentage})
    else:
        expected = context.wipe()
    freed = (snapshot.tokens - expected.tokens) / snapshot.window
    if freed < SMALLEST_GAIN:
        return Skip(Reason.NO_GAIN, f"compacting would free {max(freed, 0):.0%} of the window, too little to pay for")
    over = f"usage {snapshot.usage:.2f} is at or over the trigger of {policy.trigger_usage:.2f}"
    aim = f"{expected.tokens / snapshot.window:.2f} expected after, {expected.evicted} messages evicted"
    return Compact(
        Reason.ASKED if asked else Reason.OVER_TRIGGER,
        f"{'asked for by hand' if asked else over}; {aim}",
        settings,
        expected,
    )


def _percentage(
    context: Context, snapshot: Snapshot, policy: Policy, server: SlidingWindow
) -> tuple[float, Forecast] | None:
    """Choose the percentage that evicts least and still meets the target; None where each would wipe.

    Where no percentage meets the target, the one that comes nearest to it without a wipe.
    """
    fixed = policy.compaction.sliding_window_percentage
    shares = CANDIDATES if fixed is None else (server.evicted_share(fixed),)
    target = policy.target_usage * snapshot.window
    best: tuple[float, Forecast] | None = None
    for share in shares:
        expected = context.sliding_window(share)
        if expected.full_wipe:
            continue
        if best is None or expected.tokens < best[1].tokens:
            best = (server.percentage(share) if fixed is None else fixed, expected)
        if expected.tokens <= target:
            break
    return best


def _would_wipe(settings: CompactionSettings) -> str:
    if settings.sliding_window_percentage is not None:
        return f"{settings.sliding_window_percentage} would make the server evict every message of it"
    return "any percentage would make the server evict every message of it"


def _clock(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")

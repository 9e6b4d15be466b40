"""The sliding window's cut: which messages a compaction keeps. Pure; nothing here reads, waits or writes.

This is the behaviour of letta 0.16.8, with its surprises: `sliding_window_percentage` is what is *evicted*, ten per
cent are added before the first try already, and a search that fails falls back to wiping everything, without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.messages import Stored

STEP = 0.10
"""By how much each try evicts more, the first included."""

ALL = "all"
SELF_ALL = "self_compact_all"
WINDOWED = frozenset({"sliding_window", "self_compact_sliding_window"})


@dataclass(frozen=True)
class Cut:
    """What a compaction does: the messages it keeps after the system message, those it summarizes, the mode it used."""

    kept: list[Stored]
    evicted: list[Stored]
    mode_used: str


def cut(
    messages: Sequence[Stored],
    mode: str,
    percentage: float,
    window: int,
    count: Callable[[list[Stored]], int],
) -> Cut:
    """Decide a compaction of the context `messages` (system message first).

    `window` is the model's context window in tokens, `count` estimates the tokens of messages with the server's margin.
    """
    if mode in WINDOWED:
        index = _sliding_index(messages, percentage, window, count)
        if index is not None:
            return Cut(list(messages[index:]), list(messages[1:index]), mode)
        mode = ALL
    protected = _pending_approval(messages)
    return Cut(list(messages[protected:]), list(messages[1:protected]), mode)


def _sliding_index(
    messages: Sequence[Stored], percentage: float, window: int, count: Callable[[list[Stored]], int]
) -> int | None:
    """Return where the kept messages begin, or None where the server gives up and wipes everything."""
    if percentage > 1.0:
        return None
    total = len(messages)
    goal = (1 - percentage) * window
    evicting = percentage
    tokens = window
    index: int | None = None
    while tokens >= goal and evicting < 1.0:
        # Added up step by step, as the server does: 0.7 + 0.1 + 0.1 + 0.1 stays just under 1.0, and that counts.
        evicting += STEP
        index = _cut_at_or_before(messages, round(evicting * total))
        if index is not None:
            tokens = count([messages[0], *messages[index:]])
    last_allowed = total - 2 if messages[-1]["role"] == "approval" else total - 1
    if index is None or evicting >= 1.0 or index >= last_allowed:
        return None
    return index


def _cut_at_or_before(messages: Sequence[Stored], limit: int) -> int | None:
    for index in range(min(limit, len(messages) - 1), 0, -1):
        role = messages[index]["role"]
        if role == "assistant" or (role == "approval" and messages[index]["tool_calls"]):
            return index
    return None


def _pending_approval(messages: Sequence[Stored]) -> int:
    """Return the index from which even a full wipe keeps: an approval that waits, with the call that it belongs to."""
    total = len(messages)
    if messages[-1]["role"] != "approval":
        return total
    before = messages[-2] if total > 1 else None
    if before and before["role"] == "assistant" and before["step_id"] == messages[-1]["step_id"]:
        return total - 2
    return total - 1

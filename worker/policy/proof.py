"""The proof of a compaction: what the conversation held before, what it holds after, and whether that is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Flag(StrEnum):
    """What an operator should know about a compaction that the server called a success."""

    FULL_WIPE = "full_wipe"
    """Only the system message and the summary remain, although a sliding window was asked for."""
    TARGET_MISSED = "target_missed"
    """Usage afterwards is above the policy's target."""
    MESSAGES_DROPPED = "messages_dropped"
    """Messages that should have stayed in context are gone from it."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What the comparison shows.

    ids_kept, ids_lost: of those in context before, in their order; ids_dropped: lost ones that should have stayed,
    arrivals included; mode_used: `all` or `sliding_window`, as the outcome shows it.
    """

    ids_kept: tuple[str, ...]
    ids_lost: tuple[str, ...]
    ids_dropped: tuple[str, ...]
    mode_used: str
    flags: tuple[Flag, ...]


def prove(
    *,
    before: Sequence[str],
    after: Sequence[str],
    arrived: Sequence[str],
    asked_to_wipe: bool,
    usage_after: float | None,
    target_usage: float,
) -> Proof:
    """Hold the context after a compaction against the one before.

    before, after: in-context ids in order, the system message first; arrived: messages that came while the
    compaction ran; usage_after: None where it could not be measured.

    A compaction evicts from the old end: what is lost behind a message that stayed was dropped, and so were the
    system message and an arrival that is not in context. A server's own rewrite of the system message (a new id at
    the head) drops nothing.
    """
    remaining = set(after)
    kept = tuple(id_ for id_ in before if id_ in remaining)
    lost = tuple(id_ for id_ in before if id_ not in remaining)
    system = before[0] if before else None
    rewritten = bool(after) and after[0] not in before
    body_kept = [id_ for id_ in kept if id_ != system]
    oldest_kept = before.index(body_kept[0]) if body_kept else len(before)
    dropped = [id_ for index, id_ in enumerate(before) if id_ not in remaining and index > oldest_kept]
    if system in lost and not rewritten:
        dropped.insert(0, str(system))
    dropped += [id_ for id_ in arrived if id_ not in remaining and id_ not in dropped]
    wiped = bool(after) and not body_kept
    flags = []
    if wiped and not asked_to_wipe:
        flags.append(Flag.FULL_WIPE)
    if usage_after is not None and usage_after > target_usage:
        flags.append(Flag.TARGET_MISSED)
    if dropped:
        flags.append(Flag.MESSAGES_DROPPED)
    return Proof(kept, lost, tuple(dropped), "all" if wiped else "sliding_window", tuple(flags))

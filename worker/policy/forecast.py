"""What a compaction would leave behind, worked out before anybody pays for it.

The server's sliding window was observed, not documented (letta 0.16.8): it tries to evict its percentage plus ten
points of the messages, in steps of ten points more, until what stays fits a goal; it cuts only where a window may
start; and when it runs out of steps it evicts everything, without a word. This module plays that out on the real
messages of a context, so that a percentage is chosen for what it will do and one that would wipe is never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from worker.policy.snapshot import ContextMessage

STEP = 0.10
"""The share of the messages that the server evicts more at each try, and already at the first."""

COUNTING_MARGINS = (1.0, 1.3)
"""How much a server may overestimate what stays: 1.3 where it only estimates tokens, 1.0 where it counts them.
A forecast has to hold for both: which counter a model has is the server's affair."""

SUMMARY_TOKENS = 1_000
"""Room left for the summary that comes in; 0.16.8 asks its summarizer for 300 to 500 words."""

SUMMARY_SHARE = 0.10
"""The most of a small window that is set aside for the summary."""

CHARS_PER_TOKEN = 4


class SlidingWindow(StrEnum):
    """What a server does with `sliding_window_percentage`."""

    EVICT = "evict"
    KEEP = "keep"

    def evicted_share(self, percentage: float) -> float:
        """Translate the API's field into the share of the messages to evict."""
        return percentage if self is SlidingWindow.EVICT else round(1 - percentage, 6)

    def percentage(self, evicted_share: float) -> float:
        """Translate a share to evict into the API's field, exactly as sent."""
        return evicted_share if self is SlidingWindow.EVICT else round(1 - evicted_share, 6)

    def always_wipes(self, percentage: float) -> bool:
        """Whether this percentage makes such a server evict everything, whatever the conversation holds."""
        return self.evicted_share(percentage) + STEP >= 1.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would stay. kept: messages in context afterwards, the summary included; tokens: the context's, likewise."""

    kept: int
    evicted: int
    tokens: int
    full_wipe: bool


def summary_allowance(window: int, clip_chars: int | None) -> int:
    """Tokens to set aside for the summary. clip_chars: the most characters that it may have, None for no limit."""
    bounds = [SUMMARY_TOKENS, int(window * SUMMARY_SHARE)]
    if clip_chars is not None:
        bounds.append(clip_chars // CHARS_PER_TOKEN)
    return min(bounds)


class Context:
    """A context as the server's sliding window will see it; built once, then asked about many percentages.

    messages: those in context, the system message first; window and tokens_fixed in tokens; clip_chars: the limit
    on the summary's characters, None for none.
    """

    def __init__(
        self, messages: Sequence[ContextMessage], *, window: int, tokens_fixed: int, clip_chars: int | None
    ) -> None:
        self._messages = messages
        self._window = window
        self._fixed = tokens_fixed
        self._summary = summary_allowance(window, clip_chars)
        self._from_here = _suffix_tokens(messages)
        self._start_at_or_before = _last_starts(messages)

    def wipe(self) -> Forecast:
        """Tell what mode `all` leaves: the system message, the summary, and an approval that is waited for."""
        stay = self._messages[-1:] if self._messages and self._messages[-1].role == "approval" else ()
        tokens = self._fixed + self._summary + sum(message.tokens for message in stay)
        evicted = max(len(self._messages) - 1 - len(stay), 0)
        return Forecast(kept=2 + len(stay), evicted=evicted, tokens=tokens, full_wipe=True)

    def sliding_window(self, evicted_share: float) -> Forecast:
        """Play out one sliding-window compaction.

        The tokens are those under the counting margin that evicts least, the wipe that under the one that evicts
        most: what is promised holds for either.
        """
        cuts = [self._cut(evicted_share, margin) for margin in COUNTING_MARGINS]
        found = [cut for cut in cuts if cut is not None]
        if len(found) < len(cuts):
            return self.wipe()
        cut = min(found)
        tokens = self._fixed + self._summary + self._from_here[cut]
        return Forecast(kept=len(self._messages) - cut + 2, evicted=cut - 1, tokens=tokens, full_wipe=False)

    def _cut(self, evicted_share: float, margin: float) -> int | None:
        """Find the index of the first message that stays; None where the server falls back to evicting everything.

        The sums are made in the server's own order, floats and all: at a boundary another rounding is a full wipe.
        """
        total = len(self._messages)
        if total == 0:
            return None
        last_allowed = total - (2 if self._messages[-1].role == "approval" else 1)
        goal = (1 - evicted_share) * self._window
        share, cut, left = evicted_share, None, float(self._window)
        while left >= goal and share < 1.0:
            share += STEP
            cut = self._start_at_or_before[min(round(share * total), total - 1)]
            if cut is not None:
                left = int((self._fixed + self._from_here[cut]) * margin)
        if cut is None or share >= 1.0 or cut >= last_allowed:
            return None
        return cut


def _suffix_tokens(messages: Sequence[ContextMessage]) -> list[int]:
    """Tokens of the messages from each index on, so that each try of the window costs one look-up."""
    sums = [0] * (len(messages) + 1)
    for index in range(len(messages) - 1, -1, -1):
        sums[index] = sums[index + 1] + messages[index].tokens
    return sums


def _last_starts(messages: Sequence[ContextMessage]) -> list[int | None]:
    """For each index, the nearest one at or before it where a window may start; the system message never does."""
    starts: list[int | None] = []
    latest: int | None = None
    for index, message in enumerate(messages):
        if index > 0 and message.can_start_window:
            latest = index
        starts.append(latest)
    return starts

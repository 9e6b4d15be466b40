"""Rows for a ledger that has worked for a year: the shape of real ones, from a seed, the same on every run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

END = datetime(2026, 11, 23, 3, 30, tzinfo=UTC)
"""The year ends here, in the middle of a night's pass."""

DAYS = 365
MODELS = ("", "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5")
BODY = json.dumps(
    {"trigger_usage": 0.7, "target_usage": 0.4, "min_messages": 10, "idle_for": "30m"}
    | {f"compaction_{number}": "as the policy file has it, key by key" for number in range(8)}
)
SETTINGS = json.dumps({"mode": "sliding_window", "sliding_window_percentage": 0.4})
SAID = "the user asked for the invoices of the last quarter, which were found, compared and sent on to the accountant; "
REFUSALS = ("not_idle", "below_trigger", "nothing_to_compact", "cooldown")
FAILURES = ("http_500", "retries_spent", "undecided")
SKIPPED = ("empty", "too_few_messages", "not_idle", "below_trigger", "unchanged", "cooldown")

Row = tuple[Any, ...]

SCAN_COLUMNS = (
    "id", "trigger", "schedule", "policy", "policy_version", "policy_body", "state", "listing_done", "pages",
    "listed", "planned", "reasons", "started_at", "finished_at",
)  # fmt: skip

CONVERSATION_COLUMNS = (
    "agent_id", "conversation_id", "first_seen_at", "last_seen_at", "last_message_at", "window", "tokens", "usage",
    "usage_source", "num_messages", "measured_at", "measured_activity", "decision", "reason", "sentence", "decided_at",
    "last_compaction_id", "last_compacted_at", "failures_in_row", "not_before",
)  # fmt: skip

COMPACTION_COLUMNS = (
    "id", "agent_id", "conversation_id", "state", "trigger", "scan_id", "policy", "policy_version", "policy_body",
    "asked", "reason", "sentence", "settings", "window", "usage_source", "usage_before", "usage_expected",
    "usage_after", "tokens_before", "tokens_after", "num_messages_before", "num_messages_after", "summary",
    "mode_used", "flags", "ids_before", "ids_after", "ids_kept", "ids_lost", "ids_dropped", "newest_before", "outcome",
    "error", "response", "recovered", "attempts", "planned_at", "enqueued_at", "started_at", "posted_at",
    "finished_at", "lease_owner", "lease_until", "heartbeats", "model",
)  # fmt: skip


class Year:
    """So many conversations and compactions; the last of these are still open, each of another conversation."""

    def __init__(self, conversations: int, compactions: int) -> None:
        self.conversations = conversations
        self.compactions = compactions
        self.open = min(2_000, compactions // 10, conversations // 10)
        self._nights = [(_id("scan", day), END - timedelta(days=DAYS - 1 - day, minutes=30)) for day in range(DAYS)]

    def key(self, number: int) -> tuple[str, str]:
        """The ids of a conversation and its agent; one agent has a tenth of them all."""
        agent = 0 if number % 10 == 0 else number // 10 + 1
        return _id("agent", agent), _id("conv", number)

    def compaction_id(self, number: int) -> str:
        """The id of a compaction, which tells nothing of its number."""
        return _id("cmp", number)

    def scans(self) -> Iterator[Row]:
        """A year of nights, and of a second schedule that looks every quarter of an hour."""
        for id_, at in self._nights:
            yield self._scan(id_, "nightly", "default", at, timedelta(minutes=20), self.conversations)
        for quarter in range(DAYS * 96):
            at = END - timedelta(minutes=15 * quarter)
            yield self._scan(_id("pressure", quarter), "pressure", "pressure", at, timedelta(minutes=4), 20)

    def _scan(self, id_: str, schedule: str, policy: str, at: datetime, took: timedelta, listed: int) -> Row:
        reasons = json.dumps({"below_trigger": listed // 2, "unchanged": listed // 3, "over_trigger": listed // 100})
        return (
            id_, "schedule", schedule, policy, "0123456789ab", BODY, "finished", True, listed // 100 + 1,
            listed, listed // 100, reasons, at, at + took,
        )  # fmt: skip

    def conversation_rows(self) -> Iterator[Row]:
        """Every conversation as the last scan saw it: a third never measured, few put off, fewer stuck."""
        random = Random(2)
        for number in range(self.conversations):
            agent_id, conversation_id = self.key(number)
            measured = random.random() < 0.66
            tokens = random.randrange(1_000, 15_900) if measured else None
            reason = random.choice(SKIPPED[2:] if measured else SKIPPED[:3])
            failures = 3 + number % 5 if number % 400 == 7 else int(number % 90 == 1)
            seen = END - timedelta(seconds=random.randrange(86_400))
            yield (
                agent_id, conversation_id, END - timedelta(days=DAYS), seen, seen - timedelta(hours=2),
                16_000 if measured else None, tokens, None if tokens is None else tokens / 16_000,
                "context_overview" if measured else None, 41 if measured else None, seen if measured else None,
                seen - timedelta(hours=2), "skip", reason, f"left alone: {reason}, as the policy has it", seen,
                self.compaction_id(number * self.compactions // self.conversations), seen - timedelta(days=3),
                failures, END + timedelta(days=3650) if failures else None,
            )  # fmt: skip

    def compaction_rows(self) -> Iterator[Row]:
        """Every compaction, the oldest first."""
        random = Random(1)
        ids = [f"message-{UUID(int=random.getrandbits(128))}" for _ in range(5_000)]
        closed = self.compactions - self.open
        for number in range(self.compactions):
            still_open = number >= closed
            conversation = (number - closed) * 10 + 3 if still_open else random.randrange(self.conversations)
            yield self._compaction(random, number, self.key(conversation), ids, still_open=still_open)

    def _compaction(
        self, random: Random, number: int, key: tuple[str, str], ids: Sequence[str], *, still_open: bool
    ) -> Row:
        scan_id, began = self._nights[min(number * DAYS // self.compactions, DAYS - 1)]
        planned_at = began + timedelta(seconds=random.random() * 1_200)
        draw = random.random()
        trigger = "schedule" if draw < 0.85 or still_open else "webhook" if draw < 0.95 else "cli"
        by_night = trigger == "schedule"
        before, count, share = random.randrange(11_300, 16_400), random.randrange(14, 30), random.uniform(0.3, 0.6)
        after = int(before * (1 - share))
        state, outcome = _end(random, number, still_open=still_open)
        succeeded, posted = state == "succeeded", state in {"succeeded", "failed"}
        start = random.randrange(4_900)
        seen, kept = ids[start : start + count], int(count * (1 - share))
        flags = [flag for flag, odds in FLAGS if random.random() < odds] if succeeded else []
        dropped = seen[-2:] if "messages_dropped" in flags else []
        ended = planned_at + timedelta(seconds=random.uniform(2, 90))
        summary = f"{number}: {SAID * random.randrange(2, 6)}"
        return (
            self.compaction_id(number), *key, state, trigger, scan_id if by_night else None,
            "default" if by_night else "pressure", "0123456789ab", BODY, trigger == "cli", "over_trigger",
            f"usage {before / 16_000:.2f} is at or over the trigger of 0.70; 0.40 expected after", SETTINGS, 16_000,
            "context_overview", before / 16_000, 0.4, after / 16_000 if succeeded else None, before,
            after if succeeded else None, count, kept + 2 if succeeded else None, summary if succeeded else None,
            "sliding_window" if succeeded else None, json.dumps(flags), json.dumps(seen) if posted else None,
            json.dumps(seen[-kept:]) if succeeded else None, json.dumps(seen[-kept:]) if succeeded else None,
            json.dumps(seen[:-kept]) if succeeded else None, json.dumps(dropped) if succeeded else None, planned_at,
            outcome, None if succeeded or still_open else f"the server said no: {outcome}",
            json.dumps({"summary": summary, "num_messages_before": count}) if succeeded else None, False,
            int(state != "planned"), planned_at, planned_at, None if state == "planned" else planned_at,
            planned_at if posted else None, None if still_open else ended,
            "worker-1" if state == "running" else None, END if state == "running" else None, 0,
            random.choice(MODELS),
        )  # fmt: skip


FLAGS = (("target_missed", 0.15), ("full_wipe", 0.005), ("messages_dropped", 0.000_5))
"""What goes wrong, and how often."""


def _end(random: Random, number: int, *, still_open: bool) -> tuple[str, str | None]:
    if still_open:
        return ("running" if number % 60 == 0 else "planned"), None
    draw = random.random()
    if draw < 0.8:
        return "succeeded", "compacted" if draw > 0.01 else "recovered"
    return ("refused", random.choice(REFUSALS)) if draw < 0.97 else ("failed", random.choice(FAILURES))


def _id(kind: str, number: int) -> str:
    return f"{kind}-{UUID(int=Random(f'{kind} {number}').getrandbits(128))}"

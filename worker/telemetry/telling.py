"""The service's work in one line each, as operators read it on Flower's pages and in the worker's log.

Ids, figures and reasons; never a word of a summary or of a message. What a line is for stands at its beginning: a table
of Flower's shows some fifty characters of it, and the rest on the task's own page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from worker.audit.records import Compaction, HandedOut, Scan, ScanState, State
from worker.discretion import discreet
from worker.letta.detail import clip

ANSWERED = "; it answered: "
"""What follows it in a row's `error` are the server's own words, a summary among them perhaps: for the ledger alone."""

CALL = re.compile(r"[A-Z]+ /\S+: ")
"""How an error of the Letta client begins: the call, which everybody who reads these lines knows."""

DEFAULT = "default"

NOT_MINE = {"not_due": "nothing done", "taken_over": "left alone"}
"""Words of a run that did not bring its row any further, as an operator reads them."""


class Told:
    """A line that is its own repr: Celery shows the repr of what a task returns, and quotes are noise."""

    def __init__(self, line: str) -> None:
        self.line = line

    def __repr__(self) -> str:
        return self.line


class TaskFailed(Exception):
    """What a task did has failed, and the ledger says so already; its text is the line that an operator reads."""

    def __repr__(self) -> str:
        return str(self)


def conversation_name(agent_id: str, conversation_id: str) -> str:
    """Name a conversation in words; an agent's own is named by its agent."""
    return f"default of {agent_id}" if conversation_id == DEFAULT else conversation_id


def counts_line(counts: Mapping[str, int]) -> str:
    """Put counts into words, the largest first: `17 below_trigger, 8 over_trigger`."""
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items(), key=lambda item: -item[1]))


def order_line(row: HandedOut) -> str:
    """Tell what a planned compaction is to do: `nightly, usage 0.83: conv-1 of agent-2 (0.40 expected)`."""
    whose = "" if row.conversation_id == DEFAULT else f" of {row.agent_id}"
    who = row.schedule or row.trigger
    name = conversation_name(row.agent_id, row.conversation_id)
    return f"{who}, usage {_usage(row.usage_before)}: {name}{whose} ({_usage(row.usage_expected)} expected)"


def outcome_line(row: Compaction, word: str) -> str:
    """Tell what one run did with its compaction: how the row ended, or why it is still open.

    word: the run's own (`worker.compaction.run`). Raises TaskFailed with the line where the compaction failed.
    """
    if word in NOT_MINE:
        return f"{NOT_MINE[word]}: {row.id} is {row.state}"
    why = clip(discreet(row.error or ""))
    if row.state == State.FAILED:
        raise TaskFailed(f"failed: {row.outcome}: {CALL.sub('', why, count=1)}")
    if row.state == State.REFUSED:
        return f"refused: {row.outcome}: {why}"
    if row.state == State.SUCCEEDED:
        return _compacted(row)
    if row.state == State.PLANNED:
        due = "" if row.not_before is None else f", again from {row.not_before:%H:%M:%S} UTC on"
        return f"put back after attempt {row.attempts}{due}: {why}"
    return f"left to the sweep: {why}"


def scan_line(scan: Scan) -> str:
    """Tell how far a scan is. Raises TaskFailed with the line where it failed."""
    if scan.state == ScanState.FAILED:
        raise TaskFailed(f"failed: {clip(discreet(scan.sentence or ''))}")
    if scan.state == ScanState.SKIPPED:
        return f"skipped: {scan.sentence}"
    return f"{scan.listed} conversations listed, {scan.pages} pages to measure ({scan.id})"


def _compacted(row: Compaction) -> str:
    name = conversation_name(row.agent_id, row.conversation_id)
    flags = f"{', '.join(row.flags)}: " if row.flags else ""
    usages = f"usage {_usage(row.usage_before)} → {_usage(row.usage_after)}"
    messages = f"{row.num_messages_before} → {row.num_messages_after} messages"
    return f"{row.outcome}: {flags}{usages}, {messages} ({name})"


def _usage(usage: float | None) -> str:
    return "?" if usage is None else f"{usage:.2f}"

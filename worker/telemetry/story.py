"""A compaction's whole story in one line of the log, told once, when its row is closed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from worker.audit.records import Compaction, State
from worker.discretion import discreet
from worker.logs.lines import FIELDS
from worker.telemetry.telling import conversation_name

logger = logging.getLogger(__name__)


def tell(row: Compaction) -> None:
    """Log a closed row: a sentence for people, its figures as fields for programs; an error where it failed."""
    level = logging.ERROR if row.state == State.FAILED else logging.INFO
    logger.log(level, "%s", sentence(row), extra={FIELDS: figures(row)})


def figures(row: Compaction) -> dict[str, Any]:
    """Give a closed row's figures: times in seconds, tokens as measured; no id of a message, no word of one."""
    return {
        "compaction_id": row.id,
        "conversation_id": row.conversation_id,
        "agent_id": row.agent_id,
        "scan_id": row.scan_id,
        "trigger": row.trigger,
        "policy": row.policy,
        "reason": row.reason,
        "state": str(row.state),
        "outcome": row.outcome,
        "usage_before": row.usage_before,
        "usage_after": row.usage_after,
        "tokens_before": row.tokens_before,
        "tokens_after": row.tokens_after,
        "num_messages_before": row.num_messages_before,
        "num_messages_after": row.num_messages_after,
        "sliding_window_percentage": row.settings.get("sliding_window_percentage"),
        "mode_used": row.mode_used,
        "model": row.model or None,
        "attempts": row.attempts,
        "recovered": row.recovered,
        "flags": list(row.flags),
        "dropped": len(row.ids_dropped or ()),
        "waited": _seconds(row.planned_at, row.posted_at),
        "took": _seconds(row.posted_at, row.finished_at),
        "error": None if row.error is None else discreet(row.error),
    }


def sentence(row: Compaction) -> str:
    """Tell a closed row to somebody who reads."""
    what = f"{row.state}: {conversation_name(row.agent_id, row.conversation_id)}"
    asked = f"asked for by {row.trigger}, policy {row.policy}, {row.reason}"
    return f"{row.id} {what} ({asked}): {'; '.join(_parts(row))}"


def _parts(row: Compaction) -> Iterator[str]:
    yield str(row.outcome) if not row.error else f"{row.outcome}: {discreet(row.error)}"
    if row.state == State.SUCCEEDED:
        yield (
            f"usage {_figure(row.usage_before, '.2f')} → {_figure(row.usage_after, '.2f')}, "
            f"{_figure(row.tokens_before)} → {_figure(row.tokens_after)} tokens, "
            f"{_figure(row.num_messages_before)} → {_figure(row.num_messages_after)} messages"
        )
        share = row.settings.get("sliding_window_percentage")
        yield f"mode {row.mode_used or 'not known'}{'' if share is None else f' at {share}'}"
    elif row.usage_before is not None:
        yield f"usage {row.usage_before:.2f}"
    yield f"model {row.model}" if row.model else "the agent's own summarizer"
    waited, took = _seconds(row.planned_at, row.posted_at), _seconds(row.posted_at, row.finished_at)
    times = "never sent" if waited is None or took is None else f"waited {waited:g} s, took {took:g} s"
    yield f"{row.attempts} attempt{'' if row.attempts == 1 else 's'}, {times}"
    if row.flags:
        dropped = f" ({len(row.ids_dropped)} messages)" if row.ids_dropped else ""
        yield f"look at this: {', '.join(row.flags)}{dropped}"


def _figure(value: float | None, form: str = "d") -> str:
    return "?" if value is None else format(value, form)


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return None if since is None or until is None else round((until - since).total_seconds(), 3)

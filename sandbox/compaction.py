"""Compacting a conversation, with what the real server does and with what it leaves undone: it takes no lock."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from sandbox import tokens
from sandbox.activity import Activity
from sandbox.bodies import CompactionRequest, CompactionSettings
from sandbox.context import Target, find, in_context, in_context_ids
from sandbox.errors import BadRequest
from sandbox.ids import new_id, now
from sandbox.messages import Stored, message
from sandbox.options import Delay
from sandbox.store import Store
from sandbox.summary import pack, summarize
from sandbox.window import ALL, Cut, cut

EMPTY = "No in-context messages found for this conversation."

NOT_REDUCED = (
    "Summarization failed to reduce the number of messages. You may not have enough messages to compact or need to"
    " use a different CompactionSettings (e.g. using `all` mode)."
)


TRIES = 3
"""How often the server asks a summarizer that fails, before it falls back."""


class Compactor:
    """Compacts conversations, and logs each time that it was asked to."""

    def __init__(self, store: Store, activity: Activity, latency: Delay, seed: int) -> None:
        self._store = store
        self._activity = activity
        self._rng = random.Random(seed)
        self.latency = latency

    async def compact(self, path_id: str, request: CompactionRequest, *, hiccup: bool = False) -> dict[str, Any]:
        """Compact one conversation and return the API's answer; raises `NotFound` or `BadRequest`.

        With a `hiccup` the summarizer fails as often as the server tries it, and works in the fallback to mode `all`.

        The context is read before the summarizer is asked and written after it answered, and what was sent meanwhile
        falls out of it.
        """
        target = find(self._store, path_id, request.agent_id)
        before = in_context(self._store, target)
        settings = effective_settings(target, request)
        entry: dict[str, Any] = {
            "at": now(),
            "before_ids": [one["id"] for one in before],
            "after_ids": None,
            "evicted_ids": [],
            "dropped_ids": [],
            "settings": settings.model_dump(),
            "mode_used": None,
            "summarizer_calls": 0,
            "committed": False,
            "refused": None,
        }
        number = self._activity.open_compaction(target.key, entry)
        try:
            summary = await self._summarize_and_commit(target, before, settings, entry, hiccup=hiccup)
        except BadRequest as refusal:
            entry["refused"] = str(refusal)
            raise
        finally:
            self._activity.close_compaction(number, entry)
        return {
            "summary": summary,
            "num_messages_before": len(before),
            "num_messages_after": len(entry["after_ids"]),
        }

    async def _summarize_and_commit(
        self,
        target: Target,
        before: list[Stored],
        settings: CompactionSettings,
        entry: dict[str, Any],
        *,
        hiccup: bool,
    ) -> str:
        if not before:
            raise BadRequest(EMPTY)
        window = target.agent["window"]
        mode = ALL if hiccup else settings.mode
        decided = cut(before, mode, settings.sliding_window_percentage, window, tokens.against_goal)
        # From here on the summarizer is paid for, whether anything comes of it or not.
        entry |= {"mode_used": decided.mode_used, "summarizer_calls": 1 + TRIES * hiccup}
        if pause := self.latency.pick(self._rng):
            await asyncio.sleep(pause)
        summary = summarize(decided.evicted, settings.clip_chars)
        if len(decided.kept) + 2 >= len(before):
            raise BadRequest(NOT_REDUCED)
        self._commit(target, before[0]["id"], decided, summary, entry)
        return summary

    def _commit(self, target: Target, system_id: str, decided: Cut, summary: str, entry: dict[str, Any]) -> None:
        when = now()
        note = message(
            new_id("message"),
            "summary",
            pack(summary, decided.mode_used, when),
            agent_id=target.agent["id"],
            conversation_id=target.conversation_id,
            created_at=when,
        )
        after = [system_id, note["id"], *(one["id"] for one in decided.kept)]
        with self._store.transaction():
            present = in_context_ids(self._store, target)
            self._store.add_messages([note])
            if target.conversation_id is not None:
                self._store.attach(target.conversation_id, [note["id"]])
            self._store.set_context(target.agent["id"], target.conversation_id, after)
        known = set(entry["before_ids"]) | set(after)
        entry |= {
            "after_ids": after,
            "evicted_ids": [one["id"] for one in decided.evicted],
            "dropped_ids": [message_id for message_id in present if message_id not in known],
            "committed": True,
        }


def effective_settings(target: Target, request: CompactionRequest) -> CompactionSettings:
    """Merge the settings of a request over the agent's own: only the fields that the request names."""
    own: dict[str, Any] = target.agent["compaction_settings"]
    asked = request.compaction_settings
    given = {name: getattr(asked, name) for name in asked.model_fields_set} if asked else {}
    return CompactionSettings.model_validate({**own, **given})

"""Sending a message: the user's message, an agent's reply, the step and the run of it, and the webhook."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

from sandbox import tokens
from sandbox.activity import Activity
from sandbox.bodies import SendRequest
from sandbox.context import Target, in_context
from sandbox.errors import BadRequest
from sandbox.ids import ORGANIZATION_ID, new_id, now
from sandbox.messages import Stored, for_list, message
from sandbox.options import Delay
from sandbox.store import Store
from sandbox.vocabulary import reply
from sandbox.webhook import Webhook

NO_APPROVAL = (
    "Cannot process approval response: No tool call is currently awaiting approval. Please send a regular message to"
    " interact with the agent."
)


@dataclass(frozen=True)
class Sent:
    """What a send led to: the reply's items as the message list shows them, and the statistics of usage."""

    items: list[dict[str, Any]]
    usage: dict[str, Any]


class Sender:
    """Lets agents answer."""

    def __init__(
        self, store: Store, activity: Activity, webhook: Webhook, *, latency: Delay, reply_chars: int, seed: int
    ) -> None:
        self._store = store
        self._activity = activity
        self._webhook = webhook
        self._rng = random.Random(seed)
        self._reply_chars = reply_chars
        self.latency = latency

    def begin(self, target: Target, *, streaming: bool) -> str:
        """Note that a message was sent, and start the run of it; returns the run's id.

        A run knows its conversation only when the reply is streamed; otherwise it stays `created` for ever.
        """
        run_id = new_id("run")
        if target.conversation_id is not None:
            self._store.update_conversation(target.conversation_id, {"last_message_at": now()})
        kind = "send_message" if target.conversation_id is None else "send_conversation_message"
        known = target.conversation_id if streaming else None
        self._activity.start_run(run_id, target.agent["id"], known, "running" if streaming else "created", kind)
        return run_id

    async def answer(self, target: Target, request: SendRequest, run_id: str) -> Sent:
        """Let the agent answer, and store both sides.

        The context is read before the agent thinks and written after it: a compaction that happens meanwhile is undone
        by it, as on the real server.
        """
        context = in_context(self._store, target)
        asked = [self._received(target, sent, run_id) for sent in request.messages or []]
        if pause := self.latency.pick(self._rng):
            await asyncio.sleep(pause)
        seed = f"{target.key}/{len(context) + len(asked)}"
        own = {"agent_id": target.agent["id"], "conversation_id": target.conversation_id, "run_id": run_id}
        answer = message(new_id("message"), "assistant", reply(seed, self._reply_chars), **own)
        step = self._step(target, [*context, *asked], answer, run_id)
        new = [{**one, "step_id": step["id"]} for one in (*asked, answer)]
        with self._store.transaction():
            self._store.add_messages(new)
            ids = [one["id"] for one in new]
            if target.conversation_id is not None:
                self._store.attach(target.conversation_id, ids)
            kept = [one["id"] for one in context]
            self._store.set_context(target.agent["id"], target.conversation_id, [*kept, *ids])
            self._activity.add_step(step)
        self._webhook.notify(step["id"])
        return Sent(for_list([new[-1]]), _usage(step))

    def end(self, target: Target, run_id: str, started: float, *, completed: bool) -> None:
        """Note that a streamed run is over; `started` is when it began, on the monotonic clock."""
        status, reason = ("completed", "end_turn") if completed else ("failed", "error")
        self._store.note_stop(target.agent["id"], reason)
        self._activity.end_run(run_id, status, reason, time.monotonic() - started)

    def _received(self, target: Target, sent: Any, run_id: str) -> Stored:
        if sent.type != "message":
            raise BadRequest(NO_APPROVAL)
        if not sent.content:
            raise BadRequest("Message content is empty or invalid")
        return message(
            new_id("message"),
            sent.role,
            sent.content,
            agent_id=target.agent["id"],
            conversation_id=target.conversation_id,
            run_id=run_id,
            name=sent.name,
            otid=sent.otid or new_id("otid").removeprefix("otid-"),
            sender_id=sent.sender_id,
        )

    def _step(self, target: Target, prompt: list[Stored], answer: Stored, run_id: str) -> dict[str, Any]:
        agent = target.agent
        prompt_tokens = tokens.of_messages(prompt)
        completion_tokens = tokens.of_messages([answer])
        provider, _, model = agent["model"].rpartition("/")
        return {
            "id": new_id("step"),
            "origin": None,
            "organization_id": ORGANIZATION_ID,
            "provider_id": None,
            "run_id": run_id,
            "agent_id": agent["id"],
            "provider_name": provider,
            "provider_category": "base",
            "model": model,
            "model_handle": agent["model"],
            "model_endpoint": None,
            "context_window_limit": agent["window"],
            "completion_tokens": completion_tokens,
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "cached_input_tokens": None,
            "cache_write_tokens": None,
            "reasoning_tokens": None,
            "completion_tokens_details": {"reasoning_tokens": 0},
            "prompt_tokens_details": {"cached_tokens": 0, "cache_read_tokens": 0, "cache_creation_tokens": 0},
            "stop_reason": "end_turn",
            "tags": [],
            "tid": None,
            "trace_id": None,
            "request_id": None,
            "messages": [],
            "feedback": None,
            "project_id": None,
            "error_type": None,
            "error_data": None,
            "status": "success",
        }


def _usage(step: dict[str, Any]) -> dict[str, Any]:
    return {
        "message_type": "usage_statistics",
        "completion_tokens": step["completion_tokens"],
        "prompt_tokens": step["prompt_tokens"],
        "total_tokens": step["total_tokens"],
        "step_count": 1,
        "run_ids": None,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "context_tokens": step["total_tokens"],
    }

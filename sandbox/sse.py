"""The stream of a send: server-sent events, pings in between, and `[DONE]` at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from sandbox.bodies import SendRequest
from sandbox.context import Target
from sandbox.errors import ApiError
from sandbox.ids import new_id, now
from sandbox.sending import Sender

DONE = "data: [DONE]\n\n"
END_TURN = {"message_type": "stop_reason", "stop_reason": "end_turn"}


def event(body: dict[str, Any]) -> str:
    """Write one event."""
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


async def stream_reply(
    sender: Sender, target: Target, request: SendRequest, ping_interval: float
) -> AsyncIterator[str]:
    """Yield the events of one send: a ping with the run's id, pings while the agent thinks, its reply, how it ended."""
    run_id = sender.begin(target, streaming=True)
    started = time.monotonic()
    completed = False
    if request.include_pings:
        yield event(_ping(run_id))
    thinking = asyncio.ensure_future(sender.answer(target, request, run_id))
    try:
        while not thinking.done():
            await asyncio.wait({thinking}, timeout=ping_interval)
            if not thinking.done() and request.include_pings:
                yield event(_ping(run_id))
        try:
            sent = thinking.result()
        except ApiError as error:
            yield event({"message_type": "stop_reason", "stop_reason": "error"})
            yield "event: error\n" + event(_error(run_id, str(error)))
            yield DONE
            return
        for item in sent.items:
            yield event(item)
        yield event(END_TURN)
        yield event(sent.usage)
        completed = True
        yield DONE
    finally:
        # A client that leaves a stream takes the agent's turn with it; nothing of it is stored.
        thinking.cancel()
        with contextlib.suppress(asyncio.CancelledError, ApiError):
            await thinking
        sender.end(target, run_id, started, completed=completed)


def _ping(run_id: str) -> dict[str, Any]:
    return {
        "id": new_id("ping"),
        "date": now()[:19] + "+00:00",
        "name": None,
        "message_type": "ping",
        "otid": None,
        "sender_id": None,
        "step_id": None,
        "is_err": None,
        "seq_id": None,
        "run_id": run_id,
    }


def _error(run_id: str, detail: str) -> dict[str, Any]:
    return {
        "message_type": "error_message",
        "run_id": run_id,
        "error_type": "internal_error",
        "message": "An unknown error occurred with the LLM streaming request.",
        "detail": detail,
        "seq_id": None,
    }

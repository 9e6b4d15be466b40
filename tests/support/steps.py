"""Steps and runs on a bench's server, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx

from tests.support.bench import CONVERSATION, Bench
from tests.support.rows import AGENT, NOW
from worker.audit.events import Arrival, Event, Source

WINDOW = 10_000


@dataclass
class Steps:
    """The server's steps and runs by their ids; asked: what was asked for, in order."""

    at: Bench
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at.letta.answers["step"] = self._answer(self.steps)
        self.at.letta.answers["run"] = self._answer(self.runs)

    def _answer(self, rows: dict[str, dict[str, Any]]) -> Callable[[httpx.Request], httpx.Response]:
        def answer(request: httpx.Request) -> httpx.Response:
            id_ = request.url.path.rsplit("/", 1)[-1]
            self.asked.append(id_)
            if id_ not in rows:
                return httpx.Response(404, json={"detail": f"there is no {id_}"})
            return httpx.Response(200, json=rows[id_])

        return answer

    def step(self, id_: str, *, run: str | None = "run-1", tokens: int | None = 8_000, **fields: Any) -> str:
        """Have a step; tokens: of its prompt, in a window of 10,000."""
        self.steps[id_] = {
            "id": id_,
            "run_id": run,
            "agent_id": AGENT,
            "prompt_tokens": tokens,
            "context_window_limit": WINDOW,
            **fields,
        }
        return id_

    def run(self, id_: str = "run-1", *, conversation: str | None = CONVERSATION, **fields: Any) -> None:
        """Have a run; without a conversation it is one of a send that was not streamed."""
        self.runs[id_] = {
            "id": id_,
            "status": "completed" if conversation else "created",
            "agent_id": AGENT,
            "conversation_id": conversation,
            "created_at": NOW.isoformat(),
            **fields,
        }

    def conversations(self, rows: dict[str, datetime | None]) -> None:
        """Have the agent's conversations with the times of their last messages."""
        listed = [
            {"id": id_, "agent_id": AGENT, "last_message_at": None if at is None else at.isoformat()}
            for id_, at in rows.items()
        ]

        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(f"conversations of {request.url.params['agent_id']}")
            return httpx.Response(200, json=listed)

        self.at.letta.answers["conversations"] = answer


def told(at: Bench, *step_ids: str) -> list[str]:
    """Have the door take steps; the events' ids."""
    return _received(at, [Arrival(Source.LETTA, step_id) for step_id in step_ids])


def signed(at: Bench, key: str = "hook-1", **fields: Any) -> str:
    """Have the door take a signed request; the event's id."""
    return _received(at, [Arrival(Source.SIGNED, key, **fields)])[0]


def _received(at: Bench, arrivals: Sequence[Arrival]) -> list[str]:
    events = at.service.ledger.events
    ids = [receipt.event_id for receipt in events.receive(arrivals, now=at.time.now())]
    events.enqueued(ids, now=at.time.now())
    return ids


def event(at: Bench, event_id: str) -> Event:
    """An event that is there."""
    found = at.service.ledger.events.get(event_id)
    assert found is not None
    return found


def due_in(at: Bench) -> dict[str, timedelta]:
    """The watched conversations, and how long after NOW each is due."""
    return {watch.conversation_id: watch.due_at - NOW for watch in at.service.ledger.watches.waiting(100)}

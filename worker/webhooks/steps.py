"""Where a step took place: from its run to the conversation, or to those that it may have been."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Generic, TypeVar

from worker.address import Misaddressed, whose
from worker.letta.client import DEFAULT, Letta
from worker.letta.errors import NotFound
from worker.letta.models import Conversation, Page, Run, Step, Unreadable
from worker.look import CLOCK_SLACK
from worker.measure import Ref

RECENT = 100
"""An agent's latest conversations among which that of a run without one is looked for."""

T = TypeVar("T")


class Once(Generic[T]):
    """Answers of the server that many ask for at once, each asked for once. Use it on one event loop, for a moment."""

    def __init__(self, ask: Callable[[str], Coroutine[Any, Any, T]]) -> None:
        self._ask = ask
        self._asked: dict[str, asyncio.Task[T]] = {}

    async def get(self, identity: str) -> T:
        """Give the answer about one thing; raises what asking raised."""
        if identity not in self._asked:
            self._asked[identity] = asyncio.create_task(self._ask(identity))
        return await self._asked[identity]


class Places:
    """Finds the conversations of steps: a burst of them has few runs and fewer agents."""

    def __init__(self, letta: Letta) -> None:
        self._letta = letta
        self._runs: Once[Run] = Once(letta.retrieve_run)
        self._recent: Once[Page[Conversation]] = Once(self._list)

    async def of(self, step: Step, at: datetime) -> tuple[Ref, ...]:
        """Give the conversation that a step was in, or those that it may have been in. at: when it was told of.

        Raises LettaError, and Misaddressed where the server does not say whose step it was.
        """
        run = await self._run(step)
        agent_id = step.agent_id or (None if run is None else run.agent_id)
        if run is not None and run.conversation_id is not None:
            if agent_id is None or run.conversation_id == DEFAULT:
                return (await whose(self._letta, run.conversation_id, agent_id),)
            return (Ref(agent_id, run.conversation_id),)
        if agent_id is None:
            raise Misaddressed(f"the server names neither agent nor conversation of {step.id}")
        return await self._near(agent_id, at if run is None or run.created_at is None else run.created_at)

    async def _run(self, step: Step) -> Run | None:
        """Give a step's run; one that is gone says as little as none, and its agent is known all the same."""
        try:
            return None if step.run_id is None else await self._runs.get(step.run_id)
        except NotFound:
            return None

    async def _near(self, agent_id: str, began: datetime) -> tuple[Ref, ...]:
        """Give the agent's conversations to which something was sent when a run began; its own one where none was.

        A conversation to which more was sent since is not among them: that send has a step of its own.
        """
        rows = await self._recent.get(agent_id)
        near = [
            Ref(agent_id, row.id)
            for row in rows
            if not isinstance(row, Unreadable)
            and row.last_message_at is not None
            and abs(row.last_message_at - began) <= CLOCK_SLACK
        ]
        return tuple(near) or (Ref(agent_id, DEFAULT),)

    async def _list(self, agent_id: str) -> Page[Conversation]:
        return await self._letta.list_conversations(agent_id=agent_id, limit=RECENT, order_by="last_message_at")

"""The Letta API, as much of it as the service needs: one method an endpoint, nothing sent twice, no hidden retries.

Collections end in `/` here, because the server redirects when it is missing and no redirect is followed. An agent's
default conversation is the conversation `default` together with the agent's id, in every method that takes both.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from worker.contract.compaction import CompactionRequest, CompactionResponse
from worker.letta.detail import parse_http_date
from worker.letta.errors import Call, UnusableArgument
from worker.letta.messages import ContextOverview, LettaResponse, Message
from worker.letta.models import Agent, Conversation, Health, Page, RowT, Run, Step, read_rows
from worker.letta.pages import walk
from worker.letta.stream import StreamEvent, stream_events
from worker.letta.timeouts import Timeouts
from worker.letta.wire import Params, Wire, decode, protocol_error, shape

DEFAULT = "default"
"""The id by which a path names an agent's own conversation."""

Order = Literal["asc", "desc"]
ConversationOrder = Literal["created_at", "last_run_completion", "last_message_at"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class CompactionReply:
    """A compaction's answer, read, and `body`, the same as it came: the text to keep."""

    response: CompactionResponse
    body: str


class Letta:
    """A client of one Letta server; use it on the event loop that `http` belongs to.

    Every method raises a LettaError, and nothing else, when the exchange does not succeed.
    """

    def __init__(self, http: httpx.AsyncClient, timeouts: Timeouts | None = None) -> None:
        self.timeouts = timeouts or Timeouts()
        self._wire = Wire(http, self.timeouts)

    async def health(self) -> Health:
        """Ask whether the server is up, and which version it is; servers answer this without a key."""
        call = Call("GET", "/v1/health/")
        response = await self._wire.fetch(call, self.timeouts.health)
        health = shape(Health, decode(response, call), call, response)
        return health.model_copy(update={"date": parse_http_date(response.headers.get("date"))})

    # Conversations

    async def list_conversations(
        self,
        *,
        agent_id: str | None = None,
        limit: int = 100,
        after: str | None = None,
        order: Order = "desc",
        order_by: ConversationOrder = "last_message_at",
    ) -> Page[Conversation]:
        """List conversations, of all agents unless one is named; never an agent's default conversation."""
        params = {"agent_id": agent_id, "limit": limit, "after": after, "order": order, "order_by": order_by}
        return await self._list(Conversation, Call("GET", "/v1/conversations/"), params)

    def conversation_pages(
        self,
        *,
        agent_id: str | None = None,
        limit: int = 100,
        order: Order = "desc",
        order_by: ConversationOrder = "last_message_at",
    ) -> AsyncGenerator[Page[Conversation], None]:
        """Walk all conversations; by `created_at` a server loses rows that share a time (0.16.8)."""
        return walk(
            lambda cursor: self.list_conversations(
                agent_id=agent_id, limit=limit, order=order, order_by=order_by, after=cursor.get("after")
            )
        )

    async def retrieve_conversation(self, conversation_id: str) -> Conversation:
        """Retrieve one conversation, with its `in_context_message_ids`; not the default one, which is its agent's."""
        call = Call("GET", f"/v1/conversations/{usable(conversation_id)}")
        return await self._wire.fetch_model(Conversation, call, self.timeouts.read)

    async def fork_conversation(self, conversation_id: str, *, agent_id: str | None = None) -> Conversation:
        """Make a new conversation with the same messages in context: a copy for safety.

        Its `in_context_message_ids` are empty in this answer (0.16.8); retrieve it to see them.
        """
        call = Call("POST", f"/v1/conversations/{usable(conversation_id)}/fork", changes=True)
        params = _direct(conversation_id, agent_id)
        return await self._wire.fetch_model(Conversation, call, self.timeouts.read, params=params)

    async def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation; servers only mark it, and list it no more."""
        call = Call("DELETE", f"/v1/conversations/{usable(conversation_id)}", changes=True)
        await self._wire.fetch(call, self.timeouts.read)

    # Agents

    async def list_agents(self, *, limit: int = 100, after: str | None = None, order: Order = "asc") -> Page[Agent]:
        """List agents by their creation."""
        params = {"limit": limit, "after": after, "order": order}
        return await self._list(Agent, Call("GET", "/v1/agents/"), params)

    def agent_pages(self, *, limit: int = 100) -> AsyncGenerator[Page[Agent], None]:
        """Walk all agents, oldest first, so that one that is made meanwhile moves no page."""
        return walk(lambda cursor: self.list_agents(limit=limit, after=cursor.get("after")))

    async def retrieve_agent(self, agent_id: str) -> Agent:
        """Retrieve one agent."""
        call = Call("GET", f"/v1/agents/{usable(agent_id)}")
        return await self._wire.fetch_model(Agent, call, self.timeouts.read)

    async def context_overview(self, agent_id: str, conversation_id: str | None = None) -> ContextOverview:
        """Measure what fills an agent's context, for one conversation or (None, `default`) its default one."""
        call = Call("GET", f"/v1/agents/{usable(agent_id)}/context")
        named = None if conversation_id in {None, DEFAULT} else usable(str(conversation_id))
        params = {"conversation_id": named}
        return await self._wire.fetch_model(ContextOverview, call, self.timeouts.overview, params=params)

    # Messages

    async def list_messages(
        self,
        conversation_id: str,
        *,
        agent_id: str | None = None,
        limit: int = 100,
        before: str | None = None,
        after: str | None = None,
        order: Order = "desc",
    ) -> Page[Message]:
        """List a conversation's messages, in context or not; `limit` counts the server's, of which one may be several.

        The reference has `before` and `after` follow the order asked for; 0.16.8 has them follow time.
        """
        call = Call("GET", f"/v1/conversations/{usable(conversation_id)}/messages")
        params: Params = {"limit": limit, "before": before, "after": after, "order": order}
        return await self._list(Message, call, {**params, **_direct(conversation_id, agent_id)})

    def message_pages(
        self, conversation_id: str, *, agent_id: str | None = None, limit: int = 100, order: Order = "asc"
    ) -> AsyncGenerator[Page[Message], None]:
        """Walk all messages of a conversation, in whichever sense the server understands its cursors."""
        return walk(
            lambda cursor: self.list_messages(
                conversation_id,
                agent_id=agent_id,
                limit=limit,
                order=order,
                before=cursor.get("before"),
                after=cursor.get("after"),
            ),
            ("after",) if order == "asc" else ("before", "after"),
        )

    async def send_message(
        self, conversation_id: str, messages: Sequence[Mapping[str, Any]], *, agent_id: str | None = None
    ) -> LettaResponse:
        """Send messages and wait for the whole reply; a message is such as `{"role": "user", "content": "..."}`."""
        call = _send(conversation_id)
        body = {"messages": list(messages), "streaming": False, **_direct(conversation_id, agent_id)}
        return await self._wire.fetch_model(LettaResponse, call, self.timeouts.send, body=body)

    def stream_message(
        self,
        conversation_id: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        agent_id: str | None = None,
        stream_tokens: bool = False,
        background: bool = False,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Send messages and yield the reply's events; `background` needs a Letta server with Redis, else 503."""
        body = {
            "messages": list(messages),
            "streaming": True,
            "stream_tokens": stream_tokens,
            "background": background,
            **_direct(conversation_id, agent_id),
        }
        return stream_events(self._wire, _send(conversation_id), body)

    def retrieve_stream(
        self,
        conversation_id: str,
        *,
        agent_id: str | None = None,
        run_id: str | None = None,
        otid: str | None = None,
        starting_after: int | None = None,
        include_pings: bool | None = None,
        poll_interval: float | None = None,
        batch_size: int | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Pick up the stream of a send in the background, after event number `starting_after`; it changes nothing."""
        call = Call("POST", f"/v1/conversations/{usable(conversation_id)}/stream")
        options = {
            "run_id": run_id,
            "otid": otid,
            "starting_after": starting_after,
            "include_pings": include_pings,
            "poll_interval": poll_interval,
            "batch_size": batch_size,
        }
        # With a run's id the server asks for no agent.
        direct = {} if run_id or otid else _direct(conversation_id, agent_id)
        body = {name: value for name, value in options.items() if value is not None} | direct
        return stream_events(self._wire, call, body)

    # Compaction

    async def compact(self, conversation_id: str, request: CompactionRequest | None = None) -> CompactionReply:
        """Compact a conversation, once; for the default one the request names the agent.

        A 400 with `nothing_to_compact` is a refusal, and its attempt was paid for. After an error whose outcome is not
        known, the server may still be at work: look before another call.
        """
        request = request or CompactionRequest()
        _direct(conversation_id, request.agent_id)
        call = Call("POST", f"/v1/conversations/{usable(conversation_id)}/compact", changes=True)
        response = await self._wire.fetch(call, self.timeouts.compact, body=request.body())
        reply = shape(CompactionResponse, decode(response, call), call, response)
        return CompactionReply(reply, response.content.decode("utf-8"))

    # Steps and runs

    async def retrieve_step(self, step_id: str) -> Step:
        """Retrieve one step."""
        return await self._wire.fetch_model(Step, Call("GET", f"/v1/steps/{usable(step_id)}"), self.timeouts.read)

    async def retrieve_run(self, run_id: str) -> Run:
        """Retrieve one run."""
        return await self._wire.fetch_model(Run, Call("GET", f"/v1/runs/{usable(run_id)}"), self.timeouts.read)

    async def list_runs(
        self,
        *,
        agent_id: str | None = None,
        conversation_id: str | None = None,
        active: bool | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[Run]:
        """List runs, newest first; `active` keeps those not ended. The server takes limits from 1 to 1000.

        Runs prove that a conversation is busy, never that it is idle: sends that are not streamed name no conversation.
        """
        params: Params = {
            "agent_id": agent_id,
            "conversation_id": conversation_id,
            "active": "true" if active else None,
            "limit": limit,
            "after": after,
            "order": "desc",
        }
        return await self._list(Run, Call("GET", "/v1/runs/"), params)

    async def _list(self, kind: type[RowT], call: Call, params: Params) -> Page[RowT]:
        response = await self._wire.fetch(call, self.timeouts.read, params=params)
        rows = decode(response, call)
        if not isinstance(rows, list):
            raise protocol_error("answered with something that is not a list", call, response)
        return read_rows(rows, kind)


def _send(conversation_id: str) -> Call:
    return Call("POST", f"/v1/conversations/{usable(conversation_id)}/messages", changes=True)


def usable(identity: str) -> str:
    """Return an id that may go into a path as it is, whoever gave it. Raises UnusableArgument."""
    if not _ID.fullmatch(identity):
        raise UnusableArgument(f"{identity[:40]!r} is not an id: up to 128 letters, digits, - and _ are")
    return identity


def _direct(conversation_id: str, agent_id: str | None) -> dict[str, str]:
    """Return what names the agent of a default conversation, and nothing for any other."""
    if conversation_id != DEFAULT:
        return {}
    if agent_id is None:
        raise UnusableArgument("the conversation 'default' is an agent's own: name the agent's id too")
    return {"agent_id": usable(agent_id)}

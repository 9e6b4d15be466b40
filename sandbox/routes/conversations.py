"""Conversations: the list, the messages, sending, streaming, forking and compacting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from sandbox import agents as making
from sandbox.bodies import CompactionRequest, CreateConversation, SendRequest, StreamRequest, UpdateConversation
from sandbox.compaction import Compactor
from sandbox.context import default_agent, find, in_context_ids
from sandbox.errors import Unavailable, Unprocessable
from sandbox.faults import HICCUP
from sandbox.ids import CONVERSATION_ID, CONVERSATION_OR_DEFAULT, stamp
from sandbox.listing import MessagePage, Order, Page
from sandbox.messages import for_list
from sandbox.sending import Sender
from sandbox.sse import END_TURN, stream_reply
from sandbox.store import Store

ConversationId = Annotated[str, Path(pattern=CONVERSATION_ID, min_length=41, max_length=41)]
ConversationOrDefault = Annotated[str, Path(pattern=CONVERSATION_OR_DEFAULT, min_length=1, max_length=42)]

NO_REDIS = (
    "Background streaming requires Redis to be running. Please ensure Redis is properly configured."
    " LETTA_REDIS_HOST: None, LETTA_REDIS_PORT: 6379"
)


def router(store: Store) -> APIRouter:
    """Build the routes that only read, make and delete."""
    routes = APIRouter(prefix="/v1/conversations")

    @routes.post("/")
    async def create_conversation(
        agent_id: str, conversation_create: Annotated[CreateConversation | None, Body()] = None
    ) -> dict[str, Any]:
        body = conversation_create or CreateConversation()
        return making.create_conversation(store, agent_id, summary=body.summary, model=body.model)

    @routes.get("/")
    async def list_conversations(
        agent_id: str | None = None,
        limit: int = 50,
        after: str | None = None,
        order: Order = "desc",
        order_by: Literal["created_at", "last_run_completion", "last_message_at"] = "created_at",
    ) -> list[dict[str, Any]]:
        return store.conversations(Page(limit, after, order, order_by), agent_id)

    @routes.get("/{conversation_id}")
    async def retrieve_conversation(conversation_id: ConversationId) -> dict[str, Any]:
        return store.conversation(conversation_id)

    @routes.patch("/{conversation_id}")
    async def update_conversation(
        conversation_id: ConversationId, conversation_update: UpdateConversation
    ) -> dict[str, Any]:
        conversation = store.conversation(conversation_id)
        changes = conversation_update.model_dump(exclude_none=True)
        if conversation_update.last_message_at:
            changes["last_message_at"] = stamp(conversation_update.last_message_at)
        store.update_conversation(conversation["id"], changes)
        return {**store.conversation(conversation_id), "in_context_message_ids": []}

    @routes.delete("/{conversation_id}")
    async def delete_conversation(conversation_id: ConversationId) -> None:
        store.delete_conversation(conversation_id)

    @routes.post("/{conversation_id}/fork")
    async def fork_conversation(conversation_id: ConversationOrDefault, agent_id: str | None = None) -> dict[str, Any]:
        target = find(store, conversation_id, agent_id)
        model = store.conversation(target.conversation_id)["model"] if target.conversation_id else None
        return making.fork(store, target.agent["id"], in_context_ids(store, target), model)

    @routes.get("/{conversation_id}/messages")
    async def list_messages(
        *,
        conversation_id: ConversationOrDefault,
        agent_id: str | None = None,
        before: str | None = None,
        after: str | None = None,
        limit: int | None = 100,
        order: Order = "desc",
        include_return_message_types: Annotated[list[str] | None, Query()] = None,
    ) -> list[dict[str, Any]]:
        page = MessagePage(limit, before, after, order)
        direct = default_agent(conversation_id, agent_id)
        # A conversation that does not exist has no messages; it is not an error here.
        found = store.default_message_page(direct, page) if direct else store.message_page(conversation_id, page)
        wanted = include_return_message_types
        return [item for item in for_list(found) if wanted is None or item["message_type"] in wanted]

    return routes


def acting_router(store: Store, sender: Sender, compactor: Compactor, ping_interval: float) -> APIRouter:
    """Build the routes that send and compact."""
    routes = APIRouter(prefix="/v1/conversations")

    @routes.post("/{conversation_id}/messages")
    async def send_message(conversation_id: ConversationOrDefault, request: SendRequest) -> Response:
        if not request.messages:
            raise Unprocessable("Messages must not be empty")
        target = find(store, conversation_id, request.agent_id)
        if request.streaming and request.background:
            raise Unavailable(f"INTERNAL_SERVER_ERROR: {NO_REDIS}")
        if request.streaming:
            events: AsyncIterator[str] = stream_reply(sender, target, request, ping_interval)
            return StreamingResponse(events, media_type="text/event-stream")
        run_id = sender.begin(target, streaming=False)
        sent = await sender.answer(target, request, run_id)
        body = {"messages": sent.items, "stop_reason": END_TURN, "usage": sent.usage, "logprobs": None, "turns": None}
        return JSONResponse(body)

    @routes.post("/{conversation_id}/stream")
    async def retrieve_stream(
        conversation_id: ConversationOrDefault,  # noqa: ARG001 - without Redis the real server does not look at it
        request: Annotated[StreamRequest | None, Body()] = None,  # noqa: ARG001 - nor at this
    ) -> None:
        raise Unavailable(NO_REDIS)

    @routes.post("/{conversation_id}/compact")
    async def compact_conversation(
        http: Request,
        conversation_id: ConversationOrDefault,
        request: Annotated[CompactionRequest | None, Body()] = None,
    ) -> dict[str, Any]:
        hiccup = bool(http.scope.get(HICCUP))
        return await compactor.compact(conversation_id, request or CompactionRequest(), hiccup=hiccup)

    return routes

"""Agents and their context overview."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path

from sandbox import agents as making
from sandbox import tokens
from sandbox.bodies import CreateAgent
from sandbox.ids import AGENT_ID
from sandbox.listing import Order, Page
from sandbox.store import Store

AgentId = Annotated[str, Path(pattern=AGENT_ID)]


def router(store: Store) -> APIRouter:
    """Build the routes over one store."""
    routes = APIRouter(prefix="/v1/agents")

    @routes.post("/")
    async def create_agent(agent: CreateAgent) -> dict[str, Any]:
        return making.shown(making.create_agent(store, agent))

    @routes.get("/")
    async def list_agents(
        limit: int | None = 50,
        before: str | None = None,
        after: str | None = None,
        order: Order = "desc",
        order_by: Literal["created_at", "updated_at", "last_run_completion"] = "created_at",
    ) -> list[dict[str, Any]]:
        return [making.shown(agent) for agent in store.agents(Page(limit, after, order, order_by, before))]

    @routes.get("/{agent_id}")
    async def retrieve_agent(agent_id: AgentId) -> dict[str, Any]:
        return making.shown(store.agent(agent_id))

    @routes.delete("/{agent_id}")
    async def delete_agent(agent_id: AgentId) -> dict[str, str]:
        store.delete_agent(agent_id)
        return {"message": f"Agent id={agent_id} successfully deleted"}

    @routes.get("/{agent_id}/context")
    async def context_overview(agent_id: AgentId, conversation_id: str | None = None) -> dict[str, Any]:
        agent = store.agent(agent_id)
        # A conversation that does not exist (`default` is one such) is not an error here, it is an empty context.
        ids = agent["message_ids"] if conversation_id is None else store.in_context_ids(conversation_id)
        system = making.compiled_system_message(store, agent)
        return tokens.overview(system, store.messages(ids[1:]), agent["window"], store.count_messages(agent_id))

    return routes

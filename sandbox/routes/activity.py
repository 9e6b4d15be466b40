"""Health, runs and steps."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from sandbox.activity import ACTIVE, STATUSES, Activity, RunFilter
from sandbox.errors import BadRequest
from sandbox.ids import STEP_ID, insist_on_format
from sandbox.listing import Order

VERSION = "0.16.8"
"""The version of Letta that this sandbox stands in for, and says it is."""


def router(activity: Activity) -> APIRouter:
    """Build the routes over the record of what happened."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/health/")
    async def health() -> dict[str, str]:
        return {"version": VERSION, "status": "ok"}

    @routes.get("/steps/")
    async def list_steps() -> None:
        # Version 0.16.8 cannot list steps.
        raise BadRequest("Argument order does not match type typing.Optional[str]; is False of type <class 'bool'>")

    @routes.get("/steps/{step_id}")
    async def retrieve_step(step_id: Annotated[str, Path(pattern=STEP_ID)]) -> dict[str, Any]:
        return activity.step(step_id)

    @routes.get("/runs/")
    async def list_runs(
        *,
        agent_id: str | None = None,
        agent_ids: Annotated[list[str] | None, Query()] = None,
        statuses: Annotated[list[str] | None, Query()] = None,
        background: bool | None = None,
        conversation_id: str | None = None,
        before: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        order: Order = "desc",
        active: bool = False,
    ) -> list[dict[str, Any]]:
        if statuses is None and active:
            statuses = list(ACTIVE)
        unknown = next((status for status in statuses or [] if status not in STATUSES), None)
        if unknown is not None:
            raise BadRequest(f"{unknown!r} is not a valid RunStatus")
        agents = [agent_id] if agent_id else agent_ids
        return activity.runs(RunFilter(agents, conversation_id, statuses, background, before, after, order, limit))

    @routes.get("/runs/{run_id}")
    async def retrieve_run(run_id: str) -> dict[str, Any]:
        insist_on_format("run", run_id)
        return activity.run(run_id)

    return routes

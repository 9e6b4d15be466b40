"""The door's pages: each verifies, commits or looks up, and answers; nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from scheduler.door import description
from scheduler.door.bodies import CompactionAsked, StepComplete, WrongBody, shaped
from scheduler.door.following import CompactionShown, EventShown
from scheduler.door.ids import FOLLOWED_ID, spelled
from scheduler.door.intake import LATER, PATIENCE, SOON, Intake, NotTaken
from scheduler.door.keys import Keys
from scheduler.door.lane import Lane
from scheduler.door.readiness import Look
from scheduler.door.reading import parse, read_body, require_json
from scheduler.door.sources import Sources
from worker.audit.database import LedgerError
from worker.audit.events import Arrival, Source
from worker.telemetry import tracing

T = TypeVar("T")

HEALTHZ, READYZ = "/healthz", "/readyz"
PROBES = frozenset({HEALTHZ, READYZ})


@dataclass(frozen=True, slots=True)
class Door:
    """What the pages work with. policies: names of those in force; follow: looks an id up, and may block."""

    keys: Keys
    intake: Intake
    policies: Callable[[], Mapping[str, object]]
    follow: Callable[[str], EventShown | CompactionShown | None]
    reader: Lane
    database: Look
    broker: Look


def create_app(door: Door, sources: Sources, running: Callable[[], AbstractAsyncContextManager[None]]) -> ASGIApp:
    """Put the pages together. running: what has to run beside them, from their start to their end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running():
            yield

    app = FastAPI(
        title="compactor",
        description=description.ABOUT,
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"metrics": False, "logs": False, "exclude": lambda scope: scope.get("path") in PROBES},
    )
    app.include_router(_taking(door))
    app.include_router(_showing(door))
    app.add_exception_handler(WrongBody, lambda _, error: _refusal(422, str(error)))
    app.add_exception_handler(NotTaken, _not_taken)
    app.add_exception_handler(LedgerError, lambda *_: _later(LATER))
    described = app.openapi()
    described.setdefault("components", {})["securitySchemes"] = description.SECURITY
    return _Gate(app, sources)


def _taking(door: Door) -> APIRouter:
    router = APIRouter(redirect_slashes=False)

    async def accept(arrival: Arrival) -> JSONResponse:
        receipt = await door.intake.take(replace(arrival, trace=tracing.here()))
        return JSONResponse({"event_id": receipt.event_id, "follow": f"/compactions/{receipt.event_id}"}, 202)

    @router.post(
        "/webhooks/letta/step-complete",
        status_code=202,
        response_model=description.Accepted,
        responses=description.TAKING,
        openapi_extra=description.STEP_COMPLETE,
    )
    async def step_complete(request: Request) -> JSONResponse:
        """Take what a Letta server sends after each step (its STEP_COMPLETE_WEBHOOK)."""
        door.keys.admit_server(request)
        require_json(request)
        told = shaped(StepComplete, parse(await read_body(request)))
        return await accept(Arrival(Source.LETTA, told.step_id))

    @router.post(
        "/webhooks/compaction",
        status_code=202,
        response_model=description.Accepted,
        responses=description.TAKING,
        openapi_extra=description.COMPACTION,
    )
    async def compaction(request: Request) -> JSONResponse:
        """Take anyone's signed request to look at a conversation now (Standard Webhooks)."""
        webhook_id = door.keys.webhook_id(request)
        require_json(request)
        body = await read_body(request)
        door.keys.admit_signed(request, webhook_id, body)
        asked = shaped(CompactionAsked, parse(body))
        _require_policy(asked.policy, door)
        return await accept(
            Arrival(Source.SIGNED, webhook_id, asked.conversation_id, asked.agent_id, asked.policy, asked.reason)
        )

    return router


def _showing(door: Door) -> APIRouter:
    router = APIRouter(redirect_slashes=False)

    @router.get(
        "/compactions/{followed_id}",
        response_model=EventShown | CompactionShown,
        responses=description.SHOWING,
        openapi_extra=description.FOLLOWED,
    )
    async def followed(request: Request) -> JSONResponse:
        """Show what became of an event or a compaction; never a summary."""
        door.keys.admit_follower(request)
        followed_id = request.path_params["followed_id"]
        if not spelled(FOLLOWED_ID, followed_id):
            raise WrongBody("followed_id: is not the id of an event or a compaction")
        shown = await _within(door.reader, lambda: door.follow(followed_id))
        if shown is None:
            raise HTTPException(404, "there is no event and no compaction of this id")
        return JSONResponse(shown.model_dump(mode="json"))

    @router.get(HEALTHZ, response_model=description.Alive)
    async def healthz() -> JSONResponse:
        """Tell that the process runs: always 200."""
        return JSONResponse({"status": "alive"})

    @router.get(
        READYZ,
        response_model=description.Ready,
        responses={503: {"model": description.Ready, "description": "The database is away."}},
    )
    async def readyz() -> JSONResponse:
        """Tell whether the door can take webhooks: 503 when the database is away.

        With the broker away it stays ready and says so: what is accepted is safe in the ledger and handed on later,
        whereas senders that never repeat anything would lose it at a door out of rotation.
        """
        database, broker = await asyncio.gather(door.database.is_there(), door.broker.is_there())
        told = {"status": _here(database), "database": _here(database), "broker": _here(broker)}
        return JSONResponse(told, 200 if database else 503)

    return router


class _Gate:
    """Before the pages: a source that asks too much is refused. Probes are not counted."""

    def __init__(self, app: ASGIApp, sources: Sources) -> None:
        self._app, self._sources = app, sources
        self._refusal = _later(SOON, 429, "too many requests")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PROBES:
            client = scope.get("client")
            if client is not None and not self._sources.admits(client[0]):
                await self._refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _within(lane: Lane, call: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(PATIENCE):
            return await lane.run(call)
    except TimeoutError:
        raise NotTaken(LATER) from None


def _require_policy(name: str | None, door: Door) -> None:
    if name is not None and name not in (known := door.policies()):
        raise WrongBody(f"policy: there is no such policy; there are {', '.join(sorted(known))}")


def _not_taken(_: Request, error: Any) -> JSONResponse:
    return _later(error.retry_after)


def _later(seconds: int, status: int = 503, why: str = "the database is away or busy: send it again") -> JSONResponse:
    return JSONResponse({"detail": why}, status, headers={"Retry-After": str(seconds)})


def _refusal(status: int, why: str) -> JSONResponse:
    return JSONResponse({"detail": why}, status)


def _here(there: bool) -> str:  # noqa: FBT001 - the one thing to say
    return "here" if there else "away"

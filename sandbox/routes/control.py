"""How tests steer the sandbox and ask what it saw. None of this exists on a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sandbox.activity import Activity
from sandbox.compaction import Compactor
from sandbox.errors import Unprocessable
from sandbox.faults import Fault, Faults
from sandbox.gate import Gate
from sandbox.options import Delay
from sandbox.sending import Sender


class FaultRule(BaseModel):
    """One fault as tests write it; the fields are those of `Fault`."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str
    kind: str
    probability: float = 1.0
    times: int | None = Field(default=None, ge=0)
    conversation_id: str | None = None
    retry_after: float = 1.0


class FaultSet(BaseModel):
    """All the faults that are to be in force; texts are read as the command line reads them."""

    model_config = ConfigDict(extra="forbid")

    faults: list[FaultRule | str]
    seed: int = 1


class Latencies(BaseModel):
    """Delays to change, each `SECONDS` or `SECONDS:JITTER`; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    latency: str | float | None = None
    compact_latency: str | float | None = None
    reply_latency: str | float | None = None


def router(
    activity: Activity, faults: Faults, compactor: Compactor, sender: Sender, gate: Callable[[], Gate]
) -> APIRouter:
    """Build the routes over what they steer; `gate` gives the way in, which exists only once the app does."""
    routes = APIRouter(prefix="/sandbox")

    @routes.get("/compactions")
    async def compactions() -> dict[str, Any]:
        return activity.compactions()

    @routes.get("/requests")
    async def requests() -> dict[str, int]:
        return dict(gate().requests)

    @routes.get("/faults")
    async def show_faults() -> list[dict[str, Any]]:
        return faults.shown()

    @routes.post("/faults")
    async def replace_faults(wanted: FaultSet) -> list[dict[str, Any]]:
        try:
            rules = tuple(
                Fault.parse(rule) if isinstance(rule, str) else Fault(**rule.model_dump()) for rule in wanted.faults
            )
        except ValueError as error:
            raise Unprocessable(str(error)) from error
        faults.replace(rules, wanted.seed)
        return faults.shown()

    @routes.post("/latency")
    async def change_latency(wanted: Latencies) -> dict[str, dict[str, float]]:
        places: dict[str, Any] = {"latency": gate(), "compact_latency": compactor, "reply_latency": sender}
        try:
            delays = {name: Delay.parse(str(value)) for name, value in wanted if value is not None}
        except ValueError as error:
            raise Unprocessable(str(error)) from error
        for name, delay in delays.items():
            places[name].latency = delay
        return {
            name: {"seconds": place.latency.seconds, "jitter": place.latency.jitter} for name, place in places.items()
        }

    return routes

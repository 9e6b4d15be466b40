"""The endpoints by name: what faults are aimed at, and what the count of requests is kept by."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: the short name that faults use, the method and the path with its parameters' names."""

    name: str
    method: str
    path: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """What the endpoint's paths look like; the slash at the end does not matter."""
        return re.compile(re.sub(r"\{\w+\}", "[^/]+", self.path.rstrip("/")) + "/?")


ENDPOINTS = (
    Endpoint("health", "GET", "/v1/health/"),
    Endpoint("agents", "GET", "/v1/agents/"),
    Endpoint("create-agent", "POST", "/v1/agents/"),
    Endpoint("agent", "GET", "/v1/agents/{agent_id}"),
    Endpoint("delete-agent", "DELETE", "/v1/agents/{agent_id}"),
    Endpoint("context", "GET", "/v1/agents/{agent_id}/context"),
    Endpoint("conversations", "GET", "/v1/conversations/"),
    Endpoint("create-conversation", "POST", "/v1/conversations/"),
    Endpoint("conversation", "GET", "/v1/conversations/{conversation_id}"),
    Endpoint("update-conversation", "PATCH", "/v1/conversations/{conversation_id}"),
    Endpoint("delete-conversation", "DELETE", "/v1/conversations/{conversation_id}"),
    Endpoint("fork", "POST", "/v1/conversations/{conversation_id}/fork"),
    Endpoint("messages", "GET", "/v1/conversations/{conversation_id}/messages"),
    Endpoint("send", "POST", "/v1/conversations/{conversation_id}/messages"),
    Endpoint("stream", "POST", "/v1/conversations/{conversation_id}/stream"),
    Endpoint("compact", "POST", "/v1/conversations/{conversation_id}/compact"),
    Endpoint("step", "GET", "/v1/steps/{step_id}"),
    Endpoint("runs", "GET", "/v1/runs/"),
    Endpoint("run", "GET", "/v1/runs/{run_id}"),
)

CLASSES = frozenset(endpoint.name for endpoint in ENDPOINTS)

UNKNOWN = Endpoint("unknown", "*", "*")

_PATTERNS = [(endpoint, endpoint.pattern) for endpoint in ENDPOINTS]


def endpoint_of(method: str, path: str) -> Endpoint:
    """Say which endpoint a request is for; `UNKNOWN` when it is for none."""
    for endpoint, pattern in _PATTERNS:
        if endpoint.method == method and pattern.fullmatch(path):
            return endpoint
    return UNKNOWN

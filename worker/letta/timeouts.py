"""The named time-outs of calls to a Letta server, in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each kind of call may take as a whole, from asking for a connection to the answer's last byte."""

    connect: float = 5.0
    """Name lookup, TCP and TLS, for every kind of call."""

    health: float = 5.0
    """The health check."""

    read: float = 30.0
    """Lists, single objects, and the small writes (fork, delete)."""

    overview: float = 60.0
    """The context overview, which may cost the server a call to its provider's token counter."""

    send: float = 300.0
    """A message whose reply is awaited whole."""

    stream_gap: float = 60.0
    """Between two events of a stream; a server that pings does so every 30 s (0.16.8)."""

    compact: float = 600.0
    """A compaction, which waits for a model to read the conversation and write its summary."""

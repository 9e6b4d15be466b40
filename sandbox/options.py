"""What one sandbox is told at its start: one frozen object."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.faults import Fault


@dataclass(frozen=True)
class Delay:
    """A waiting time in seconds, give or take a jitter."""

    seconds: float = 0.0
    jitter: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Delay:
        """Read `SECONDS` or `SECONDS:JITTER`; raises ValueError with what is expected."""
        parts = text.split(":")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 2 or any(not math.isfinite(number) or number < 0 for number in numbers):  # noqa: PLR2004
            raise ValueError(f"{text!r} is not a delay; give SECONDS or SECONDS:JITTER, for example 0.05:0.02")
        return cls(*numbers)

    def pick(self, rng: random.Random) -> float:
        """Choose how long to wait this time, in seconds."""
        return max(0.0, self.seconds + rng.uniform(-self.jitter, self.jitter))


@dataclass(frozen=True)
class Options:
    """Everything that the command line, and two variables of the environment, say."""

    database: Path
    seed: int = 0
    """Conversations to make in an empty file."""
    seed_value: int = 1
    """Which data to make: the same value, the same data."""
    latency: Delay = field(default_factory=Delay)
    """Before each request."""
    compact_latency: Delay = field(default_factory=Delay)
    """For each call of the summarizer."""
    reply_latency: Delay = field(default_factory=Delay)
    """For each reply of an agent."""
    reply_chars: int = 240
    """The length of a reply."""
    ping_interval: float = 20.0
    """Seconds between the pings of a stream that has nothing to say."""
    api_key: str | None = field(default=None, repr=False)
    faults: tuple[Fault, ...] = ()
    fault_seed: int = 1
    webhook_url: str | None = None
    webhook_key: str | None = field(default=None, repr=False)
